// SPDX-License-Identifier: Apache-2.0
// The reference page of the commands, generated from their descriptions. A unit test fails when
// docs/commands.md is stale; with OUTBOX_REGENERATE=1 in the environment it writes the file.
#pragma once

#include <string>
#include <vector>

#include "relay/commands/command.h"

namespace relay {

// docs/commands.md
std::string commands_markdown(const std::vector<Command>& commands);

}  // namespace relay
