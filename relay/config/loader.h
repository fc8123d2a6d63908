// SPDX-License-Identifier: Apache-2.0
// Builds a configuration from a file and the environment. config::load() is its only user.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "relay/config/config.h"
#include "relay/config/errors.h"
#include "relay/config/options.h"

namespace toml {
inline namespace v3 {
class node;
class table;
}  // namespace v3
}  // namespace toml

namespace relay::config {

// Call read_file() if there is a file, then read_environment(), then finish(). Later values take
// precedence. An error is recorded and reading continues, so that finish() reports all of them.
class Loader {
 public:
  Loader() : config_(defaults()) {}
  void read_file(const std::string& path);
  void read_environment(const Environment& environment);
  Result<Config> finish(Required required) &&;

 private:
  using Entries = std::vector<std::pair<std::string, Position>>;
  struct Property {
    std::string value;
    Position position;
  };

  // From a file (loader_file.cpp).
  Position position_of(const toml::node& node) const;
  void read_section(std::string_view name, const toml::table& table);
  void read_option(const Option& option, const toml::node& node);
  void read_properties(const Option& option, const toml::table& table, const std::string& prefix,
                       std::set<std::string>& seen);
  void unknown_section(std::string_view name, const toml::node& node, const Position& position);
  void unknown_option(std::string_view section, std::string_view key, const Position& position);

  // From the environment.
  void read_property_list(const Option& option, const std::string& list, const Position& position);

  // From anywhere.
  void store(const Option& option, const std::string& text, const Position& position);
  void store_list(const Option& option, const Entries& entries, const Position& position);
  void store_property(const Option& option, const std::string& name, const std::string& value,
                      const Position& position);
  void drop_password_file(std::string_view section);
  void reject(const Option& option, const Position& position, const std::string& what,
              const std::string& hint);

  // Checks and defaults that depend on several options.
  void read_secret_files();
  bool good(std::string_view section, std::string_view key) const;
  Position position_of(std::string_view section, std::string_view key) const;
  void check_required(Required required);
  void check_passwords();
  void check_sizes();
  void resolve_consumer();
  void resolve_topics();
  void resolve_properties();

  Config config_;
  Errors errors_;
  std::string file_;           // as named in messages; empty: none was read
  bool file_is_known_ = true;  // false: there is one, but it could not be parsed
  std::map<std::string, Position, std::less<>> sections_;
  std::map<const Option*, Position> given_;            // every option that is set, valid or not
  std::set<const Option*> bad_;                        // those of them that are invalid
  std::map<const Option*, std::string> secret_files_;  // paths, read at the end
  std::map<std::string, Property> properties_;
};

}  // namespace relay::config
