// SPDX-License-Identifier: Apache-2.0
#include "relay/core/breaker.h"

#include <algorithm>

#include "relay/base/log.h"

namespace outbox {
namespace {

constexpr Millis summary_interval{60'000};

}  // namespace

bool Breaker::trip(const Error& error, Clock::time_point now) {
  const bool is_new = !trouble_;
  trouble_ = error;
  probe_at_ = now + next_wait();
  if (is_new) {
    probes_ = 0;
    summary_at_ = now + summary_interval;
  }
  return is_new;
}

void Breaker::reset() {
  trouble_.reset();
  wait_ = shortest_wait;
}

Clock::duration Breaker::before_probe(Clock::time_point now) {
  if (now >= summary_at_) {
    log::event(log::Level::warn, "still_stalled", {{"reason", trouble_->what}, {"probes", probes_}});
    summary_at_ = now + summary_interval;
  }
  if (now < probe_at_) return probe_at_ - now;
  ++probes_;
  return Clock::duration::zero();
}

// Doubling, with jitter, and a floor under which jitter never takes it.
Millis Breaker::next_wait() {
  std::uniform_int_distribution<Millis::rep> share(50, 100);
  const Millis wait = std::max(shortest_wait, wait_ * share(random_) / 100);
  wait_ = std::min(longest_wait, wait_ * 2);
  return wait;
}

}  // namespace outbox
