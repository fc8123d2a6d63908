// SPDX-License-Identifier: Apache-2.0
// Applications that go on while a test does something else.
#pragma once

#include <atomic>
#include <functional>
#include <future>
#include <utility>

namespace relay::test {

// Runs `once` over and over on a thread of its own, until end().
class Load {
 public:
  explicit Load(std::function<void()> once)
      : thread_(std::async(std::launch::async, [this, run = std::move(once)] {
          while (!ended_) run();
        })) {}
  ~Load() { ended_ = true; }  // and waits
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  // Waits until the last round is through; throws what a round threw.
  void end() {
    ended_ = true;
    thread_.get();
  }

 private:
  std::atomic<bool> ended_{false};
  std::future<void> thread_;  // last: its destructor waits for the thread
};

}  // namespace relay::test
