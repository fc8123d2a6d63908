// SPDX-License-Identifier: Apache-2.0
// The list of commands, and the entry point of the program.
#include <cstdio>

#include "relay/commands/command_line.h"
#include "relay/commands/commands.h"

namespace relay {
namespace {

constexpr CommandGroup groups[] = {
    {"parked", "Messages that could not be sent and wait for an operator's decision."},
    {"scheduled", "Messages that are delivered at a later time."},
    {"effects",
     "Calls of external providers: their state, their history, and operators' decisions."},
};

}  // namespace

std::span<const CommandGroup> command_groups() { return groups; }

std::vector<Command> all_commands(std::function<void(Phase)> at_phase) {
  return {init_command(),         check_command(),          run_command(std::move(at_phase)),
          status_command(),       trace_command(),          parked_list_command(),
          parked_show_command(),  parked_release_command(), parked_discard_command(),
          parked_edit_command(),  scheduled_list_command(), scheduled_cancel_command(),
          effects_list_command(), effects_show_command(),   effects_resolve_command(),
          replay_command(),       prune_command(),          adopt_command(),
          config_command(),       version_command()};
}

int main_command(int argc, char** argv, std::function<void(Phase)> at_phase) {
  const auto commands = all_commands(std::move(at_phase));
  const auto parsed = parse_command_line(commands, {argv + 1, argv + argc});
  if (!parsed) return report(parsed.error());
  if (!parsed->text.empty()) {
    std::fputs(parsed->text.c_str(), stdout);
    return 0;
  }
  return parsed->command->run(Invocation(parsed->config_file));
}

}  // namespace relay
