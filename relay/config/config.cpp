// SPDX-License-Identifier: Apache-2.0
#include "relay/config/config.h"

#include <unistd.h>

#include <filesystem>
#include <string_view>

#include "common/check.h"
#include "relay/config/loader.h"
#include "relay/config/options.h"

namespace relay::config {

Environment process_environment() {
  Environment ours;
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    const auto equals = text.find('=');
    if (text.starts_with("OUTBOX_RELAY_") && equals != std::string_view::npos) {
      ours.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
  }
  return ours;
}

Config defaults() {
  Config config;
  for (const Option& option : options()) {
    if (option.standard.empty()) continue;
    const auto assigned = assign(option, std::string(option.standard), config);
    CHECK(assigned);
  }
  return config;
}

std::optional<std::string> default_file() {
  for (const std::string_view path : default_files) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    // A file that exists but may not be looked at must be an error later, not a reason to take
    // another one.
    if (status.type() != std::filesystem::file_type::not_found) return std::string(path);
  }
  return std::nullopt;
}

Result<Config> load(const std::optional<std::string>& file, const Environment& environment,
                    Required required) {
  Loader loader;
  if (const auto path = file ? file : default_file()) loader.read_file(*path);
  loader.read_environment(environment);
  return std::move(loader).finish(required);
}

}  // namespace relay::config
