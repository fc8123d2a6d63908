// SPDX-License-Identifier: Apache-2.0
// The commands of outbox-relay. Each is described and implemented in relay/commands/<command>.cpp.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "relay/commands/command.h"

namespace relay {

enum class Phase;

// All commands, in the order of --help and of docs/commands.md. `at_phase` is for tests of `run`.
std::vector<Command> all_commands(std::function<void(Phase)> at_phase = {});
std::span<const CommandGroup> command_groups();

// Parses the command line and runs a command. Returns the exit code of the process.
int main_command(int argc, char** argv, std::function<void(Phase)> at_phase = {});

Command init_command();
Command check_command();
Command run_command(std::function<void(Phase)> at_phase);
Command status_command();
Command trace_command();
Command parked_list_command();
Command parked_show_command();
Command parked_release_command();
Command parked_discard_command();
Command parked_edit_command();
Command scheduled_list_command();
Command scheduled_cancel_command();
Command effects_list_command();
Command effects_show_command();
Command effects_resolve_command();
Command replay_command();
Command prune_command();
Command adopt_command();
Command config_command();
Command version_command();

}  // namespace relay
