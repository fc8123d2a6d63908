// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <random>

namespace outbox::common {

// How long to wait before the next attempt: twice as long each time, up to a limit.
//
// With jitter the wait is drawn from its upper half, so that a hundred processes do not come back
// to a server in one moment, and is never shorter than `shortest`. Not thread safe.
class Backoff {
 public:
  using Wait = std::chrono::milliseconds;

  // Without jitter.
  Backoff(Wait first, Wait longest) : first_(first), longest_(longest), next_(first) {}

  static Backoff with_jitter(Wait first, Wait longest, Wait shortest = Wait{0},
                             std::uint32_t seed = std::random_device{}()) {
    Backoff backoff(first, longest);
    backoff.shortest_ = shortest;
    backoff.random_.emplace(seed);
    return backoff;
  }

  // The wait that comes next. The one after it is twice as long.
  Wait next() {
    const Wait full = next_;
    next_ = std::min(longest_, 2 * next_);
    ++attempts_;
    if (!random_) return full;
    std::uniform_int_distribution<Wait::rep> drawn(full.count() / 2, full.count());
    return std::max(shortest_, Wait(drawn(*random_)));
  }
  // How often next() was called since the last reset().
  int attempts() const { return attempts_; }
  // Begins with the first wait again.
  void reset() {
    next_ = first_;
    attempts_ = 0;
  }

 private:
  Wait first_;
  Wait longest_;
  Wait next_;
  Wait shortest_{0};
  int attempts_ = 0;
  std::optional<std::minstd_rand> random_;
};

}  // namespace outbox::common
