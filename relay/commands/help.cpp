// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/help.h"

#include <algorithm>
#include <sstream>

#include "relay/commands/commands.h"

namespace relay {
namespace {

constexpr std::size_t width = 100;
constexpr std::size_t column = 24;  // where the texts of options and commands begin

constexpr std::string_view program_summary =
    "Publishes the messages of a PostgreSQL outbox to Kafka, exactly once.";
constexpr std::string_view program_footer =
    "`outbox-relay COMMAND --help` describes a command; `outbox-relay config --help` describes "
    "every "
    "option of the configuration.\n\n"
    "Exit codes: 0 done, 1 problem found or not found, 2 usage or configuration, 3 PostgreSQL, "
    "4 Kafka, 5 refused, because a guarantee could not be kept, 6 fenced by another relay.";

// `first`, then the words of `text`; further lines begin with `indent` spaces.
std::string fill(std::string first, std::size_t indent, std::string_view text) {
  std::istringstream words{std::string(text)};
  std::string out;
  std::string line = std::move(first);
  bool at_start = true;
  for (std::string word; words >> word; at_start = false) {
    if (!at_start && line.size() + 1 + word.size() > width) {
      out += line + "\n";
      line = std::string(indent, ' ');
      at_start = true;
    }
    line += (at_start ? "" : " ") + word;
  }
  return out + line + "\n";
}

// Each line of `text` is a paragraph; a line that begins with a space is kept as it is.
std::string paragraphs(std::string_view text) {
  std::istringstream lines{std::string(text)};
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    out += line.starts_with(' ') ? line + "\n" : fill("", 0, line);
  }
  return out;
}

std::string entry(const std::string& label, std::string_view text) {
  std::string first = "  " + label;
  if (first.size() + 2 > column) {
    return first + "\n" + fill(std::string(column, ' '), column, text);
  }
  first.resize(column, ' ');
  return fill(first, column, text);
}

std::string help_entry() { return entry("-h, --help", "Print this help."); }

std::string command_entries(const std::vector<Command>& commands, std::string_view path) {
  std::string out = "\nCommands:\n";
  for (const std::string& name : names_below(commands, path)) {
    const std::string full = path.empty() ? name : std::string(path) + " " + name;
    for (const Command& c : commands) {
      if (c.name == full) out += entry(name, c.summary);
    }
    for (const CommandGroup& g : command_groups()) {
      if (g.name == full) out += entry(name, g.summary);
    }
  }
  return out;
}

std::string program_help(const std::vector<Command>& commands) {
  return paragraphs(program_summary) + "\nUsage: outbox-relay COMMAND [OPTIONS]\n" +
         command_entries(commands, "") + "\nOptions:\n" + help_entry() +
         entry("--version", "Print the version of the program.") + "\n" +
         paragraphs(program_footer);
}

std::string group_help(const std::vector<Command>& commands, const CommandGroup& group) {
  const std::string name(group.name);
  return paragraphs(group.summary) + "\nUsage: outbox-relay " + name + " COMMAND [OPTIONS]\n" +
         command_entries(commands, group.name) + "\nOptions:\n" + help_entry() +
         "\nExit codes: see the commands.\n";
}

std::string examples_text(const Command& command) {
  std::string out;
  for (const CommandExample& example : command.examples) {
    out += (out.empty() ? "\nExamples:\n  outbox-relay " : "  outbox-relay ") +
           std::string(example.line) + "\n" + fill("      ", 6, example.text);
  }
  return out;
}

std::string command_help(const Command& command) {
  std::string out = paragraphs(command.summary);
  out += paragraphs(command.details);
  out += "\nUsage: outbox-relay " + std::string(command.name);
  std::string arguments;
  std::string options = help_entry();
  if (command.takes_config) {
    options += entry("--config FILE",
                     "The configuration file. Defaults to /etc/outbox-relay/relay.toml, else "
                     "./relay.toml.");
  }
  for (const CommandOption& option : command.options) {
    const std::string label = label_of(option);
    (option.positional() ? arguments : options) += entry(label, option.text);
    if (option.positional()) out += option.required ? " " + label : " [" + label + "]";
  }
  out += " [OPTIONS]\n";
  if (!arguments.empty()) out += "\nArguments:\n" + arguments;
  out += "\nOptions:\n" + options + "\n" + paragraphs(exit_codes_text(command));
  out += examples_text(command);
  if (command.help_footer != nullptr) out += "\n" + paragraphs(command.help_footer());
  return out;
}

}  // namespace

std::vector<std::string> names_below(const std::vector<Command>& commands, std::string_view path) {
  const std::string prefix = path.empty() ? "" : std::string(path) + " ";
  std::vector<std::string> names;
  for (const Command& command : commands) {
    if (!command.name.starts_with(prefix)) continue;
    const auto rest = command.name.substr(prefix.size());
    const std::string name(rest.substr(0, rest.find(' ')));
    if (names.empty() || names.back() != name) names.push_back(name);
  }
  return names;
}

std::string label_of(const CommandOption& option) {
  std::string label(option.name);
  if (option.repeatable()) label += "...";
  if (!option.placeholder.empty()) label += " " + std::string(option.placeholder);
  return label;
}

std::string exit_codes_text(const Command& command) {
  std::string text;
  for (const ExitCode& code : command.exit_codes) {
    text += (text.empty() ? "Exit codes: " : ", ") + std::to_string(code.code) + " " +
            std::string(code.text);
  }
  return text + ".";
}

std::string help_text(const std::vector<Command>& commands, std::string_view path) {
  for (const Command& command : commands) {
    if (command.name == path) return command_help(command);
  }
  for (const CommandGroup& group : command_groups()) {
    if (group.name == path) return group_help(commands, group);
  }
  return program_help(commands);
}

}  // namespace relay
