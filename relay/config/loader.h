// SPDX-License-Identifier: Apache-2.0
// Puts a configuration together from a file and the environment; config::load() is its only user.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "relay/config/config.h"
#include "relay/config/mistakes.h"
#include "relay/config/options.h"

namespace toml {
inline namespace v3 {
class node;
class table;
}  // namespace v3
}  // namespace toml

namespace outbox::config {

// read_file(), read_environment(), finish(), in this order, the first if there is a file. Later values win. A mistake
// is remembered and the rest goes on, so that finish() can report all of them.
class Loader {
 public:
  Loader() : config_(defaults()) {}
  void read_file(const std::string& path);
  void read_environment(const Environment& environment);
  Result<Config> finish(Required required) &&;

 private:
  using Entries = std::vector<std::pair<std::string, Place>>;
  struct Property {
    std::string value;
    Place place;
  };

  // From a file (loader_file.cpp).
  Place place_of(const toml::node& node) const;
  void read_section(std::string_view name, const toml::table& table);
  void read_option(const Option& option, const toml::node& node);
  void read_properties(const Option& option, const toml::table& table, const std::string& prefix,
                       std::set<std::string>& seen);
  void unknown_section(std::string_view name, const toml::node& node, const Place& place);
  void unknown_option(std::string_view section, std::string_view key, const Place& place);

  // From the environment.
  void read_property_list(const Option& option, const std::string& list, const Place& place);

  // From anywhere.
  void store(const Option& option, const std::string& text, const Place& place);
  void store_list(const Option& option, const Entries& entries, const Place& place);
  void store_property(const Option& option, const std::string& name, const std::string& value, const Place& place);
  void wrong(const Option& option, const Place& place, const std::string& what, const std::string& hint);

  // What can be judged only when everything is known.
  bool good(std::string_view section, std::string_view key) const;
  Place place_of(std::string_view section, std::string_view key) const;
  void check_required(Required required);
  void check_passwords();
  void check_sizes();
  void settle_consumer();
  void settle_topics();
  void settle_properties();

  Config config_;
  Mistakes mistakes_;
  std::string file_;           // as it is named in messages; empty: none was read
  bool file_is_known_ = true;  // false: there is one, but it could not be parsed
  std::map<std::string, Place, std::less<>> sections_;
  std::map<const Option*, Place> given_;  // every option that is set, rightly or wrongly
  std::set<const Option*> bad_;           // those of them that are wrong
  std::map<std::string, Property> properties_;
};

}  // namespace outbox::config
