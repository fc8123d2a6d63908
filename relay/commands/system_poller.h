// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "relay/core/ports.h"

namespace relay {

// Waits in one poll() for PostgreSQL, Kafka and signals. SIGTERM and SIGINT ask the process to end,
// SIGHUP to reload.
//
// Must be made before any other thread starts: it blocks those signals, and threads inherit that.
class SystemPoller : public Poller {
 public:
  SystemPoller();
  ~SystemPoller() override;
  SystemPoller(const SystemPoller&) = delete;
  SystemPoller& operator=(const SystemPoller&) = delete;

  // Written by the Kafka client when it has something.
  int kafka_fd() const { return kafka_; }
  // Gives the socket on which PostgreSQL is expected to answer, or -1.
  void watch_postgres(std::function<int()> fd) { postgres_ = std::move(fd); }

  // Called at SIGHUP, by the thread that waits. Returns whether the loop must restart.
  void on_reload(std::function<bool()> reload) { reload_ = std::move(reload); }
  // The loop has ended and is about to restart.
  void restarting() { restart_ = false; }

  Clock::time_point now() const override { return Clock::now(); }
  void wait(std::chrono::microseconds at_most) override;
  bool stop_requested() const override { return stop_ || restart_; }
  bool restart_requested() const override { return restart_ && !stop_; }

 private:
  int kafka_;
  int signals_;
  std::function<int()> postgres_ = [] { return -1; };
  std::function<bool()> reload_ = [] { return false; };
  bool stop_ = false;
  bool restart_ = false;
};

}  // namespace relay
