// SPDX-License-Identifier: Apache-2.0
// The only file that includes CLI11, which is slow to compile. Help is printed by help.h: CLI11
// only splits the words, and checks which options belong together.
#include "relay/commands/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>

#include "relay/commands/commands.h"
#include "relay/commands/help.h"
#include "relay/config/parse.h"

namespace relay {
namespace {

std::string checked(const CommandOption& option, const std::string& value) {
  switch (option.check) {
    case ValueCheck::none: break;
    case ValueCheck::not_empty:
      // An empty filter, such as that of a variable that is not set, would mean all.
      if (value.empty()) return "is empty; omit the option to select all";
      break;
    case ValueCheck::positive:
      if (value.starts_with('-') || value == "0") return "must be 1 or more";
      break;
    case ValueCheck::not_negative:
      if (value.starts_with('-')) return "must be 0 or more";
      break;
  }
  const auto& choices = option.choices;
  if (choices.empty() || std::find(choices.begin(), choices.end(), value) != choices.end())
    return "";
  std::string all;
  for (const auto choice : choices) all += (all.empty() ? "" : ", ") + std::string(choice);
  return "must be one of " + all;
}

// Stores the words of one option. False: they are not of its type.
struct Store {
  const std::vector<std::string>& words;

  bool operator()(bool* flag) const { return *flag = true; }
  bool operator()(std::string* value) const {
    *value = words.back();
    return true;
  }
  bool operator()(std::optional<std::string>* value) const {
    *value = words.back();
    return true;
  }
  bool operator()(std::vector<std::string>* values) const {
    *values = words;
    return true;
  }
  bool operator()(std::int64_t* value) const {
    const auto parsed = config::parse_integer(words.back());
    if (parsed) *value = *parsed;
    return static_cast<bool>(parsed);
  }
  bool operator()(std::optional<std::int64_t>* value) const { return (*this)(&value->emplace()); }
  bool operator()(std::vector<std::int64_t>* values) const {
    values->clear();
    return std::all_of(words.begin(), words.end(), [&](const std::string& word) {
      const auto parsed = config::parse_integer(word);
      if (parsed) values->push_back(*parsed);
      return static_cast<bool>(parsed);
    });
  }
};

void add_option(CLI::App& app, const CommandOption& option) {
  const std::string name(option.name);
  if (std::holds_alternative<bool*>(option.value)) {
    app.add_flag_callback(name, [flag = std::get<bool*>(option.value)] { *flag = true; });
    return;
  }
  CLI::Option* const added = app.add_option(name, [&option, name](const CLI::results_t& words) {
    for (const std::string& word : words) {
      if (auto what = checked(option, word); !what.empty()) throw CLI::ValidationError(name, what);
    }
    return std::visit(Store{words}, option.value);
  });
  added->required(option.required);
  if (option.repeatable()) added->expected(CLI::detail::expected_max_vector_size);
}

void relate_options(CLI::App& app, const CommandOption& option) {
  CLI::Option* const added = app.get_option(std::string(option.name));
  for (const auto other : option.excludes) added->excludes(app.get_option(std::string(other)));
  for (const auto other : option.needs) added->needs(app.get_option(std::string(other)));
}

class Parser {
 public:
  explicit Parser(const std::vector<Command>& commands) : commands_(commands) {
    app_.set_help_flag("-h,--help");
    app_.set_version_flag("--version", OUTBOX_VERSION);
    app_.require_subcommand(0, 1);
    for (const CommandGroup& group : command_groups()) {
      CLI::App* const added = apps_[std::string(group.name)] =
          app_.add_subcommand(std::string(group.name));
      added->require_subcommand(0, 1);
    }
    for (const Command& command : commands) add(command);
  }

  Result<ParsedCommandLine> parse(const std::vector<std::string>& words) {
    if (auto error = unknown_command(words)) return *error;
    ParsedCommandLine out;
    try {
      app_.parse(std::vector<std::string>(words.rbegin(), words.rend()));
    } catch (const CLI::CallForHelp&) {
      out.text = help_text(commands_, path());
      return out;
    } catch (const CLI::CallForVersion&) {
      out.text = OUTBOX_VERSION "\n";
      return out;
    } catch (const CLI::ParseError& e) {
      return usage(e.what(), "shows the options");
    }
    out.command = find(path());
    out.config_file = file_;
    if (out.command == nullptr) return usage("a command is missing", "lists the commands");
    if (auto error = out.command->validate ? out.command->validate() : std::nullopt) {
      return error->hint.empty() ? usage(error->what, "shows the options") : *error;
    }
    return out;
  }

 private:
  void add(const Command& command) {
    const std::string name(command.name);
    const auto blank = name.find(' ');
    CLI::App* const parent = blank == std::string::npos ? &app_ : apps_.at(name.substr(0, blank));
    CLI::App* const added = apps_[name] =
        parent->add_subcommand(name.substr(blank == std::string::npos ? 0 : blank + 1));
    if (command.takes_config) {
      added->add_option("--config", [this](const CLI::results_t& words) {
        file_ = words.back();
        return true;
      });
    }
    for (const CommandOption& option : command.options) add_option(*added, option);
    for (const CommandOption& option : command.options) relate_options(*added, option);
  }

  // CLI11 would only report that an argument was not expected.
  std::optional<Error> unknown_command(const std::vector<std::string>& words) const {
    std::string path;
    for (const std::string& word : words) {
      if (word.starts_with('-')) break;
      const auto names = names_below(commands_, path);
      if (names.empty()) break;
      if (std::find(names.begin(), names.end(), word) == names.end()) {
        const auto meant = config::nearest(word, names);
        return Error{Fault::usage, "there is no command " + config::in_quotes(word),
                     (meant ? "did you mean " + *meant + "? " : "") + "`outbox-relay" +
                         (path.empty() ? "" : " " + path) + " --help` lists the commands"};
      }
      path += (path.empty() ? "" : " ") + word;
    }
    return std::nullopt;
  }

  Error usage(const std::string& what, const char* help) const {
    const std::string at = path();
    return {Fault::usage, what,
            "`outbox-relay" + (at.empty() ? "" : " " + at) + " --help` " + help};
  }

  // The words of the command, as far as they were parsed.
  std::string path() const {
    std::string path;
    for (const CLI::App* at = &app_; !at->get_subcommands().empty();) {
      at = at->get_subcommands().front();
      path += (path.empty() ? "" : " ") + at->get_name();
    }
    return path;
  }

  const Command* find(const std::string& path) const {
    const auto found = std::find_if(commands_.begin(), commands_.end(),
                                    [&](const Command& c) { return c.name == path; });
    return found == commands_.end() ? nullptr : &*found;
  }

  const std::vector<Command>& commands_;
  CLI::App app_{"", "outbox-relay"};
  std::map<std::string, CLI::App*> apps_;
  std::string file_;
};

}  // namespace

Result<ParsedCommandLine> parse_command_line(const std::vector<Command>& commands,
                                             const std::vector<std::string>& words) {
  return Parser(commands).parse(words);
}

}  // namespace relay
