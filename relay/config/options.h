// SPDX-License-Identifier: Apache-2.0
// The table of options. The parser, --help, config/relay.toml and docs/configuration.md are
// generated from it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "relay/config/config.h"

namespace relay::config {

enum class Type { text, choice, integer, boolean, duration, size, list, secret_file, properties };

// Sets and gets a member that is an enum, by the index of the option's choice.
struct ChoiceMember {
  void (*set)(Config&, std::size_t index);
  std::size_t (*get)(const Config&);
};

// The member that stores the value. The alternative matches the type of the option; properties have
// none.
using Member = std::variant<std::monostate, std::string& (*)(Config&), Secret& (*)(Config&),
                            std::int64_t& (*)(Config&), bool& (*)(Config&), Millis& (*)(Config&),
                            std::vector<std::string>& (*)(Config&), ChoiceMember>;

struct Option {
  std::string_view section;
  std::string_view key;
  Type type = Type::text;
  Member member = {};
  std::string_view standard = {};  // the default, as in the environment; empty: none
  std::string_view derived = {};   // a default that is derived from other options, in words
  std::string_view example = {};   // for an option without a default, as in the file
  std::int64_t min = 0;            // of an integer, a duration (in ms) or a size (in bytes)
  std::int64_t max = 0;
  std::span<const std::string_view> choices = {};
  Result<void> (*check)(std::string_view value) = nullptr;  // of a text, or of each entry of a list
  bool required = false;
  bool reloadable = false;  // a running relay applies a new value without a restart
  bool secret = false;      // its value is never shown
  std::string_view help = {};
};

struct Section {
  std::string_view name;
  std::string_view help;
};

// In the order of the documentation; options of one section are consecutive.
std::span<const Option> options();
std::span<const Section> sections();

// nullptr: there is none.
const Option* find(std::string_view section, std::string_view key);

// "poll.idle"
std::string full_name(const Option& option);
// "OUTBOX_RELAY_POLL_IDLE"
std::string environment_name(const Option& option);
// "duration", "one of text, json", …
std::string type_name(const Option& option);
// "1ms to 10s"; empty: no range.
std::string range_text(const Option& option);
// The help, ending with "Defaults to …" if there is a default.
std::string help_of(const Option& option);

// Parses `text` and stores it in the member. An error is what follows the value in a sentence, as
// in parse.h; of a secret file, the whole sentence. REQUIRES: the type is neither list nor
// properties.
Result<void> assign(const Option& option, const std::string& text, Config& config);

// Checks one entry of a list.
Result<void> check_entry(const Option& option, const std::string& entry);

}  // namespace relay::config
