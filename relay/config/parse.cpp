// SPDX-License-Identifier: Apache-2.0
#include "relay/config/parse.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <span>

#include "common/names.h"
#include "relay/base/escape.h"
#include "relay/config/errors.h"

namespace relay::config {
namespace {

struct Unit {
  std::string_view name;
  std::int64_t factor;
};

// Ascending, so that formatting finds the largest one that divides.
constexpr std::array duration_units = {Unit{"ms", 1}, Unit{"s", 1'000}, Unit{"m", 60'000},
                                       Unit{"h", 3'600'000}, Unit{"d", 86'400'000}};
constexpr std::array size_units = {
    Unit{"B", 1},         Unit{"kB", 1'000},         Unit{"KiB", 1 << 10}, Unit{"MB", 1'000'000},
    Unit{"MiB", 1 << 20}, Unit{"GB", 1'000'000'000}, Unit{"GiB", 1 << 30}};

constexpr const char* duration_hint =
    R"(write an integer and its unit, without a space: "20ms", "5s", "1m", "24h" or "7d".)";
constexpr const char* size_hint =
    R"(write an integer and its unit, without a space: "500B", "1KiB", "8MiB", or "1kB", "8MB".)";

Result<std::int64_t> parse_with_unit(std::string_view text, std::span<const Unit> units,
                                     const char* hint) {
  std::int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, failure] = std::from_chars(text.data(), end, number);
  if (failure == std::errc::result_out_of_range) return usage_error("is too large", hint);
  if (failure != std::errc{}) return usage_error("does not begin with a whole number", hint);
  if (number < 0) return usage_error("is negative", hint);
  const std::string_view name(rest, static_cast<std::size_t>(end - rest));
  if (name.empty()) return usage_error("has no unit", hint);
  const auto unit =
      std::find_if(units.begin(), units.end(), [&](const Unit& u) { return u.name == name; });
  if (unit == units.end())
    return usage_error(fmt::format("has the unit {}, which does not exist", in_quotes(name)), hint);
  if (number > std::numeric_limits<std::int64_t>::max() / unit->factor)
    return usage_error("is too large", hint);
  return number * unit->factor;
}

std::string format_with_unit(std::int64_t value, std::span<const Unit> units) {
  const auto unit = value == 0 ? units.rend() - 1
                               : std::find_if(units.rbegin(), units.rend(),
                                              [&](const Unit& u) { return value % u.factor == 0; });
  return fmt::format("{}{}", value / unit->factor, unit->name);
}

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

// The edit distance of two words: letters inserted, deleted, replaced, or swapped with the next
// one.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min(
          {d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d.back().back();
}

bool is_lower_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_punctuation(char c) { return c == '.' || c == '_' || c == '-'; }

constexpr const char* topic_hint =
    "Kafka allows 1 to 249 letters, digits, '.', '_' and '-', but not \".\" or \"..\".";

}  // namespace

Result<Millis> parse_duration(std::string_view text) {
  const auto value = parse_with_unit(text, duration_units, duration_hint);
  if (!value) return value.error();
  return Millis{*value};
}

Result<std::int64_t> parse_size(std::string_view text) {
  return parse_with_unit(text, size_units, size_hint);
}

Result<std::int64_t> parse_integer(std::string_view text) {
  std::int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, failure] = std::from_chars(text.data(), end, number);
  if (failure == std::errc::result_out_of_range)
    return usage_error("is too large", "write a smaller number.");
  if (failure != std::errc{} || rest != end)
    return usage_error("is not a whole number", "write digits only, such as 20000.");
  return number;
}

Result<bool> parse_boolean(std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return usage_error("is neither true nor false", "write true or false.");
}

std::string format_duration(Millis value) {
  return format_with_unit(value.count(), duration_units);
}

std::string format_size(std::int64_t bytes) { return format_with_unit(bytes, size_units); }

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> entries(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escapes =
        text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == ',' || text[i + 1] == '\\');
    if (escapes) entries.back() += text[++i];
    else if (text[i] == ',') entries.emplace_back();
    else entries.back() += text[i];
  }
  for (std::string& entry : entries) entry = std::string(trim(entry));
  return entries;
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t shown_max = 80;
  std::size_t shown = std::min(text.size(), shown_max);
  while (shown > 0 && shown < text.size() &&
         (static_cast<unsigned char>(text[shown]) & 0xC0U) == 0x80U)
    --shown;
  return '"' + escape(text.substr(0, shown)) + (text.size() > shown_max ? "…\"" : "\"");
}

std::optional<std::string> nearest(std::string_view word,
                                   const std::vector<std::string>& candidates) {
  constexpr std::size_t longest_name =
      100;  // longer words are not misspellings, and the cost is quadratic
  if (word.size() > longest_name) return std::nullopt;
  const std::size_t limit = std::min<std::size_t>(3, std::max<std::size_t>(1, word.size() / 3));
  std::optional<std::string> best;
  std::size_t best_distance = limit + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t d = distance(word, candidate);
    if (d < best_distance && d < candidate.size()) {
      best = candidate;
      best_distance = d;
    }
  }
  return best;
}

Result<void> check_relay_name(std::string_view name) {
  const bool good = !name.empty() && name.size() <= 64 &&
                    std::all_of(name.begin(), name.end(),
                                [](char c) { return is_lower_or_digit(c) || is_punctuation(c); });
  if (good) return {};
  return usage_error("is not a name for a relay",
                     "use 1 to 64 of a-z, 0-9, '.', '_' and '-': the name becomes part of a topic "
                     "and of transactional.id.");
}

Result<void> check_topic_name(std::string_view name) {
  if (outbox::common::valid_topic_name(name)) return {};
  return usage_error("is not a name for a topic", topic_hint);
}

Result<void> check_progress_topic_name(std::string_view name) {
  if (auto r = check_topic_name(name); !r) return r;
  if (name.starts_with("outbox-progress.")) return {};
  return usage_error("does not begin with outbox-progress.",
                     "write \"outbox-progress.NAME\": no relay sends messages to such a topic, "
                     "whatever its topics.allow is.");
}

Result<void> check_topic_pattern(std::string_view pattern) {
  if (pattern == "*") return {};
  if (!pattern.ends_with('*')) return check_topic_name(pattern);
  pattern.remove_suffix(1);
  if (outbox::common::valid_topic_name(std::string(pattern) + 'x')) return {};
  return usage_error(
      "is not a prefix of a topic's name",
      "write a name, a prefix with one * at its end (\"shop.*\"), or \"*\" alone for every topic.");
}

Result<void> check_broker(std::string_view broker) {
  constexpr const char* hint = "write host:port, such as \"kafka1:9092\"; more than one as a list.";
  const bool printable =
      std::all_of(broker.begin(), broker.end(), [](char c) { return c > ' ' && c < 0x7F; });
  if (broker.empty() || !printable) return usage_error("is not the address of a broker", hint);
  if (const auto scheme = broker.find("://"); scheme != std::string_view::npos)
    broker.remove_prefix(scheme + 3);
  const auto colon = broker.rfind(':');
  const auto bracket = broker.rfind(']');  // of an IPv6 address, whose own colons stand before it
  if (bracket != std::string_view::npos && (colon == std::string_view::npos || colon < bracket))
    return {};
  if (colon == std::string_view::npos && !broker.empty()) return {};
  if (colon == std::string_view::npos || colon == 0) return usage_error("names no host", hint);
  const auto port = parse_integer(broker.substr(colon + 1));
  if (port && *port >= 1 && *port <= 65535) return {};
  return usage_error("has a port that is not a number from 1 to 65535", hint);
}

}  // namespace relay::config
