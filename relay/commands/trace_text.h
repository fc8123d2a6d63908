// SPDX-License-Identifier: Apache-2.0
// Wording and printing for `trace`.
#pragma once

#include <string>

#include "relay/commands/json.h"
#include "relay/commands/trace_lookup.h"

namespace relay {

// The state of the message in sentences for an operator.
std::string explain(const TracedMessage& message);

// Prints a message, complete with explanation, consumed and effects.
void print_message(const Json& j);

}  // namespace relay
