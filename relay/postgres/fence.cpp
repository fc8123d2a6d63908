// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/fence.h"

#include "relay/base/mutants.h"

namespace relay::postgres {

std::string fenced(std::string sql) {
  const std::string lock = " for key share";
  if (MUTANT(no_epoch_lock)) sql.erase(sql.find(lock), lock.size());
  return sql;
}

std::string renewing_fence(const char* ttl) {
  return std::string(
             "fence as (update outbox.lease l set expires_at = pg_catalog.clock_timestamp() + ") +
         ttl + "::interval where l.epoch = $1::bigint and l.holder = $2::text returning l.epoch)";
}

}  // namespace relay::postgres
