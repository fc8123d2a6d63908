// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/watchdog.h"

#include <sys/socket.h>

namespace relay::postgres {

Watchdog::Watchdog(int socket, Millis limit)
    : socket_(socket), limit_(limit), thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Watchdog::begin() {
  const std::lock_guard lock(mutex_);
  calling_ = true;
  began_ = Clock::now();
}

void Watchdog::end() {
  const std::lock_guard lock(mutex_);
  calling_ = false;
}

// Looks four times within the limit, so that a call costs no wake-up of this thread.
void Watchdog::watch() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, limit_ / 4, [this] { return stopping_; })) {
    if (calling_ && Clock::now() - began_ >= limit_) ::shutdown(socket_, SHUT_RDWR);
  }
}

}  // namespace relay::postgres
