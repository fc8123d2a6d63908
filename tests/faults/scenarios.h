// SPDX-License-Identifier: Apache-2.0
// The scenarios that the campaign can run. scenarios.toml says what each one is for.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/faults/round.h"

namespace relay::faults {

// A round without a relay, as its scenario notes it.
struct AloneRound {
  Random& random;
  int number;
  const std::string& kafka_version;

  std::string detail{}, why{};
  Clock::time_point healed_at{}, recovered_at{};  // if the scenario knows
  std::map<std::string, double> measured{};
  std::map<std::string, std::string> servers{};  // versions of those that it used
};

// The servers and the load of a scenario without a relay, for some rounds.
class Alone {
 public:
  virtual ~Alone() = default;
  // Starts the load, injects the fault, ends it and checks the result. An exception makes the round
  // unknown.
  virtual Counts run(AloneRound& round) = 0;
};

struct Scenario {
  std::string id;
  // Injects the fault into a session under load and ends it; calls Round::healed() before it
  // returns. Stuck makes the round failed, as any exception does after Round::broke(); any other
  // exception makes it unknown.
  std::function<void(Round&)> inject;
  SessionOptions session{};
  int rounds_of_session =
      25;  // then a new outbox, so that logs stay short; 1: new servers for each round as well
  Millis recovers_within{
      60'000};  // or else the relay is stuck; the recovery time itself is measured only
  ServerOptions servers{};
  // For a scenario that enumerates its faults: whether it has reached its end in this mode.
  std::function<bool(Mode)> complete{};
  // For the same: begins with this point, which is the "next_point" that the previous round
  // measured.
  std::function<void(Mode, std::int64_t point)> go_on_from{};
  // Changes the options of a session; sessions are numbered from 0, and two in succession have one
  // mode each.
  std::function<void(SessionOptions&, int session)> vary{};
  std::function<std::unique_ptr<Alone>(std::uint64_t seed)>
      alone{};      // in place of `inject` and `session`
  int rounds = 10;  // the default number
};

const std::vector<Scenario>& all_scenarios();

// By file.
std::vector<Scenario> relay_scenarios();
std::vector<Scenario> postgres_scenarios();
std::vector<Scenario> failover_scenarios();
std::vector<Scenario> table_scenarios();
std::vector<Scenario> kafka_scenarios();
std::vector<Scenario> kafka_request_scenarios();
std::vector<Scenario> kafka_topic_scenarios();
std::vector<Scenario> outage_scenarios();
std::vector<Scenario> sweep_scenarios();
std::vector<Scenario> together_scenarios();
std::vector<Scenario> effect_scenarios();

}  // namespace relay::faults
