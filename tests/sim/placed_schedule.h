// SPDX-License-Identifier: Apache-2.0
// The same few batches again and again, each time with one crash and one request that goes wrong,
// at every place there is.
#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/fault_schedule.h"

namespace relay::sim {

enum class Blow { none, relay_killed, database_crashes, relay_paused, transaction_times_out };
inline constexpr Blow last_blow = Blow::transaction_times_out;

// Where what goes wrong. Points and requests are counted from 0 over the whole run.
struct Place {
  Blow blow = Blow::none;
  std::int64_t blow_at = 0;   // point
  std::int64_t request = -1;  // -1: all arrive
  RequestFate fate = RequestFate::late;
  std::int64_t arrives_at = 0;  // point at which a late request arrives

  std::string text() const;
};

struct PlacedResult {
  std::string violation;  // empty: every guarantee was kept
  std::int64_t points = 0;
  std::int64_t requests = 0;
  std::int64_t sent_at = 0;  // point at which the chosen request was sent
  bool was_late = false;     // the request was one that can come late
};

PlacedResult run_placed_schedule(const Place& place);

// Every place with one blow and one late request among those with numbers [from, to); stops at the
// first violation.
struct Enumeration {
  std::int64_t schedules = 0;
  std::string violation;
};
Enumeration run_all_placed_schedules(std::int64_t request_from, std::int64_t request_to);

}  // namespace relay::sim
