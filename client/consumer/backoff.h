// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <random>

namespace outbox::consumer {

// How long to wait before the next attempt: longer each time, and never quite the same, so that a hundred consumers do not come
// back to a server in one moment.
class Backoff {
 public:
  std::chrono::milliseconds next() {
    const auto full = std::min<std::int64_t>(max_ms, first_ms << std::min(attempts_, 10));
    ++attempts_;
    return std::chrono::milliseconds(std::uniform_int_distribution<std::int64_t>(full / 2, full)(random_));
  }
  int attempts() const { return attempts_; }
  void reset() { attempts_ = 0; }

 private:
  static constexpr std::int64_t first_ms = 40;
  static constexpr std::int64_t max_ms = 10'000;
  std::minstd_rand random_{std::random_device{}()};
  int attempts_ = 0;
};

}  // namespace outbox::consumer
