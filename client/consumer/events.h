// SPDX-License-Identifier: Apache-2.0
// What the consumer tells its application: events, and stats.
#pragma once

#include <atomic>
#include <mutex>

#include "outbox/consumer.h"

namespace outbox::consumer {

using Clock = std::chrono::steady_clock;
using Level = ConsumerEvent::Level;

// Passes events on, one at a time. Used by all threads.
class Events {
 public:
  explicit Events(std::function<void(const ConsumerEvent&)> listener) : listener_(std::move(listener)) {}
  void emit(Level level, std::string name, std::vector<std::pair<std::string, std::string>> fields = {}) {
    if (!listener_) return;
    const std::lock_guard lock(mutex_);
    listener_({level, std::move(name), std::move(fields)});
  }

 private:
  std::mutex mutex_;
  const std::function<void(const ConsumerEvent&)> listener_;
};

// Written by the thread of run(), read by all.
struct StatsCounter {
  std::atomic<ConsumerStats::State> state{ConsumerStats::State::stopped};
  std::atomic<std::int64_t> fresh{0}, duplicates{0}, expired{0}, parked{0}, released{0}, forgotten{0}, batches{0}, retries{0};
  std::atomic<Clock::rep> busy_since{0};  // 0: there is no batch in hand

  ConsumerStats snapshot() const {
    const Clock::rep since = busy_since;
    const auto busy = since == 0 ? Clock::duration{0} : Clock::now() - Clock::time_point(Clock::duration(since));
    return {state, fresh, duplicates, expired, parked, released, forgotten, batches, retries,
            std::chrono::duration_cast<std::chrono::milliseconds>(busy)};
  }
};

}  // namespace outbox::consumer
