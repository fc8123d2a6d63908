// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <pqxx/pqxx>
#include <utility>
#include <vector>

#include "client/consumer/batch.h"
#include "client/consumer/error_classifier.h"
#include "client/consumer/events.h"

namespace outbox::consumer {

// Settles a batch in the database: afterwards each of its messages was handled, is parked, or had been settled before.
//
// It begins with one transaction for all. One that fails by the fault of a message is split in two, and so on, until the culprit
// stands alone and is parked. What remains to be done is kept between the calls, so that a failure of the database, the
// connection included, costs only the transaction under way.
class BatchProcessor {
 public:
  BatchProcessor(const ConsumerOptions& options, const Consumer::BatchHandler& handler, StatsCounter& stats)
      : options_(options), handler_(handler), stats_(stats) {}

  // Takes the next batch. REQUIRES: done().
  void begin(Batch batch);
  bool done() const { return remaining_.empty(); }
  // The batch in hand, settled or not.
  const Batch& batch() const { return batch_; }
  // Gives the batch's memory back; what remains of it is left to whoever gets it next. The client must live until then.
  void drop() {
    remaining_.clear();
    batch_ = {};
  }

  // One transaction towards the end; the failure, if it is to be repeated. REQUIRES: !done().
  std::optional<Failure> step(pqxx::connection& connection);

 private:
  // Messages first to last - 1; refused: why the handler cannot handle the only one; in_ascii: what is written about it is.
  struct Range {
    std::size_t first;
    std::size_t last;
    std::optional<std::string> refused{};
    bool in_ascii = false;
  };
  enum class Phase { accepting, handling };
  struct Counts {
    std::int64_t fresh = 0, duplicates = 0, expired = 0, parked = 0;
  };

  void transact(pqxx::connection& connection, const Range& range);
  std::vector<bool> blocked_keys(pqxx::dbtransaction& tx, const Range& range);
  void hand_over(pqxx::dbtransaction& tx, const Range& range, const std::vector<std::size_t>& fresh);
  void split(Range range, const Failure& failure);

  const ConsumerOptions& options_;
  const Consumer::BatchHandler& handler_;
  StatsCounter& stats_;
  Batch batch_;
  std::vector<Range> remaining_;  // the next one last
  Phase phase_ = Phase::accepting;
};

}  // namespace outbox::consumer
