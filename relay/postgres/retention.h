// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "relay/base/clock.h"
#include "relay/core/snapshot.h"
#include "relay/postgres/options.h"
#include "relay/postgres/pace.h"
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

// How far retention has come. Rows that are deleted stay in tables and indexes as long as anybody
// has an old snapshot open, so that a page must not begin where the first one began. Valid for one
// session: a server that was restored knows other transactions.
struct PrunePosition {
  // Of a horizon whose messages are being deleted.
  struct Horizon {
    std::int64_t number;  // of its first batch
    std::int64_t batch;   // one that has its base
    std::string base;
  };
  std::optional<Horizon> horizon = {};
  std::string deleted;        // snapshot: nothing visible in it is left; empty: ask the journal
  std::string txid = "0";     // of the last message deleted …
  std::int64_t seq = 0;       // … before `horizon`
  std::int64_t released = 0;  // number of a release; parked messages of earlier ones are deleted
  std::int64_t batch = 0;     // number of a batch; earlier ones are deleted, or needed

  // Before everything, whatever the journal says.
  static PrunePosition beginning() { return {.deleted = Snapshot::nothing().text()}; }
};

// Deletes one page of messages before the horizon; when none is left, a page of parked messages
// that were released before it and one of the journal rows that are not needed. `epoch` and
// options.holder must hold the lease (Fault::fenced).
Result<Pruned> prune_page(PqxxSession& control, const Options& options,
                          std::chrono::milliseconds keep, std::int64_t epoch, std::int64_t rows,
                          PrunePosition& position);

// Does it page by page, at the configured pace. Used by the thread of PgMaintenance.
class Retention {
 public:
  Retention(const Options& options, const RetentionOptions& retention)
      : options_(options), retention_(retention), journal_pace_(200, Millis{0}, Millis{600'000}) {}
  // A session begins: the first page is due.
  void start();
  bool due() const { return Clock::now() >= prune_at_; }
  // Deletes a page; returns how long to wait at most.
  Result<Millis> run(PqxxSession& control, std::int64_t epoch);

 private:
  const Options& options_;
  const RetentionOptions retention_;
  Clock::time_point prune_at_{};
  PrunePosition position_;
  Pace journal_pace_;
  bool whole_journal_ = false;  // this time
};

}  // namespace relay::postgres
