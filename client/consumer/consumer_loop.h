// SPDX-License-Identifier: Apache-2.0
// The state machine of one Consumer::run().
//
// States:
//   starting  -> consuming                   connected, registered, and a member of the group
//   consuming -> stalled                     a transaction failed, and not because of a message
//   stalled   -> consuming                   the same transaction, repeated, has committed
//   starting, consuming, stalled -> stopped  stop requested; consuming: after the current batch
//
// One step in `consuming` is one transaction or one poll:
//   1. process the current batch to its end, then report it to the source (offsets follow);
//   2. otherwise run due maintenance: released messages, the report of positions, pruning, and the
//      event of parked messages;
//   3. otherwise poll Kafka for the next batch.
//
// Failure. Conflicts are repeated after a short backoff; all other failures of the database stall
// the loop, which probes with backoff. Configuration errors leave as ConsumerSetupError.
// Used by the thread of run().
#pragma once

#include <memory>
#include <optional>
#include <pqxx/pqxx>

#include "client/consumer/batch_processor.h"
#include "client/consumer/parked_messages.h"
#include "client/consumer/source.h"
#include "common/backoff.h"

namespace outbox::consumer {

// From the first connection until the member has left the group.
class ConsumerLoop {
 public:
  using State = ConsumerStats::State;
  ConsumerLoop(const ConsumerOptions& options, const Consumer::BatchHandler& handler,
               ConsumerStatsCounter& stats, Events& events, std::stop_token stop);
  ~ConsumerLoop();

  bool over() const {
    return stop_.stop_requested() && (state_ != State::consuming || processor_.done());
  }
  // Runs one transaction, one poll or one connection attempt. Throws ConsumerSetupError.
  void step();

 private:
  void start();
  void consume();
  void probe();

  void connect();
  bool process();
  void maintain();
  void release();
  void report(pqxx::dbtransaction& tx);
  void report_assignment();
  void prune();
  void emit_parked();

  void failed(const Failure& failure);
  void go_to(State state, const std::string& reason = {});
  void wait(std::chrono::milliseconds duration);

  const ConsumerOptions& options_;
  ConsumerStatsCounter& stats_;
  Events& events_;
  const std::stop_token stop_;

  State state_ = State::stopped;
  std::unique_ptr<pqxx::connection> connection_;  // null: not connected
  std::optional<RecordSource> source_;
  BatchProcessor processor_;
  ParkedRetrier retrier_;
  common::Backoff backoff_ = common::Backoff::with_jitter(std::chrono::milliseconds(40),
                                                          std::chrono::milliseconds(10'000));
  std::string stall_reason_;
  Clock::time_point summary_at_{};  // next event still_stalled
  Clock::time_point release_at_{};
  Clock::time_point prune_at_{};
  int reported_assignments_ = 0;
  Clock::time_point parked_event_at_{};  // earliest next event messages_parked
  std::int64_t parked_reported_ = 0;     // parked messages in the events so far
};

}  // namespace outbox::consumer
