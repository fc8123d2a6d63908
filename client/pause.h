// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <random>

namespace outbox::client {

// How long to wait before the next attempt: twice as long each time, up to a limit, and never quite the same, so that a hundred of us
// do not come back to a server in one moment. Between half of the pause and all of it.
class Pause {
 public:
  Pause(std::chrono::milliseconds first, std::chrono::milliseconds longest) : first_(first), longest_(longest), next_(first) {}

  std::chrono::milliseconds next() {
    const auto full = next_.count();
    next_ = std::min(longest_, 2 * next_);
    ++attempts_;
    return std::chrono::milliseconds(std::uniform_int_distribution<std::chrono::milliseconds::rep>(full / 2, full)(random_));
  }
  // Since the last reset.
  int attempts() const { return attempts_; }
  void reset() {
    next_ = first_;
    attempts_ = 0;
  }

 private:
  std::chrono::milliseconds first_, longest_, next_;
  int attempts_ = 0;
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace outbox::client
