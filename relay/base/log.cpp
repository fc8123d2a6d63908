// SPDX-License-Identifier: Apache-2.0
#include "relay/base/log.h"

#include <atomic>
#include <spdlog/fmt/chrono.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <chrono>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

namespace outbox::log {
namespace {

const char* name_of(Level level) {
  switch (level) {
    case Level::debug: return "debug";
    case Level::info: return "info";
    case Level::warn: return "warn";
    case Level::error: return "error";
  }
  return "error";
}

// Writes whole lines, one at a time and unbuffered: the last line before a crash is the one that matters.
struct Output {
  Output() { lines.set_pattern("%v"); }
  Format format = Format::text;
  std::atomic<Level> level = Level::info;
  spdlog::logger lines{"", std::make_shared<spdlog::sinks::stderr_sink_mt>()};
};

// Never destroyed, so that a thread may still log while the process ends.
Output& output() {
  static Output& instance = *new Output;
  return instance;
}

std::string now_utc() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(std::chrono::floor<std::chrono::seconds>(now));
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", utc, millis);
}

// The number of bytes of the well-formed UTF-8 character at the start of `text`; 0 if it is broken, or a C1 control
// character, which terminals obey like ESC.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  const unsigned lead = byte(0);
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) return 0;
  }
  const bool overlong = (lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xF0 && byte(1) < 0x90);
  const bool surrogate = lead == 0xED && byte(1) >= 0xA0;
  const bool beyond = lead == 0xF4 && byte(1) >= 0x90;
  const bool control = lead == 0xC2 && byte(1) < 0xA0;
  return overlong || surrogate || beyond || control ? 0 : length;
}

// Values come from outside: none may end the line, forge a second one, or drive the operator's terminal.
void append_value(std::string& line, std::string_view value) {
  std::string escaped;
  bool quote = value.empty();
  for (std::size_t i = 0; i < value.size();) {
    const auto c = static_cast<unsigned char>(value[i]);
    const std::size_t length = c < 0x80 ? 1 : utf8_length(value.substr(i));
    if (length == 0 || c < 0x20 || c == 0x7F) {
      quote = true;
      if (c == '\n') escaped += "\\n";
      else if (c == '\t') escaped += "\\t";
      else if (c == '\r') escaped += "\\r";
      else fmt::format_to(std::back_inserter(escaped), "\\x{:02x}", c);
      ++i;
      continue;
    }
    quote = quote || c == ' ' || c == '"' || c == '=' || c == '\\';
    if (c == '"' || c == '\\') escaped += '\\';
    escaped += value.substr(i, length);
    i += length;
  }
  if (quote) line += '"';
  line += escaped;
  if (quote) line += '"';
}

std::string as_text(Level level, std::string_view name, std::initializer_list<Field> fields) {
  std::string line = fmt::format("{} {:<5} {}", now_utc(), name_of(level), name);
  for (const Field& field : fields) {
    line += ' ';
    line += field.name;
    line += '=';
    std::visit(
        [&](const auto& value) {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string>) append_value(line, value);
          else fmt::format_to(std::back_inserter(line), "{}", value);
        },
        field.value);
  }
  return line;
}

std::string as_json(Level level, std::string_view name, std::initializer_list<Field> fields) {
  nlohmann::ordered_json object;
  object["time"] = now_utc();
  object["level"] = name_of(level);
  object["event"] = name;
  for (const Field& field : fields) {
    std::visit([&](const auto& value) { object[std::string(field.name)] = value; }, field.value);
  }
  // A byte that is no UTF-8 would throw without `replace`, and a log line must never be the reason why a relay stops.
  // ASCII only: JSON leaves DEL and the C1 control characters alone, a terminal does not.
  return object.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void start(Format format, Level level) {
  output().format = format;
  output().level = level;
}

void set_level(Level level) { output().level = level; }

void event(Level level, std::string_view name, std::initializer_list<Field> fields) {
  Output& out = output();
  if (level < out.level) return;
  // Through spdlog's highest level: what is dropped was decided above, once.
  out.lines.log(spdlog::level::critical,
                out.format == Format::json ? as_json(level, name, fields) : as_text(level, name, fields));
}

}  // namespace outbox::log
