// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/reference.h"

#include <algorithm>
#include <sstream>

#include "relay/commands/help.h"

namespace relay {
namespace {

constexpr std::size_t page_width = 100;

constexpr std::string_view head =
    R"(<!-- Generated from relay/commands by the unit tests; do not edit. -->
# Commands

`outbox-relay COMMAND [OPTIONS]`. Every command except `version` has the option `--config FILE`.
Without it, the configuration file is `/etc/outbox-relay/relay.toml`, else `./relay.toml`; every
option can also be set in the environment ([configuration](configuration.md)). `--help` after a
command prints what it does and which options it has. Errors are printed to standard error and end
with a line `HINT:` and a fix.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | `check` found a problem; an object was not found; a delivered message is not in Kafka |
| 2 | an error in the command line or the configuration |
| 3 | PostgreSQL is not reachable, or failed |
| 4 | Kafka is not reachable, or failed |
| 5 | refused, because a guarantee could not be kept, or a privilege is missing |
| 6 | fenced: another relay took over the lease |

Every JSON answer contains `"schema": 1`. Fields can be added under that number; if a field is
removed or changes its meaning, the number changes. Times are text in UTC by ISO 8601. A value that
is unknown or does not apply is `null`.
)";

// The length of the word at the start of `word` that is a name of the program, without punctuation;
// 0: it is prose.
std::size_t name_length(std::string_view word) {
  std::size_t length = word.find_last_not_of(".,;:)");
  if (length == std::string_view::npos) return 0;
  ++length;
  if (word.substr(length).starts_with(')') && word.substr(0, length).ends_with('(')) ++length;
  const std::string_view bare = word.substr(0, length);
  const bool name = bare.starts_with("--") || bare.find_first_of("_.") != std::string_view::npos;
  return name ? length : 0;
}

// Prose as Markdown: options, roles and other names become code.
std::string markdown(std::string_view text) {
  std::istringstream words{std::string(text)};
  std::string out;
  bool in_code = false;
  for (std::string word; words >> word;) {
    const auto ticks = std::count(word.begin(), word.end(), '`');
    const std::size_t length = in_code || ticks > 0 ? 0 : name_length(word);
    if (ticks % 2 == 1) in_code = !in_code;
    out += (out.empty() ? "" : " ") +
           (length == 0 ? word : "`" + word.substr(0, length) + "`" + word.substr(length));
  }
  return out;
}

std::string wrap(const std::string& text) {
  std::istringstream words(text);
  std::string out;
  std::string line;
  for (std::string word; words >> word;) {
    if (!line.empty() && line.size() + 1 + word.size() > page_width) {
      out += line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return out + line + "\n";
}

std::string options_table(const Command& command) {
  if (command.options.empty()) return "";
  const bool arguments =
      std::any_of(command.options.begin(), command.options.end(),
                  [](const CommandOption& option) { return option.positional(); });
  std::string out =
      arguments ? "\n| argument or option | description |" : "\n| option | description |";
  out += "\n| --- | --- |\n";
  for (const CommandOption& option : command.options) {
    out += "| `" + label_of(option) + "` | " + markdown(option.text) + " |\n";
  }
  return out;
}

std::string examples(const Command& command) {
  if (command.examples.empty()) return "";
  std::string out = "\n```sh\n";
  for (const CommandExample& example : command.examples) {
    out += "# " + std::string(example.text) + "\noutbox-relay " + std::string(example.line) + "\n";
  }
  return out + "```\n";
}

}  // namespace

std::string commands_markdown(const std::vector<Command>& commands) {
  std::string out(head);
  for (const Command& command : commands) {
    out += "\n## " + std::string(command.name) + "\n\n";
    out += wrap(markdown(std::string(command.summary) + " " + std::string(command.details)));
    out += options_table(command);
    out += "\n" + wrap(markdown(exit_codes_text(command)));
    out += command.reference;
    out += examples(command);
  }
  return out;
}

}  // namespace relay
