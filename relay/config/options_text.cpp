// SPDX-License-Identifier: Apache-2.0
// Texts about an option that do not depend on its value.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cctype>

#include "relay/config/options.h"
#include "relay/config/parse.h"

namespace relay::config {

const Option* find(std::string_view section, std::string_view key) {
  const auto all = options();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Option& o) {
    return o.section == section && o.key == key;
  });
  return found == all.end() ? nullptr : &*found;
}

std::string full_name(const Option& option) {
  return fmt::format("{}.{}", option.section, option.key);
}

std::string environment_name(const Option& option) {
  std::string name = fmt::format("OUTBOX_RELAY_{}_{}", option.section, option.key);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return name;
}

std::string type_name(const Option& option) {
  switch (option.type) {
    case Type::text: return "text";
    case Type::choice:
      return fmt::format("{} {}", option.choices.size() == 1 ? "only" : "one of",
                         fmt::join(option.choices, ", "));
    case Type::integer: return "whole number";
    case Type::boolean: return "true or false";
    case Type::duration: return "duration";
    case Type::size: return "size";
    case Type::list: return "list of texts";
    case Type::secret_file: return "path of a file that holds a secret";
    case Type::properties: return "table of properties";
  }
  return "";
}

std::string range_text(const Option& option) {
  if (option.type == Type::integer) return fmt::format("{} to {}", option.min, option.max);
  if (option.type == Type::size)
    return fmt::format("{} to {}", format_size(option.min), format_size(option.max));
  if (option.type == Type::duration)
    return fmt::format("{} to {}", format_duration(Millis{option.min}),
                       format_duration(Millis{option.max}));
  return "";
}

std::string help_of(const Option& option) {
  const std::string_view shown = option.standard.empty() ? option.derived : option.standard;
  return shown.empty() ? std::string(option.help)
                       : fmt::format("{} Defaults to {}.", option.help, shown);
}

}  // namespace relay::config
