// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <pqxx/pqxx>

#include "client/consumer/parked_messages.h"
#include "client/consumer/batch_processor.h"
#include "client/consumer/source.h"
#include "common/backoff.h"

namespace outbox::consumer {

// One run() of a consumer, from its first connection to the moment when it leaves the group.
//
//   starting  → consuming                   connected, registered, and a member of the group
//   consuming → stalled                     a transaction failed, and not by a message's fault
//   stalled   → consuming                   the same transaction, repeated, committed
//   starting, consuming, stalled → stopped  asked to; consuming: when the batch in hand is settled
//
// Used by one thread.
class ConsumerLoop {
 public:
  using State = ConsumerStats::State;
  ConsumerLoop(const ConsumerOptions& options, const Consumer::BatchHandler& handler, StatsCounter& stats, Events& events, std::stop_token stop);
  ~ConsumerLoop();

  bool over() const { return stop_.stop_requested() && (state_ != State::consuming || processor_.done()); }
  // One transaction, one poll or one attempt to connect. Throws ConsumerSetupError.
  void step();

 private:
  void start();
  void consume();
  void probe();

  void connect();
  bool settle();
  void keep_up();
  void release();
  void prune();
  void emit_parked();

  void failed(const Failure& failure);
  void go_to(State state, const std::string& reason = {});
  void wait(std::chrono::milliseconds duration);

  const ConsumerOptions& options_;
  StatsCounter& stats_;
  Events& events_;
  const std::stop_token stop_;

  State state_ = State::stopped;
  std::unique_ptr<pqxx::connection> connection_;  // null: the last one broke
  std::optional<RecordSource> source_;
  BatchProcessor processor_;
  ParkedRetrier retrier_;
  common::Backoff backoff_ = common::Backoff::with_jitter(std::chrono::milliseconds(40), std::chrono::milliseconds(10'000));
  std::string trouble_;               // why it is stalled
  Clock::time_point summary_at_{};    // when to emit that it still is
  Clock::time_point release_at_{};
  Clock::time_point prune_at_{};
  Clock::time_point parked_at_{};     // when to emit of parked messages
  std::int64_t parked_told_ = 0;
};

}  // namespace outbox::consumer
