// SPDX-License-Identifier: Apache-2.0
// Parses the words of a command line by the descriptions of the commands.
#pragma once

#include <string>
#include <vector>

#include "relay/base/error.h"
#include "relay/commands/command.h"

namespace relay {

struct ParsedCommandLine {
  const Command* command = nullptr;  // null if `text` is to be printed
  std::string config_file;           // of --config; empty: the default
  std::string text;                  // help or version; empty: run `command`
};

// Stores the values of the options where the description of the command says, and validates them.
//   usage   the words are not a command with valid options; the hint names the help.
Result<ParsedCommandLine> parse_command_line(const std::vector<Command>& commands,
                                             const std::vector<std::string>& words);

}  // namespace relay
