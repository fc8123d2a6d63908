// SPDX-License-Identifier: Apache-2.0
// parked release and parked discard: an operator's decision about parked messages. The running
// relay executes it.
#pragma once

#include "relay/commands/command.h"

namespace relay {

inline constexpr const char* decision_is_executed =
    "the running relay executes it within a second; `outbox-relay trace ID` shows it\n";

// What differs between the two decisions.
struct ParkedResolution {
  const char* name;        // in outbox.parked
  const char* participle;  // in messages
};

// Adds options, validation and the implementation to the description of a decision.
Command parked_decision_command(Command described, ParkedResolution resolution);

}  // namespace relay
