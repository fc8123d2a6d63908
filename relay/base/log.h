// SPDX-License-Identifier: Apache-2.0
// Log lines are events with fields: one per state change, one summary a minute under trouble, none
// per message.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

namespace relay::log {

enum class Level { debug, info, warn, error };
enum class Format { text, json };

// One named value of an event. Text is escaped when it is written, so it may come from outside.
struct Field {
  template <class T>
  Field(std::string_view field_name, const T& v) : name(field_name) {
    if constexpr (std::is_same_v<T, bool>) value = v;
    else if constexpr (std::is_integral_v<T>) value = static_cast<std::int64_t>(v);
    else if constexpr (std::is_floating_point_v<T>) value = static_cast<double>(v);
    else value = std::string(v);
  }
  std::string_view name;
  std::variant<std::string, std::int64_t, double, bool> value;
};

// Sends all later events to standard error in `format`, dropping those below `level`. Called once,
// before any thread starts; without it events are written as text at level info.
void start(Format format, Level level);

// Changes what is dropped. May be called from any thread.
void set_level(Level level);

// Writes one line. `name` is a short stable identifier in snake_case ("state_changed",
// "batch_recovered"). May be called from any thread.
void event(Level level, std::string_view name, std::initializer_list<Field> fields = {});

}  // namespace relay::log
