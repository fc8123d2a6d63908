// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/lease.h"

#include <ctime>

#include "relay/base/mutants.h"
#include "relay/postgres/statements.h"

namespace relay::postgres {

// A fail-over to a server whose clock is behind must not cost more than one ttl: hence the second
// way to find it expired.
Result<bool> PgLease::available() {
  std::string sql = sql::look_at_lease;
  if (MUTANT(lease_by_relay_clock)) {
    const std::string now = "pg_catalog.clock_timestamp()";
    sql.replace(sql.find(now), now.size(),
                "to_timestamp(" + std::to_string(std::time(nullptr)) + ")");
  }
  auto rows = database_.control().run("looking at the lease", sql, options_.holder);
  if (!rows) return rows.error();
  if (rows->empty())
    return Error{Fault::refused, "outbox.lease has no row",
                 "run `outbox-relay init` in this database"};
  const auto row = (*rows)[0];
  const auto epoch = row[0].as<std::int64_t>();
  const std::string expiry = row[1].c_str();
  const auto now = Clock::now();
  if (epoch != seen_epoch_ || expiry != seen_expiry_) {
    seen_epoch_ = epoch;
    seen_expiry_ = expiry;
    unchanged_since_ = now;
  }
  return row[2].as<bool>() || now - unchanged_since_ >= options_.lease_ttl;
}

// REQUIRES: available() was true just now. What it saw is the condition, so that of several
// standbys one wins.
Result<std::optional<Lease::Taken>> PgLease::take() {
  const auto sent = Clock::now();
  auto rows = database_.control().run("taking the lease", sql::take_lease, options_.holder,
                                      interval_text(options_.lease_ttl), options_.relay,
                                      seen_epoch_, seen_expiry_, database_.identity().cluster);
  if (!rows) return rows.error();
  if (const auto warning = database_.control().take_warning()) {
    return Error{Fault::postgres, "PostgreSQL, taking the lease: " + *warning, {}, true, true};
  }
  if (rows->empty()) return std::optional<Taken>{};
  const auto epoch = (*rows)[0][0].as<std::int64_t>();
  const bool continued =
      epoch_ != 0 &&
      epoch == epoch_ + 1;  // each take-over counts, also of a lease that had run out
  epoch_ = epoch;
  sign_of_life_ = sent;
  return std::optional<Taken>(Taken{epoch, continued});
}

Result<void> PgLease::renew() {
  const auto sent = Clock::now();
  auto rows = database_.control().run("renewing the lease", sql::renew_lease,
                                      interval_text(options_.lease_ttl), epoch_, options_.holder);
  if (!rows) return rows.error();
  if (rows->empty()) {
    epoch_ = 0;
    return Error{Fault::fenced, "another relay took the lease of this outbox"};
  }
  sign_of_life_ = sent;
  return {};
}

Result<void> PgLease::resign() {
  auto rows =
      database_.control().run("giving up the lease", sql::resign_lease, epoch_, options_.holder);
  epoch_ = 0;
  if (!rows) return rows.error();
  return {};
}

bool PgLease::held() const {
  return epoch_ != 0 && Clock::now() < sign_of_life_ + options_.lease_ttl;
}
bool PgLease::due() const { return Clock::now() >= sign_of_life_ + options_.lease_ttl / 3; }

}  // namespace relay::postgres
