// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/help.h"

#include <sstream>

namespace outbox {
namespace {

constexpr std::size_t width = 100;
constexpr std::size_t column = 24;  // where the texts of options and commands begin

// `first`, then the words of `text`; further lines begin with `indent` blanks.
std::string fill(std::string first, std::size_t indent, const std::string& text) {
  std::istringstream words(text);
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

std::string paragraphs(const std::string& text) {
  std::istringstream lines(text);
  std::string out;
  for (std::string line; std::getline(lines, line);) out += line.starts_with(' ') ? line + "\n" : fill("", 0, line);
  return out;
}

std::string entry(const std::string& label, const std::string& text) {
  std::string first = "  " + label;
  if (first.size() + 2 > column) return first + "\n" + fill(std::string(column, ' '), column, text);
  first.resize(column, ' ');
  return fill(first, column, text);
}

std::string label_of(const CLI::Option& option) {
  if (option.get_positional()) return option.get_name(true);
  std::string label = option.get_name(false, true);
  for (std::size_t i = 0; (i = label.find(',', i)) != std::string::npos; i += 2) label.insert(i + 1, " ");
  const std::string type = option.get_type_name();
  return type.empty() ? label : label + " " + type;
}

}  // namespace

std::string HelpFormatter::make_help(const CLI::App* app, std::string name, CLI::AppFormatMode) const {
  const auto positionals = app->get_options([](const CLI::Option* o) { return o->get_positional(); });
  const auto options = app->get_options([](const CLI::Option* o) { return o->nonpositional(); });
  const auto commands = app->get_subcommands([](const CLI::App* c) { return !c->get_name().empty(); });

  std::string usage = "Usage: " + name;
  if (!commands.empty()) usage += " COMMAND";
  for (const auto* p : positionals) usage += p->get_required() ? " " + p->get_name(true) : " [" + p->get_name(true) + "]";
  usage += " [OPTIONS]";

  std::string out = paragraphs(app->get_description()) + "\n" + usage + "\n";
  const auto section = [&](const char* title, const auto& members, const auto& line) {
    if (!members.empty()) out += std::string("\n") + title + ":\n";
    for (const auto* m : members) out += line(*m);
  };
  const auto describe = [](const CLI::Option& o) { return entry(label_of(o), o.get_description()); };
  section("Commands", commands, [](const CLI::App& c) {
    const std::string text = c.get_description();
    return entry(c.get_name(), text.substr(0, text.find('\n')));
  });
  section("Arguments", positionals, describe);
  section("Options", options, describe);
  if (!app->get_footer().empty()) out += "\n" + paragraphs(app->get_footer());
  return out;
}

}  // namespace outbox
