// SPDX-License-Identifier: Apache-2.0
// The text of --help.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "relay/commands/command.h"

namespace relay {

// The help of a command, of a group, or (empty path) of the program: description, usage, arguments,
// options, commands, exit codes, examples; no line is wider than 100 columns.
std::string help_text(const std::vector<Command>& commands, std::string_view path);

// The next words that can follow `path`, in the order of the commands; empty: `path` is a command.
std::vector<std::string> names_below(const std::vector<Command>& commands, std::string_view path);

// The option as help and reference name it: "--topic TOPIC", "ID...".
std::string label_of(const CommandOption& option);

// "Exit codes: 0 done, 2 usage or configuration."
std::string exit_codes_text(const Command& command);

}  // namespace relay
