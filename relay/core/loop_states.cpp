// SPDX-License-Identifier: Apache-2.0
// The loop of states around the protocol. step() does one thing for the state that the loop is in:
//
//   standby     waits until the lease is available.
//   recovering  recover(), in loop.cpp.
//   streaming   stream(), in loop.cpp.
//   draining    the same, but opens nothing new.
//   stalled     one probe at a time, with backoff.
//
// An error that a step returns goes to on_error(), which stalls the loop or, if no repetition can
// help, ends it.
#include <algorithm>

#include "relay/base/log.h"
#include "relay/core/loop.h"

namespace relay {
namespace {

using log::Level;

constexpr Millis standby_interval{100};
constexpr Millis busy_wait_max{50};  // an upper bound only: what is waited for wakes the loop
// After streaming for so long a trouble is over, even if there was nothing to send.
constexpr Millis calm_after{5'000};
// What may pass ends the process only if it is still so after this time.
constexpr Millis refused_at_least{10'000};

}  // namespace

Loop::Loop(const Ports& ports, LoopOptions options)
    : database_(ports.database),
      reader_(ports.reader),
      journal_(ports.journal),
      lease_(ports.lease),
      producer_(ports.producer),
      maintenance_(ports.maintenance),
      poller_(ports.poller),
      options_(std::move(options)),
      ahead_(reader_, poller_, options_.poll_idle),
      blocks_(options_.order, journal_) {}

Result<void> Loop::run() {
  enter(State::standby);
  while (state_ != State::stopped) {
    auto done = step();
    if (!done) done = on_error(done.error());
    if (!done) {
      enter(State::stopped, done.error().what);
      maintenance_.stop();
      producer_.abandon();
      return done;
    }
  }
  return {};
}

Result<void> Loop::step() {
  switch (state_) {
    case State::standby: return stand_by();
    case State::recovering: return recover();
    case State::streaming:
    case State::draining: return stream();
    case State::stalled: return probe();
    case State::stopped: break;
  }
  return {};
}

void Loop::enter(State state, const std::string& why) {
  if (state == state_) return;
  state_ = state;
  if (state == State::streaming) {
    streaming_since_ = poller_.now();
    refused_since_.reset();
  }
  state_log_.entered(state, breaker_.trouble().has_value(), epoch_, why);
}

Result<void> Loop::connect() {
  auto here = database_.connect();
  if (!here) return here.error();
  here_ = *here;
  return {};
}

Result<void> Loop::stand_by() {
  if (poller_.stop_requested()) return finish();
  if (!here_) {
    if (auto r = connect(); !r) return r;
    session_fresh_ = true;
  }
  auto available = lease_.available();
  if (!available) return available.error();
  if (*available) {
    enter(State::recovering);
    return {};
  }
  breaker_.close();
  state_log_.show(State::standby, epoch_);
  poller_.wait(standby_interval);
  return {};
}

// A progress record before the first batch, so that another database that uses the name by mistake
// is refused in step 1, however long this relay has nothing to send.
Result<void> Loop::claim_name() {
  if (auto r = producer_.begin(); !r) return r;
  const Batch no_batch;
  const Page no_messages;
  auto sent = producer_.send(no_batch, no_messages, {}, {*here_, epoch_, 0, Uuid::random(), {}});
  if (!sent) return sent.error();
  for (auto claimed = *sent; claimed != Delivery::complete;) {
    if (claimed == Delivery::refused)
      return Error{Fault::kafka, "Kafka refused the progress record"};
    if (poller_.stop_requested()) return finish();
    if (auto r = wait_or_renew(); !r) return r;
    const auto reported = producer_.reported();
    if (!reported) return reported.error();
    claimed = *reported;
  }
  if (auto r = producer_.commit(); !r) return r.error();
  at(Phase::claimed);
  return {};
}

Result<void> Loop::keep_lease() { return lease_.due() ? lease_.renew() : Result<void>{}; }

// Kafka may take longer than the lease lasts, and two relays that lose it to each other for that
// would never make progress.
Result<void> Loop::renew_producer(Mode mode) {
  return producer_.renew(mode, [this] { return keep_lease(); });
}

// Before the lease is taken there may be none to keep.
Result<std::optional<Progress>> Loop::newest_progress(bool to_the_end) {
  return producer_.newest_progress(to_the_end, [this, to_the_end] {
    return to_the_end || lease_.held() ? keep_lease() : Result<void>{};
  });
}

Result<void> Loop::wait_or_renew() {
  if (lease_.due()) return lease_.renew();
  auto until = poller_.now() + busy_wait_max;
  if (const auto due = ahead_.due(); due && !flight_) until = std::min(until, *due);
  if (confirmed_) until = std::min(until, confirmed_at_ + mark_alone_after);
  const auto left = std::chrono::duration_cast<std::chrono::microseconds>(until - poller_.now());
  poller_.wait(std::max(left, std::chrono::microseconds{0}));
  return {};
}

Result<void> Loop::finish() {
  maintenance_.stop();
  producer_.abandon();
  if (here_ && lease_.held() && !poller_.restart_requested()) {
    if (auto r = lease_.resign(); !r) return r;
  }
  enter(State::stopped);
  return {};
}

// Whose fault decides the answer. The returned error, if any, is one that ends the process.
Result<void> Loop::on_error(const Error& error) {
  switch (error.fault) {
    case Fault::kafka:
    case Fault::postgres:
    case Fault::message:
    case Fault::topic: stall(error); return {};
    case Fault::fenced:
      // Not lost yet: it may have been our own late request. The lease knows, and recovery asks it.
      log::event(Level::warn, "fenced", {{"epoch", epoch_}, {"reason", error.what}});
      stall(error);
      return {};
    case Fault::refused:
      if (!error.may_pass || refused_for_good()) break;
      stall(error);
      return {};
    case Fault::usage:
    case Fault::absent: break;
  }
  return error;
}

// A broker that has just started, or a topic that was just created, makes others refuse for a
// moment what they take later.
bool Loop::refused_for_good() {
  const auto now = poller_.now();
  if (!refused_since_) refused_since_ = now;
  return now - *refused_since_ >= refused_at_least;
}

void Loop::stall(const Error& error) {
  maintenance_.stop();
  producer_.abandon();
  if (error.fault == Fault::postgres) here_.reset();
  if (error.fault != Fault::refused) refused_since_.reset();
  const auto now = poller_.now();
  if (state_ == State::streaming && now - streaming_since_ > calm_after) breaker_.reset();
  if (breaker_.trip(error, now)) {
    enter(State::stalled, error.text());
  } else {
    state_ = State::stalled;  // the same trouble goes on: Breaker logs a summary
  }
}

// One probe at a time, and nothing else.
Result<void> Loop::probe() {
  if (poller_.stop_requested()) return finish();
  const auto wait = breaker_.before_probe(poller_.now());
  if (wait > Clock::duration::zero()) {
    poller_.wait(std::chrono::ceil<std::chrono::microseconds>(wait));
    return {};
  }
  if (breaker_.trouble()->fault == Fault::postgres) {
    if (auto r = connect(); !r) return r;
    session_fresh_ = true;
  } else if (breaker_.trouble()->fault == Fault::kafka) {
    if (auto r = producer_.probe(); !r) return r;
  }
  state_ = State::standby;
  return {};
}

}  // namespace relay
