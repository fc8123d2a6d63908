// SPDX-License-Identifier: Apache-2.0
// Processes one batch of records in the database.
//
//   1. accept: record the messages in the inbox; duplicates are skipped;
//   2. park: malformed and expired messages, and those behind a parked message of their key;
//   3. hand over: call the handler for the rest, in the same transaction;
//   4. commit.
//
// Failure. A transaction that fails because of a message is split in two until the message is
// isolated, and then parked. A transaction that takes too long in the handler is split as well, and
// so is one whose connection breaks there repeatedly, because the server may have ended it for its
// duration, or crashed over it. Any failure but that of a message is returned to the caller, who
// repeats the step. The remaining ranges are kept between the calls, so that a failure costs only
// its transaction.
// Used by the thread of run().
#pragma once

#include <optional>
#include <pqxx/pqxx>
#include <utility>
#include <vector>

#include "client/consumer/batch.h"
#include "client/consumer/error_classifier.h"
#include "client/consumer/stats.h"

namespace outbox::consumer {

class BatchProcessor {
 public:
  BatchProcessor(const ConsumerOptions& options, const Consumer::BatchHandler& handler,
                 ConsumerStatsCounter& stats)
      : options_(options), handler_(handler), stats_(stats) {}

  // Takes the next batch. REQUIRES: done().
  void begin(Batch batch);
  // Whether each message of the batch was processed, parked or skipped.
  bool done() const { return remaining_.empty(); }
  const Batch& batch() const { return batch_; }
  // Frees the batch; messages not yet processed are left to the next owner of the partition.
  // REQUIRES: the Kafka client still exists.
  void drop() {
    remaining_.clear();
    batch_ = {};
  }

  // Runs one transaction. Returns the failure if it must be repeated. REQUIRES: !done().
  std::optional<Failure> step(pqxx::connection& connection);

 private:
  // Messages first to last - 1 of the batch.
  struct Range {
    std::size_t first;
    std::size_t last;
    // Why the handler rejected the only message of the range.
    std::optional<std::string> refused{};
    // Whether texts about the message are reduced to ASCII.
    bool in_ascii = false;
    // Failures in the handler that may be due to the range, in succession.
    int failures = 0;
  };
  enum class Phase { accepting, handling };
  struct Counts {
    std::int64_t duplicates = 0, expired = 0, parked = 0;
  };

  void transact(pqxx::connection& connection, const Range& range);
  std::vector<std::size_t> accept(pqxx::dbtransaction& tx, const Range& range, Counts& counts);
  std::vector<bool> blocked_keys(pqxx::dbtransaction& tx, const Range& range);
  void hand_over(pqxx::dbtransaction& tx, const Range& range,
                 const std::vector<std::size_t>& new_messages);
  void split(Range range, const Failure& failure);
  bool split_after(Range& range, const Failure& failure) const;

  const ConsumerOptions& options_;
  const Consumer::BatchHandler& handler_;
  ConsumerStatsCounter& stats_;
  Batch batch_;
  std::vector<Range> remaining_;  // the next one last
  Phase phase_ = Phase::accepting;
};

}  // namespace outbox::consumer
