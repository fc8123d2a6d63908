// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "relay/core/ports.h"
#include "relay/postgres/decisions.h"
#include "relay/postgres/options.h"
#include "relay/postgres/session.h"

namespace outbox::postgres {

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

// The base up to which messages are not kept, and the number of the first batch that has it: of the oldest stream batch younger
// than `keep`, a parameter; if none is younger, of the newest. Everything visible in a base is delivered or parked, so that
// whatever the clock says, no undelivered message is deleted.
std::string horizon_sql(const std::string& keep);

// The condition on outbox.batch b that no message kept behind `horizon`, a number or parameter, needs it. The newest two stream
// batches, every open one, and those that parked messages point at are needed.
std::string unneeded_batches_sql(const std::string& horizon);

// Deletes one page of messages before the horizon; when none is left, a page of parked messages that were released before it and one of
// the journal rows that are not needed. Each statement locks the lease, which the stream renews: none may take long. `epoch` and
// options.holder must hold the lease (Fault::fenced).
Result<Pruned> prune_page(Control& control, const Options& options, std::chrono::milliseconds keep, std::int64_t epoch,
                          std::int64_t rows);

// Moves scheduled messages that are due into outbox.message, at most `rows`; returns how many.
Result<std::int64_t> move_due(Control& control, const Options& options, std::int64_t epoch, std::int64_t rows);

// Does all of it beside the stream, on a thread and a session of its own, so that neither delays a batch.
class PgUpkeep : public Upkeep {
 public:
  PgUpkeep(const Options& options, const RetentionOptions& retention, TopicsThatExist topics_that_exist)
      : options_(options), retention_(retention), topics_that_exist_(std::move(topics_that_exist)) {}
  ~PgUpkeep() override { stop(); }

  void start(std::int64_t epoch) override;
  void stop() override;
  bool found_releasable() override { return found_releasable_.exchange(false); }

 private:
  void work(std::int64_t epoch);
  Result<Millis> round(Control& control, std::int64_t epoch);
  Result<void> look_for_decisions(Control& control);
  Result<void> look_for_topics(Control& control, std::int64_t epoch);
  Result<Millis> prune(Control& control, std::int64_t epoch);
  bool stopped_within(Millis wait);

  const Options& options_;
  const RetentionOptions retention_;
  const TopicsThatExist topics_that_exist_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::atomic<bool> found_releasable_ = false;
  Clock::time_point decisions_at_{};
  Clock::time_point prune_at_{};
  Clock::time_point topics_at_{};   // when missing topics are looked for again
  Millis topics_patience_{0};
  std::thread thread_;
};

}  // namespace outbox::postgres
