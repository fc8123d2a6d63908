// SPDX-License-Identifier: Apache-2.0
// One direction of a proxied connection: what is given to it arrives as late as the schedule makes
// it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>

#include "relay/base/clock.h"
#include "tests/support/loopback.h"

namespace relay::test {

struct FaultSchedule {
  Millis latency{0};                  // of every chunk, however many are on their way
  std::int64_t bytes_per_second = 0;  // of one connection in one direction; 0: no limit
};

// One thread runs it; any thread may call the rest.
class Wire {
 public:
  explicit Wire(const Socket& out) : out_(out) {}

  // Pays out until finish() or cut(), or until the receiver is gone.
  void run();

  // What is on its way as well gets it from now on.
  void schedule(FaultSchedule schedule);
  // Waits while too many bytes are on their way. False: the receiver is gone, or cut(). True says
  // nothing of its arrival.
  bool send(std::string bytes);
  // Waits until everything sent has been handed to the receiver's socket. False: it will not be, or
  // not in time.
  bool drained(Millis within);
  // Nothing more comes: when all has arrived, the receiver's socket is shut.
  void finish();
  // What is on its way, and what comes, is lost; no side is notified.
  void lose();
  // Ends at once; the socket stays as it is.
  void cut();

 private:
  struct Chunk {
    Clock::time_point sent;
    std::string bytes;
    std::size_t at;  // sent up to here
  };
  void pay_out(std::unique_lock<std::mutex>& lock);

  const Socket& out_;
  std::mutex mutex_;  // of everything below
  std::condition_variable changed_;
  std::deque<Chunk> chunks_;
  std::size_t bytes_ = 0;  // in chunks_, and in the call that sends
  FaultSchedule schedule_;
  Clock::time_point busy_until_{};  // with what was sent last
  bool finished_ = false;
  bool losing_ = false;
  std::atomic<bool> broken_{false};
};

}  // namespace relay::test
