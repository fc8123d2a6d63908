// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ucontext.h>

#include <exception>
#include <functional>
#include <memory>

namespace relay::sim {

// A function with a stack of its own, which gives way to its caller in the middle and goes on where
// it was. All on one thread.
class Fiber {
 public:
  Fiber() : stack_(new char[stack_bytes]) {}

  // Begins `body`, which runs at the next resume(). It must not throw. REQUIRES: ended().
  void begin(std::function<void()> body);
  // Runs the body until it gives way or ends.
  void resume();
  // Called by the body: back to the caller of resume().
  void give_way() { swapcontext(&own_, &caller_); }
  bool ended() const { return !body_; }

 private:
  static constexpr std::size_t stack_bytes = 256 * 1024;
  static void enter(unsigned high, unsigned low);

  ucontext_t own_{};
  ucontext_t caller_{};
  std::unique_ptr<char[]> stack_;
  std::function<void()> body_;
};

}  // namespace relay::sim
