// SPDX-License-Identifier: Apache-2.0
#include <spdlog/fmt/fmt.h>

#include <toml++/toml.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "relay/config/loader.h"
#include "relay/config/parse.h"

namespace relay::config {
namespace {

const char* found(toml::node_type type) {
  switch (type) {
    case toml::node_type::table: return "a table";
    case toml::node_type::array: return "a list";
    case toml::node_type::string: return "a text in quotes";
    case toml::node_type::integer: return "a number without quotes";
    case toml::node_type::floating_point: return "a number with a fraction";
    case toml::node_type::boolean: return "true or false";
    case toml::node_type::date:
    case toml::node_type::time:
    case toml::node_type::date_time: return "a date or time";
    case toml::node_type::none: break;
  }
  return "nothing";
}

std::string expected(const Option& option) {
  const bool has_article = option.type == Type::choice || option.type == Type::boolean;
  return has_article ? type_name(option) : "a " + type_name(option);
}

// How to write the option: the hint for a value of the wrong type.
std::string written(const Option& option) {
  if (option.standard.empty()) return fmt::format("write {} = {}", option.key, option.example);
  const bool plain = option.type == Type::integer || option.type == Type::boolean;
  return plain ? fmt::format("write it without quotes: {} = {}", option.key, option.standard)
               : fmt::format("write it in quotes{}: {} = \"{}\"",
                             option.type == Type::duration || option.type == Type::size
                                 ? " and with its unit"
                                 : "",
                             option.key, option.standard);
}

// A single value as it would be written in the environment; nullopt: it has another type.
// value<T>() would convert, and value_or() would hide the error.
std::optional<std::string> scalar(Type type, const toml::node& node) {
  if (type == Type::integer) {
    const auto number = node.value_exact<std::int64_t>();
    return number ? std::optional(fmt::format("{}", *number)) : std::nullopt;
  }
  if (type == Type::boolean) {
    const auto answer = node.value_exact<bool>();
    return answer ? std::optional<std::string>(*answer ? "true" : "false") : std::nullopt;
  }
  return node.value_exact<std::string>();
}

// A property of librdkafka may be written as any scalar.
std::optional<std::string> property_value(const toml::node& node) {
  if (const auto text = node.value_exact<std::string>()) return text;
  if (const auto number = node.value_exact<std::int64_t>()) return fmt::format("{}", *number);
  if (const auto number = node.value_exact<double>()) return fmt::format("{}", *number);
  if (const auto answer = node.value_exact<bool>()) return *answer ? "true" : "false";
  return std::nullopt;
}

Result<std::string> content_of(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    return Error{Fault::usage, "the configuration file is a directory", "name the file."};
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    return Error{Fault::usage,
                 fmt::format("the configuration file cannot be opened: {}", std::strerror(errno)),
                 "see --config; without a file, set all options in the environment."};
  }
  std::ostringstream out;
  out << in.rdbuf();
  if (in.bad())
    return Error{Fault::usage, "the configuration file cannot be read", "check the file system."};
  return out.str();
}

}  // namespace

void Loader::read_file(const std::string& path) {
  file_ = path;
  const auto content = content_of(path);
  if (!content) {
    file_is_known_ = false;
    return errors_.add(Position{path}, content.error().what, content.error().hint);
  }
  try {
    const toml::table root = toml::parse(*content, path);
    for (const auto& [key, node] : root) {
      const Position position{file_, key.source().begin.line, key.source().begin.column};
      const auto known = [name = key.str()](const Section& s) { return s.name == name; };
      const bool is_section = std::any_of(sections().begin(), sections().end(), known);
      if (is_section && node.is_table()) {
        sections_.emplace(key.str(), position);
        read_section(key.str(), *node.as_table());
      } else {
        unknown_section(key.str(), node, position);
      }
    }
  } catch (const toml::parse_error& error) {
    file_is_known_ = false;
    errors_.add(
        Position{path, error.source().begin.line, error.source().begin.column},
        std::string(error.description()),
        "the file is not valid TOML here; strings need quotes, and a name can be set only once.");
  }
}

void Loader::read_section(std::string_view name, const toml::table& table) {
  for (const auto& [key, node] : table) {
    const Option* option = find(name, key.str());
    if (option != nullptr) read_option(*option, node);
    else
      unknown_option(name, key.str(),
                     Position{file_, key.source().begin.line, key.source().begin.column});
  }
}

void Loader::read_option(const Option& option, const toml::node& node) {
  const Position position = position_of(node);
  const auto wrong_type = [&](const toml::node& bad) {
    given_[&option] = position;
    reject(option, position_of(bad),
           fmt::format("{} where {} belongs", found(bad.type()), expected(option)),
           written(option));
  };
  if (option.type == Type::properties) {
    std::set<std::string> seen;
    return node.is_table() ? read_properties(option, *node.as_table(), "", seen) : wrong_type(node);
  }
  if (option.type != Type::list) {
    const auto text = scalar(option.type, node);
    return text ? store(option, *text, position) : wrong_type(node);
  }
  Entries entries;
  if (const auto text = node.value_exact<std::string>()) {
    for (std::string& entry : split_list(*text)) entries.emplace_back(std::move(entry), position);
  } else if (const toml::array* list = node.as_array()) {
    for (const toml::node& entry : *list) {
      if (const auto value = entry.value_exact<std::string>())
        entries.emplace_back(*value, position_of(entry));
      else wrong_type(entry);
    }
    if (entries.empty() && !list->empty()) return;
  } else {
    return wrong_type(node);
  }
  store_list(option, entries, position);
}

// Names of properties contain dots, which TOML reads as nested tables when the name is not quoted.
void Loader::read_properties(const Option& option, const toml::table& table,
                             const std::string& prefix, std::set<std::string>& seen) {
  for (const auto& [key, node] : table) {
    const std::string name = prefix + std::string(key.str());
    if (node.is_table()) {
      read_properties(option, *node.as_table(), name + ".", seen);
    } else if (!seen.insert(name).second) {
      reject(option, position_of(node), fmt::format("{} is set twice", in_quotes(name)),
             "remove one of them.");
    } else if (const auto value = property_value(node)) {
      store_property(option, name, *value, position_of(node));
    } else {
      reject(
          option, position_of(node),
          fmt::format("{} is {} where a single value belongs", in_quotes(name), found(node.type())),
          "write it as a text in quotes.");
    }
  }
}

void Loader::unknown_section(std::string_view name, const toml::node& node,
                             const Position& position) {
  std::vector<std::string> names;
  for (const Section& section : sections()) names.emplace_back(section.name);
  const bool is_section = std::find(names.begin(), names.end(), name) != names.end();
  if (is_section) {
    return errors_.add(position,
                       fmt::format("{} where the section [{}] belongs", found(node.type()), name),
                       fmt::format("write [{}] on its own line, and its options below.", name));
  }
  if (!node.is_table()) {
    for (const Option& option : options()) {
      if (option.key != name) continue;
      return errors_.add(position,
                         fmt::format("the option {} is outside its section", in_quotes(name)),
                         fmt::format("write it below [{}].", option.section));
    }
  }
  const auto meant = nearest(name, names);
  errors_.add(position, fmt::format("there is no section {}", in_quotes(name)),
              meant ? fmt::format("did you mean [{}]?", *meant)
                    : fmt::format("the sections are {}.", fmt::join(names, ", ")));
}

void Loader::unknown_option(std::string_view section, std::string_view key,
                            const Position& position) {
  std::vector<std::string> here;
  std::string elsewhere;
  for (const Option& option : options()) {
    if (option.section == section) here.emplace_back(option.key);
    else if (option.key == key) elsewhere = full_name(option);
  }
  const auto meant = nearest(key, here);
  const std::string hint = meant ? fmt::format("did you mean {}.{}?", section, *meant)
                           : !elsewhere.empty()
                               ? fmt::format("did you mean {}?", elsewhere)
                               : fmt::format("[{}] has {}.", section, fmt::join(here, ", "));
  errors_.add(position,
              fmt::format("there is no option {}", in_quotes(fmt::format("{}.{}", section, key))),
              hint);
}

Position Loader::position_of(const toml::node& node) const {
  return Position{file_, node.source().begin.line, node.source().begin.column};
}

}  // namespace relay::config
