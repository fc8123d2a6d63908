// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/fence.h"

#include "relay/base/sabotage.h"

namespace outbox::postgres {

std::string fence_sql(const char* epoch, const char* holder, const char* renewed_by) {
  const std::string ours =
      std::string("l.epoch = ") + epoch + "::bigint and l.holder = " + holder + "::text";
  if (renewed_by != nullptr) {
    return std::string(
               "with fence as (update outbox.lease l set expires_at = "
               "pg_catalog.clock_timestamp() + ") +
           renewed_by + "::interval where " + ours + " returning l.epoch)";
  }
  const char* const lock = SABOTAGED(no_epoch_lock) ? "" : " for share";
  return "with fence as materialized (select l.epoch from outbox.lease l where " + ours + lock +
         ")";
}

}  // namespace outbox::postgres
