// SPDX-License-Identifier: Apache-2.0
// The descriptions of the commands, what is generated from them, and how command lines are parsed.
#include "relay/commands/reference.h"

#include <gtest/gtest.h>

#include <set>
#include <sstream>

#include "relay/commands/command_line.h"
#include "relay/commands/commands.h"
#include "relay/commands/help.h"
#include "tests/support/generated_file.h"

namespace relay {
namespace {

// Splits a line at spaces; double quotes enclose words with spaces. Ends at a redirection.
std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> words;
  std::istringstream in{std::string(line)};
  for (std::string word; in >> word && word != ">";) {
    if (word.starts_with('"')) {
      std::string rest;
      if (!word.ends_with('"')) std::getline(in, rest, '"');
      word = word.substr(1) + rest;
      if (word.ends_with('"')) word.pop_back();
    }
    words.push_back(word);
  }
  return words;
}

TEST(Commands, EveryDescriptionIsComplete) {
  std::set<std::string_view> names;
  for (const Command& command : all_commands()) {
    EXPECT_TRUE(names.insert(command.name).second) << command.name;
    EXPECT_TRUE(command.summary.ends_with('.')) << command.name;
    EXPECT_TRUE(command.details.empty() || command.details.ends_with('.')) << command.name;
    EXPECT_TRUE(command.reference.empty() ||
                (command.reference.starts_with('\n') && command.reference.ends_with('\n')))
        << command.name;
    EXPECT_TRUE(command.run) << command.name;
    EXPECT_FALSE(command.examples.empty()) << command.name;
    ASSERT_FALSE(command.exit_codes.empty()) << command.name;
    EXPECT_EQ(command.exit_codes[0].code, 0) << command.name;
    for (const CommandOption& option : command.options) {
      EXPECT_TRUE(option.text.ends_with('.')) << command.name << " " << option.name;
      const bool flag = std::holds_alternative<bool*>(option.value);
      EXPECT_EQ(option.placeholder.empty(), flag || option.positional())
          << command.name << " " << option.name;
    }
  }
}

TEST(Commands, EveryExampleParses) {
  for (const Command& command : all_commands()) {
    for (const CommandExample& example : command.examples) {
      const auto commands = all_commands();
      const auto parsed = parse_command_line(commands, words_of(example.line));
      ASSERT_TRUE(parsed) << example.line << ": " << parsed.error().text();
      ASSERT_NE(parsed->command, nullptr) << example.line;
      EXPECT_EQ(parsed->command->name, command.name) << example.line;
      EXPECT_TRUE(example.text.ends_with('.')) << example.line;
    }
  }
}

TEST(Commands, HelpFitsATerminal) {
  const auto commands = all_commands();
  std::vector<std::string> paths = {"", "parked", "scheduled", "effects"};
  for (const Command& command : commands) paths.emplace_back(command.name);
  for (const std::string& path : paths) {
    std::istringstream lines(help_text(commands, path));
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << line;
  }
}

TEST(CommandLine, HelpIsThatOfTheCommand) {
  const auto commands = all_commands();
  for (const std::string path : {"", "parked", "trace"}) {
    auto words = words_of(path);
    words.emplace_back("--help");
    const auto parsed = parse_command_line(commands, words);
    ASSERT_TRUE(parsed) << path;
    EXPECT_EQ(parsed->text, help_text(commands, path)) << path;
  }
  EXPECT_EQ(parse_command_line(commands, {"--version"})->text, OUTBOX_VERSION "\n");
}

struct Values {
  bool flag = false;
  std::string text;
  std::int64_t number = 7;
  std::optional<std::int64_t> maybe;
  std::vector<std::int64_t> numbers;
};

std::vector<Command> one_command(Values& v) {
  std::vector<Command> commands(1);
  commands[0].name = "version";  // no group
  commands[0].options = {{.name = "N", .value = &v.numbers, .text = "", .required = true},
                         {.name = "--flag", .value = &v.flag, .text = ""},
                         {.name = "--text",
                          .value = &v.text,
                          .placeholder = "T",
                          .text = "",
                          .check = ValueCheck::not_empty},
                         {.name = "--number",
                          .value = &v.number,
                          .placeholder = "N",
                          .text = "",
                          .check = ValueCheck::positive},
                         {.name = "--maybe",
                          .value = &v.maybe,
                          .placeholder = "N",
                          .text = "",
                          .excludes = {"--flag"}},
                         {.name = "--choice",
                          .value = &v.text,
                          .placeholder = "C",
                          .text = "",
                          .choices = {"a", "b"}}};
  return commands;
}

TEST(CommandLine, ValuesAreStoredByTheirType) {
  Values v;
  const auto commands = one_command(v);
  const auto parsed = parse_command_line(
      commands, {"version", "1", "2", "--flag", "--text", "x y", "--number", "3", "--config", "f"});
  ASSERT_TRUE(parsed) << parsed.error().text();
  EXPECT_EQ(v.numbers, (std::vector<std::int64_t>{1, 2}));
  EXPECT_TRUE(v.flag);
  EXPECT_EQ(v.text, "x y");
  EXPECT_EQ(v.number, 3);
  EXPECT_FALSE(v.maybe);
  EXPECT_EQ(parsed->config_file, "f");
}

TEST(CommandLine, WrongValuesAreRefusedWithAHint) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong = {
      {{"version"}, "N is required"},
      {{"version", "x"}, "N"},
      {{"version", "1", "--number", "0"}, "--number: must be 1 or more"},
      {{"version", "1", "--number", "1.5"}, "--number"},
      {{"version", "1", "--text", ""}, "--text: is empty"},
      {{"version", "1", "--choice", "c"}, "--choice: must be one of a, b"},
      {{"version", "1", "--maybe", "1", "--flag"}, "excludes"},
      {{"vresion"}, "there is no command \"vresion\""},
      {{}, "a command is missing"},
  };
  for (const auto& [words, what] : wrong) {
    Values v;
    const auto commands = one_command(v);
    const auto parsed = parse_command_line(commands, words);
    ASSERT_FALSE(parsed) << what;
    EXPECT_NE(parsed.error().what.find(what), std::string::npos) << parsed.error().what;
    EXPECT_NE(parsed.error().hint.find("outbox-relay"), std::string::npos) << parsed.error().hint;
  }
}

TEST(GeneratedFiles, CommandsMdIsCurrent) {
  test::expect_current("docs/commands.md", commands_markdown(all_commands()));
}

}  // namespace
}  // namespace relay
