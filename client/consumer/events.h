// SPDX-License-Identifier: Apache-2.0
// Delivers events to the application's callback, ConsumerOptions::on_event.
//
// Events come from the thread of run(), from the group's thread and from librdkafka's threads; a
// mutex serializes the calls. The callback must not throw.
#pragma once

#include <mutex>

#include "outbox/consumer.h"

namespace outbox::consumer {

using Level = ConsumerEvent::Level;

class Events {
 public:
  explicit Events(std::function<void(const ConsumerEvent&)> listener)
      : listener_(std::move(listener)) {}
  void emit(Level level, std::string name,
            std::vector<std::pair<std::string, std::string>> fields = {}) {
    if (!listener_) return;
    const std::lock_guard lock(mutex_);
    listener_({level, std::move(name), std::move(fields)});
  }

 private:
  std::mutex mutex_;
  const std::function<void(const ConsumerEvent&)> listener_;
};

}  // namespace outbox::consumer
