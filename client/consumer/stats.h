// SPDX-License-Identifier: Apache-2.0
// The counters behind Consumer::stats().
//
// Written by the thread of run(), read by any thread. Each value is exact; a snapshot is not atomic
// across values.
#pragma once

#include <atomic>

#include "outbox/consumer.h"

namespace outbox::consumer {

using Clock = std::chrono::steady_clock;

struct ConsumerStatsCounter {
  std::atomic<ConsumerStats::State> state{ConsumerStats::State::stopped};
  std::atomic<std::int64_t> new_messages{0}, duplicates{0}, expired{0}, parked{0}, released{0},
      pruned{0}, batches{0}, retries{0};
  std::atomic<Clock::rep> busy_since{0};  // start of the current batch; 0: none

  ConsumerStats snapshot() const {
    const Clock::rep since = busy_since;
    const auto busy =
        since == 0 ? Clock::duration{0} : Clock::now() - Clock::time_point(Clock::duration(since));
    return {state,      new_messages,
            duplicates, expired,
            parked,     released,
            pruned,     batches,
            retries,    std::chrono::duration_cast<std::chrono::milliseconds>(busy)};
  }
};

}  // namespace outbox::consumer
