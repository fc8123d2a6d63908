// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "relay/core/ports.h"
#include "relay/postgres/database.h"
#include "relay/postgres/options.h"

namespace relay::postgres {

// The lease in outbox.lease. Expiry is by the clock of the database; this process stops by its own
// monotonic clock, counted from before the renewal was sent, so neither clock has to agree with the
// other.
class PgLease : public Lease {
 public:
  PgLease(const Options& options, PgDatabase& database) : options_(options), database_(database) {}

  Result<bool> available() override;
  Result<std::optional<Taken>> take() override;
  Result<void> renew() override;
  Result<void> resign() override;
  bool held() const override;
  bool due() const override;
  void extended(Clock::time_point sent) override { sign_of_life_ = sent; }

 private:
  const Options& options_;
  PgDatabase& database_;
  std::int64_t epoch_ = 0;  // ours; 0: none
  Clock::time_point sign_of_life_{};
  // What a standby saw last, and since when it has not changed.
  std::int64_t seen_epoch_ = -1;
  std::string seen_expiry_;
  Clock::time_point unchanged_since_{};
};

}  // namespace relay::postgres
