// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "relay/base/clock.h"

namespace relay::postgres {

// Bounds calls that know no deadline: when one lasts longer than `limit`, its socket is shut down,
// and the call fails as if the server had closed the connection. A server that is paused or hangs
// still answers TCP, so no keepalive notices it.
class Watchdog {
 public:
  // `socket` must stay open until this is destroyed.
  Watchdog(int socket, Millis limit);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // One bounded call. Calls do not nest.
  class Call {
   public:
    explicit Call(Watchdog* dog) : dog_(dog) {
      if (dog_ != nullptr) dog_->begin();
    }
    ~Call() {
      if (dog_ != nullptr) dog_->end();
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    Watchdog* dog_;
  };

 private:
  void begin();
  void end();
  void watch();

  const int socket_;
  const Millis limit_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool calling_ = false;
  bool stopping_ = false;
  Clock::time_point began_{};
  std::thread thread_;
};

}  // namespace relay::postgres
