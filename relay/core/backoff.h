// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <random>

#include "relay/base/clock.h"

namespace outbox {

// Waits between probes of a sick dependency: doubling, with jitter, and a floor under which jitter never takes it.
class Backoff {
 public:
  Backoff(Millis floor, Millis ceiling, std::uint32_t seed) : floor_(floor), ceiling_(ceiling), next_(floor), random_(seed) {}

  Millis next() {
    std::uniform_int_distribution<Millis::rep> share(50, 100);
    const Millis wait = std::max(floor_, next_ * share(random_) / 100);
    next_ = std::min(ceiling_, next_ * 2);
    return wait;
  }
  void reset() { next_ = floor_; }

 private:
  Millis floor_;
  Millis ceiling_;
  Millis next_;
  std::minstd_rand random_;
};

}  // namespace outbox
