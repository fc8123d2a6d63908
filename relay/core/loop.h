// SPDX-License-Identifier: Apache-2.0
// The protocol: read, open, produce, confirm; and recovery. Knows neither SQL nor librdkafka.
#pragma once

#include <functional>
#include <optional>
#include <random>
#include <string>

#include "relay/core/breaker.h"
#include "relay/core/key_order.h"
#include "relay/core/ports.h"
#include "relay/core/recovery.h"
#include "relay/core/suspects.h"

namespace outbox {

// The relay's states. Each transition is one log line.
enum class State { standby, recovering, streaming, stalled, draining, stopped };
const char* to_string(State state);

// The points between two steps of the protocol, where a crash must leave nothing in confusion.
enum class Phase {
  leased,       // the lease is taken, older producers are not fenced yet
  initialised,  // older producers are fenced
  settled,      // the doubt about the newest batch is resolved in the journal
  parked,       // rejections of a batch that is already open are committed
  opening,      // a page is read, its batch not yet open
  opened,       // the batch is in the journal, nothing is sent
  begun,        // the Kafka transaction has begun
  sent,         // everything is handed to the Kafka client
  reported,     // every delivery report has come
  confirmed,    // Kafka has committed, the journal does not know
  marking,      // about to mark the batch alone
  marked,       // the journal knows
};
inline constexpr Phase last_phase = Phase::marked;
const char* to_string(Phase phase);

struct LoopOptions {
  std::string relay;
  Mode mode = Mode::exactly_once;
  KeyOrder order = KeyOrder::key;
  Millis poll_idle{20};
  bool stop_on_lost_progress = false;
  std::uint32_t jitter_seed = std::random_device{}();
  std::function<void(Phase)> at_phase = {};  // called at each phase; for tests
};

// One relay process's life. run() is called once, by the thread that owns all ports.
class Loop {
 public:
  Loop(Source& source, Journal& journal, Lease& lease, Publisher& publisher, Upkeep& upkeep, Wakeup& wakeup, LoopOptions options)
      : source_(source), journal_(journal), lease_(lease), publisher_(publisher), upkeep_(upkeep), wakeup_(wakeup),
        options_(std::move(options)), blocks_(options_.order, journal) {}

  // Returns when it was asked to stop and has handed over, or with the error for which it must not go on.
  Result<void> run();

 private:
  // A batch that is open, and what it sends.
  struct Flight {
    Batch batch;
    Page page;
    std::vector<std::size_t> parked = {};    // indexes into page.messages
    std::vector<std::size_t> left_out = {};  // of a trial, which finds what Kafka refuses and is never committed: also those not suspected
    bool trial() const { return !left_out.empty(); }
    const std::vector<std::size_t>& skip() const { return trial() ? left_out : parked; }
  };

  Result<void> step();
  Result<void> connect();
  Result<void> stand_by();
  Result<void> recover();
  Result<void> settle(const Identity& here);
  Result<void> renew_publisher(Mode mode);
  Result<void> keep_lease();
  Result<void> resend(const Batch& batch);
  Result<void> stream();
  Result<void> look_for_work();
  Result<void> ready_to_open();
  Result<void> open_next();
  Result<void> open_release();
  void opened(const Batch& batch);
  Result<void> publish();
  Result<void> confirm();
  Result<void> mark();
  Result<void> on_refusal();
  Result<void> finish();
  Result<void> probe();
  Result<void> on_error(const Error& error);

  void enter(State state, const std::string& why = {});
  void stall(const Error& error);
  void pause() const;
  void at(Phase phase) const {
    if (options_.at_phase) options_.at_phase(phase);
  }

  Source& source_;
  Journal& journal_;
  Lease& lease_;
  Publisher& publisher_;
  Upkeep& upkeep_;
  Wakeup& wakeup_;
  const LoopOptions options_;
  KeyBlocks blocks_;

  State state_ = State::stopped;
  State shown_ = State::stopped;      // the last one that was logged
  Clock::time_point streaming_since_{};
  std::optional<Identity> here_;      // of the open database session; nullopt: there is none
  bool session_fresh_ = false;        // nothing was read on it yet
  std::int64_t epoch_ = 0;
  bool confirmed_since_take_ = false;
  std::optional<Uuid> confirmed_token_;  // of the last batch that this process confirmed
  std::int64_t number_ = 0;           // of the newest batch that the journal or Kafka knows
  std::optional<Uuid> token_;         // of the newest batch
  std::optional<Uuid> token_before_;  // of the one before it
  bool releasing_ = false;            // there may be decisions about parked messages to carry out
  bool stream_is_next_ = false;       // the last batch was a release: they take turns
  std::optional<Page> next_;          // read ahead
  bool reading_ = false;              // the source was asked for a page and has not answered
  std::optional<Flight> flight_;
  Suspects suspects_;                   // of the newest batch
  std::optional<Confirmed> confirmed_;  // delivered, but the journal does not know yet
  Clock::time_point confirmed_at_{};
  Clock::time_point look_again_at_{};
  Millis idle_{1};

  Breaker breaker_{options_.jitter_seed};
};

}  // namespace outbox
