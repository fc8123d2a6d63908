// SPDX-License-Identifier: Apache-2.0
// The description of a command: what it takes, what its help says, and what it does. The parser,
// --help and docs/commands.md are generated from it.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "relay/base/error.h"
#include "relay/config/config.h"

namespace relay {

// Where the value of an option is stored. A bool is a flag; the vectors take one or more values.
using OptionValue = std::variant<bool*, std::string*, std::int64_t*, std::optional<std::string>*,
                                 std::optional<std::int64_t>*, std::vector<std::string>*,
                                 std::vector<std::int64_t>*>;

enum class ValueCheck { none, not_empty, positive, not_negative };

// An option or, if its name does not begin with a dash, a positional argument.
struct CommandOption {
  std::string_view name;  // "--topic" or "ID"
  OptionValue value;
  std::string_view placeholder = {};  // "TOPIC"; empty: a flag or an argument
  std::string_view text;              // sentences, for --help and the reference
  bool required = false;
  ValueCheck check = ValueCheck::none;
  std::vector<std::string_view> choices = {};   // empty: any value
  std::vector<std::string_view> excludes = {};  // names of options
  std::vector<std::string_view> needs = {};

  bool positional() const { return !name.starts_with('-'); }
  bool repeatable() const {
    return std::holds_alternative<std::vector<std::string>*>(value) ||
           std::holds_alternative<std::vector<std::int64_t>*>(value);
  }
};

struct ExitCode {
  int code;
  std::string_view text;
};

struct CommandExample {
  std::string_view line;  // without "outbox-relay"
  std::string_view text;
};

// What a command is run with, besides its options.
class Invocation {
 public:
  explicit Invocation(std::string file) : file_(std::move(file)) {}
  // Reads the configuration; again each time it is called.
  Result<Config> load(config::Required required = config::Required::all) const;

 private:
  std::string file_;  // of --config; empty: the default
};

// A description. The values of the options are owned by `run`, which keeps them alive.
struct Command {
  std::string_view name;          // "parked release"
  std::string_view summary;       // one sentence
  std::string_view details = {};  // further paragraphs, for --help and the reference
  std::vector<CommandOption> options = {};
  bool takes_config = true;  // the option --config
  std::vector<ExitCode> exit_codes = {};
  std::string_view reference = {};  // Markdown, for the reference only
  std::vector<CommandExample> examples = {};
  std::string (*help_footer)() = nullptr;

  // Checks the options when all are parsed. An error without a hint gets the hint to read --help.
  std::function<std::optional<Error>()> validate = {};
  // Returns the exit code.
  std::function<int(const Invocation&)> run = {};
};

// A first word that several commands share.
struct CommandGroup {
  std::string_view name;
  std::string_view summary;
};

// `run` of a command that needs the whole configuration.
std::function<int(const Invocation&)> with_config(std::function<int(const Config&)> run);

// The same of a command that needs only the options of [postgres] among those that are required.
std::function<int(const Invocation&)> with_database(std::function<int(const Config&)> run);

// Prints the error to standard error and returns its exit code.
int report(const Error& error);

// Options that several commands have.
CommandOption json_option(bool* json);
CommandOption limit_option(std::int64_t* limit);
CommandOption list_topic_option(std::string* topic);
CommandOption why_option(std::string* why, bool required);
CommandOption by_option(std::string* by);

// Exit codes that most commands share.
inline constexpr ExitCode done_code{0, "done"};
inline constexpr ExitCode not_found_code{1, "not found"};
inline constexpr ExitCode usage_code{2, "usage or configuration"};
inline constexpr ExitCode postgres_code{3, "PostgreSQL"};
inline constexpr ExitCode right_missing_code{5, "refused: no schema, or a privilege is missing"};

}  // namespace relay
