// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "relay/core/mode.h"

namespace relay::sim {

struct ScheduleResult {
  std::string violation;  // empty: every guarantee was kept
  std::int64_t points = 0;
};

// Runs the schedule that this seed decides: which messages are committed when and how, which relays
// run, what is killed, crashes, pauses or comes late.
ScheduleResult run_random_schedule(std::uint64_t seed);

}  // namespace relay::sim
