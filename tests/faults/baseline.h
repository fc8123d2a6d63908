// SPDX-License-Identifier: Apache-2.0
// Other systems under the same load and the same fault, for comparison with the relay.
#pragma once

#include <string>

#include "tests/faults/campaign.h"

namespace relay::faults {

// Runs scenario RE01 with `system` in place of the relay: only "debezium" is known. Prints a line
// for each round; with CampaignOptions::record, appends one line for all of them to
// FOLDER/rounds-baselines.jsonl. Throws when the comparison cannot be made.
void run_baseline(const std::string& system, const CampaignOptions& options);

}  // namespace relay::faults
