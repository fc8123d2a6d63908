// SPDX-License-Identifier: Apache-2.0
// The rows of the fault matrix that the campaign can run. What each row is for stands in rows.toml.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/faults/round.h"

namespace outbox::faults {

struct Row {
  std::string id;
  // Injects the fault into a stretch under load, and heals it: returns when nothing is in the way any more, having called
  // Round::healed(). What it throws makes the round unknown.
  std::function<void(Round&)> inject;
  StretchOptions stretch{};
  int rounds_of_stretch = 25;  // then a new outbox, so that logs stay short; 1: the servers do not outlive a round, either
  Millis recovers_within{60'000};  // or else it is stuck; the recovery time itself is measured
  ServerOptions servers{};
  // Of a row that is not drawn by lot but has an end: whether it has come in this mode.
  std::function<bool(Mode)> complete{};
  // Changes the options of a stretch; stretches are numbered from 0, and two in a row have one mode each.
  std::function<void(StretchOptions&, int stretch)> vary{};
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

}  // namespace outbox::faults
