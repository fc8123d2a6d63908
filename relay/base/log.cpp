// SPDX-License-Identifier: Apache-2.0
#include "relay/base/log.h"

#include <poll.h>
#include <spdlog/fmt/chrono.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <ctime>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>

#include "relay/base/escape.h"

namespace relay::log {
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

// Writes whole lines to standard error, one at a time and unbuffered: the last line before a crash
// is the one that matters.
//
// Nobody may be there to read them, and a disk may be full: what is not taken at once is left out,
// for a log line must never be the reason why a relay waits. A pipe that is ready takes PIPE_BUF
// bytes without waiting.
class Sink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  std::atomic<std::int64_t> suppressed = 0;  // lines, since that was logged

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    std::string line = torn_ ? "\n" : "";
    line.append(message.payload.data(), message.payload.size()).append("\n");
    const std::size_t written = write_what_is_taken(line);
    if (written > 0) torn_ = written < line.size();
    if (written < line.size()) ++suppressed;
  }
  void flush_() override {}

  static std::size_t write_what_is_taken(const std::string& line) {
    std::size_t at = 0;
    while (at < line.size()) {
      pollfd out{STDERR_FILENO, POLLOUT, 0};
      if (::poll(&out, 1, 0) < 1 || (out.revents & POLLOUT) == 0) break;
      const ssize_t n = ::write(STDERR_FILENO, line.data() + at,
                                std::min<std::size_t>(line.size() - at, PIPE_BUF));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      at += static_cast<std::size_t>(n);
    }
    return at;
  }

  bool torn_ = false;  // the last line has no end
};

struct Output {
  Output() { lines.set_pattern("%v"); }
  Format format = Format::text;
  std::atomic<Level> level = Level::info;
  std::shared_ptr<Sink> sink = std::make_shared<Sink>();
  spdlog::logger lines{"", sink};
};

// Never destroyed, so that a thread may still log while the process ends.
Output& output() {
  static Output& instance = *new Output;
  return instance;
}

std::string now_utc() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds =
      std::chrono::system_clock::to_time_t(std::chrono::floor<std::chrono::seconds>(now));
  const auto millis =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", utc, millis);
}

// Values come from outside: none may end the line, forge a second one, or drive the operator's
// terminal.
void append_value(std::string& line, std::string_view value) {
  const std::string escaped = escape(value, Escape::quoted);
  const bool plain = !value.empty() && escaped.size() == value.size() &&
                     value.find_first_of(" =") == std::string_view::npos;
  line += plain ? escaped : '"' + escaped + '"';
}

std::string as_text(Level level, std::string_view name, std::initializer_list<Field> fields) {
  std::string line = fmt::format("{} {:<5} {}", now_utc(), name_of(level), name);
  for (const Field& field : fields) {
    line += ' ';
    line += field.name;
    line += '=';
    std::visit(
        [&](const auto& value) {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string>)
            append_value(line, value);
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
  // A byte that is no UTF-8 would throw without `replace`, and a log line must never be the reason
  // why a relay stops. ASCII only: JSON leaves DEL and the C1 control characters alone, a terminal
  // does not.
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
  if (const auto lines = out.sink->suppressed.exchange(0); lines > 0) {
    log::event(Level::error, "log_lines_dropped", {{"lines", lines}});
    if (out.sink->suppressed > 0) out.sink->suppressed += lines - 1;  // nor was that line taken
  }
  // Through spdlog's highest level: what is dropped was decided above, once.
  out.lines.log(spdlog::level::critical, out.format == Format::json ? as_json(level, name, fields)
                                                                    : as_text(level, name, fields));
}

}  // namespace relay::log
