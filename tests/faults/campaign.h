// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "tests/faults/rows.h"

namespace outbox::faults {

struct CampaignOptions {
  std::uint64_t seed = 1;
  int rounds = 10;
  int first = 0;                               // number of the first round: to go on where another run has ended
  std::int64_t from = 0;                       // the first point of a sweep
  std::optional<std::chrono::minutes> minutes;  // no round begins later; rounds then only bound it if given
  std::optional<Mode> mode;                    // default: both in turn, one stretch after the other
  std::optional<int> stretch;                  // rounds with one outbox; default: the row's
  std::string sabotage;                        // a deliberate defect, which is to be found: the run ends when it is
  std::optional<std::filesystem::path> record;  // folder of rounds-*.jsonl, to which each round appends its line
  std::filesystem::path evidence;              // where the logs of rounds that did not pass are kept
  // What the lines say of the tree.
  std::string commit, protocol, kafka_version;
  bool dirty = false;
};

struct Tally {
  int passed = 0, failed = 0, unknown = 0;
};

// Now, as the lines have it.
std::string utc_now();
// Appends a line to a file of the folder, which is made if need be.
void append_line(const std::filesystem::path& folder, const std::string& file, const std::string& line);

// Runs rounds of one row and prints a line for each.
Tally run_campaign(const Row& row, const CampaignOptions& options);

}  // namespace outbox::faults
