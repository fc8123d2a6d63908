// SPDX-License-Identifier: Apache-2.0
// Monotonic time for waits and deadlines. Wall-clock time comes from the database only.
#pragma once

#include <chrono>

namespace relay {

using Clock = std::chrono::steady_clock;
using Millis = std::chrono::milliseconds;

// A bound on a wait.
class Deadline {
 public:
  explicit Deadline(Millis after) : at_(Clock::now() + after) {}
  bool passed() const { return Clock::now() >= at_; }
  // Time left, never negative.
  Millis left() const {
    const auto rest = std::chrono::duration_cast<Millis>(at_ - Clock::now());
    return rest.count() > 0 ? rest : Millis{0};
  }
  int left_ms() const { return static_cast<int>(left().count()); }

 private:
  Clock::time_point at_;
};

}  // namespace relay
