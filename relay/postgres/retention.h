// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "relay/base/clock.h"
#include "relay/postgres/options.h"
#include "relay/postgres/pqxx_session.h"

namespace relay::postgres {

struct RetentionOptions {
  std::chrono::milliseconds keep{86'400'000};
  std::int64_t rows_per_second = 20'000;
};

// What one page of retention did.
struct Pruned {
  std::int64_t messages = 0;
  std::int64_t batches = 0;
  bool more = false;  // the page was full: there may be more
};

// Deletes one page of messages before the horizon; when none is left, a page of parked messages
// that were released before it and one of the journal rows that are not needed. Each statement
// locks the lease, which the stream renews: none may take long. `epoch` and options.holder must
// hold the lease (Fault::fenced).
Result<Pruned> prune_page(PqxxSession& control, const Options& options,
                          std::chrono::milliseconds keep, std::int64_t epoch, std::int64_t rows);

// Does it page by page, at the configured pace. Used by the thread of PgMaintenance.
class Retention {
 public:
  Retention(const Options& options, const RetentionOptions& retention)
      : options_(options), retention_(retention) {}
  // The lease was taken: the first page is due.
  void start() { prune_at_ = Clock::now(); }
  bool due() const { return Clock::now() >= prune_at_; }
  // Deletes a page; returns how long to wait at most.
  Result<Millis> run(PqxxSession& control, std::int64_t epoch);

 private:
  const Options& options_;
  const RetentionOptions retention_;
  Clock::time_point prune_at_{};
};

}  // namespace relay::postgres
