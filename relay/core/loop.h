// SPDX-License-Identifier: Apache-2.0
// The protocol: read, open, produce, confirm; and recovery. Knows neither SQL nor librdkafka.
#pragma once

#include <functional>
#include <optional>
#include <random>
#include <string>

#include "relay/core/breaker.h"
#include "relay/core/key_order.h"
#include "relay/core/next_action.h"
#include "relay/core/poison_bisector.h"
#include "relay/core/ports.h"
#include "relay/core/read_ahead.h"
#include "relay/core/recovery.h"
#include "relay/core/state.h"

namespace relay {

struct LoopOptions {
  std::string relay;
  Mode mode = Mode::exactly_once;
  KeyOrder order = KeyOrder::key;
  Millis poll_idle{20};
  bool stop_on_lost_progress = false;
  std::uint32_t jitter_seed = std::random_device{}();
  std::function<void(Phase)> at_phase = {};  // called at each phase; for tests
};

// What a relay process works with; see ports.h.
struct Ports {
  Database& database;
  Reader& reader;
  Journal& journal;
  Lease& lease;
  Producer& producer;
  Maintenance& maintenance;
  Poller& poller;
};

// One relay process's life. run() is called once, by the thread that owns all ports.
class Loop {
 public:
  Loop(const Ports& ports, LoopOptions options);

  // Returns when it was asked to stop and has handed over, or with the error for which it must not
  // go on.
  Result<void> run();

 private:
  // A batch that is open, and what it sends.
  struct Flight {
    Batch batch;
    Page page;
    PageMask parked;     // of the page: parked for this batch
    bool probe = false;  // sent to find what Kafka refuses, and never committed
  };

  // A confirmed batch is marked alone when no next batch has carried its mark for so long.
  static constexpr Millis mark_alone_after{100};

  Result<void> step();
  Result<void> connect();
  Result<void> stand_by();

  Result<void> recover();
  void forget_all();
  Result<void> refuse_foreign_progress();
  Result<std::optional<Lease::Taken>> take_lease();
  Result<void> recover_batch();
  Result<Evidence> gather_evidence();
  Result<void> claim_name();
  Result<void> apply(const Verdict& verdict, const Evidence& evidence);
  Result<void> renew_producer(Mode mode);
  Result<std::optional<Progress>> newest_progress(bool to_the_end);
  Result<void> keep_lease();
  Result<void> send_from_journal(const Batch& batch);
  Result<Page> reread(const Batch& batch);
  Result<std::optional<Validation>> validate(const Page& page, Timestamp stamp);

  Result<void> stream();
  StreamStatus status() const;
  Result<void> look_for_work();
  Result<void> ready_to_open();
  Result<void> open_next();
  Result<void> open_release();
  Batch next_batch() const;
  void opened(const Batch& batch);
  Result<void> publish();
  Result<void> await_delivery();
  Result<void> confirm();
  Result<void> mark_delivered();
  Result<void> on_refusal();
  Result<void> wait_or_renew();
  Result<void> finish();

  Result<void> probe();
  Result<void> on_error(const Error& error);
  bool refused_for_good();
  void stall(const Error& error);
  void enter(State state, const std::string& why = {});
  void at(Phase phase) const {
    if (options_.at_phase) options_.at_phase(phase);
  }

  Database& database_;
  Reader& reader_;
  Journal& journal_;
  Lease& lease_;
  Producer& producer_;
  Maintenance& maintenance_;
  Poller& poller_;
  const LoopOptions options_;

  State state_ = State::stopped;
  StateLog state_log_;
  Clock::time_point streaming_since_{};
  Breaker breaker_{options_.jitter_seed};
  std::optional<Clock::time_point> refused_since_;  // what may pass; nullopt: nothing is

  std::optional<Identity> here_;  // of the open database session; nullopt: there is none
  bool session_fresh_ = false;    // nothing was read on it yet
  std::int64_t epoch_ = 0;

  std::int64_t number_ = 0;             // of the newest batch that the journal or Kafka knows
  std::optional<Uuid> token_;           // of the newest batch
  std::optional<Uuid> token_before_;    // of the one before it
  std::optional<Confirmed> confirmed_;  // delivered, but the journal does not know yet
  Clock::time_point confirmed_at_{};
  std::optional<Uuid> confirmed_token_;  // of the last batch that this process confirmed
  bool confirmed_since_take_ = false;

  ReadAhead ahead_;
  KeyBlocks blocks_;
  PoisonBisector poison_;  // of the newest batch
  std::optional<Flight> flight_;
  bool releasing_ = false;       // there may be decisions about parked messages to execute
  bool stream_is_next_ = false;  // the last batch was a release: they take turns
};

}  // namespace relay
