// SPDX-License-Identifier: Apache-2.0
// Other systems under the same load and the same fault: what the campaign's figures are compared with.
#pragma once

#include <string>

#include "tests/faults/campaign.h"

namespace outbox::faults {

// Row R1 with `system` in place of the relay: only "debezium" is known. Prints a line for each round; with CampaignOptions::record, one
// line for all of them is appended to FOLDER/rounds-baselines.jsonl. Throws when the comparison cannot be made.
void run_baseline(const std::string& system, const CampaignOptions& options);

}  // namespace outbox::faults
