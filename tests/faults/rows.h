// SPDX-License-Identifier: Apache-2.0
// The rows of the fault matrix that the campaign can run. What each row is for stands in rows.toml.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/faults/round.h"

namespace outbox::faults {

// A round without a relay, as its row tells of it.
struct AloneRound {
  Random& random;
  int number;
  const std::string& kafka_version;

  std::string detail{}, why{};
  Clock::time_point healed_at{}, recovered_at{};  // if the row knows
  std::map<std::string, double> measured{};
  std::map<std::string, std::string> servers{};   // versions of those that it used
};

// What a row needs for some rounds that has no relay: servers and a load of its own.
class Alone {
 public:
  virtual ~Alone() = default;
  // Puts load on, injects the fault, heals it and judges. What it throws makes the round unknown.
  virtual Counts run(AloneRound& round) = 0;
};

struct Row {
  std::string id;
  // Injects the fault into a stretch under load, and heals it: returns when nothing is in the way any more, having called
  // Round::healed(). Stuck makes the round failed, as anything does after Round::broke(); all else that it throws makes it unknown.
  std::function<void(Round&)> inject;
  StretchOptions stretch{};
  int rounds_of_stretch = 25;  // then a new outbox, so that logs stay short; 1: the servers do not outlive a round, either
  Millis recovers_within{60'000};  // or else it is stuck; the recovery time itself is measured
  ServerOptions servers{};
  // Of a row that is not drawn by lot but has an end: whether it has come in this mode.
  std::function<bool(Mode)> complete{};
  // The same: begin with this point, as the round before has measured it, "next_point".
  std::function<void(Mode, std::int64_t point)> go_on_from{};
  // Changes the options of a stretch; stretches are numbered from 0, and two in a row have one mode each.
  std::function<void(StretchOptions&, int stretch)> vary{};
  std::function<std::unique_ptr<Alone>(std::uint64_t seed)> alone{};  // in place of `inject` and `stretch`
  int rounds = 10;                 // if nobody says how many
};

const std::vector<Row>& all_rows();

// By file.
std::vector<Row> relay_rows();
std::vector<Row> postgres_rows();
std::vector<Row> failover_rows();
std::vector<Row> ground_rows();
std::vector<Row> kafka_rows();
std::vector<Row> kafka_request_rows();
std::vector<Row> kafka_topic_rows();
std::vector<Row> outage_rows();
std::vector<Row> sweep_rows();
std::vector<Row> together_rows();
std::vector<Row> effect_rows();

}  // namespace outbox::faults
