// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "tests/faults/scenarios.h"

namespace relay::faults {

struct CampaignOptions {
  std::uint64_t seed = 1;
  int rounds = 10;
  int first = 0;          // number of the first round, to continue an earlier run
  std::int64_t from = 0;  // the first point of a sweep
  std::optional<std::chrono::minutes>
      minutes;                 // no round begins later; rounds then only bound it if given
  std::optional<Mode> mode;    // default: both in turn, one session after the other
  std::optional<int> session;  // rounds with one outbox; default: the scenario's
  std::string mutant;          // name of a deliberate defect: the run ends when it is caught
  std::optional<std::filesystem::path>
      record;                      // folder of rounds-*.jsonl, to which each round appends its line
  std::filesystem::path evidence;  // where the logs of rounds that did not pass are kept
  // Written into each line.
  std::string commit, protocol, kafka_version;
  bool dirty = false;
};

struct Tally {
  int passed = 0, failed = 0, unknown = 0;
};

// The present time in the format of the lines.
std::string utc_now();
// Appends a line to a file of the folder, which is created if necessary.
void append_line(const std::filesystem::path& folder, const std::string& file,
                 const std::string& line);

// Runs rounds of one scenario and prints a line for each.
Tally run_campaign(const Scenario& scenario, const CampaignOptions& options);

}  // namespace relay::faults
