// SPDX-License-Identifier: Apache-2.0
#include "relay/core/breaker.h"

#include "relay/base/log.h"

namespace relay {
namespace {

constexpr Millis summary_interval{60'000};

}  // namespace

bool Breaker::trip(const Error& error, Clock::time_point now) {
  const bool is_new = !trouble_;
  trouble_ = error;
  probe_at_ = now + backoff_.next();
  if (is_new) {
    probes_ = 0;
    summary_at_ = now + summary_interval;
  }
  return is_new;
}

void Breaker::reset() {
  trouble_.reset();
  backoff_.reset();
}

Clock::duration Breaker::before_probe(Clock::time_point now) {
  if (now >= summary_at_) {
    log::event(log::Level::warn, "still_stalled",
               {{"reason", trouble_->what}, {"probes", probes_}});
    summary_at_ = now + summary_interval;
  }
  if (now < probe_at_) return probe_at_ - now;
  ++probes_;
  return Clock::duration::zero();
}

}  // namespace relay
