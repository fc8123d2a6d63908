// SPDX-License-Identifier: Apache-2.0
// Rules for names and their limits, shared by the application that writes a message, the relay that
// publishes it and the consumer. Pure functions.
#pragma once

#include <algorithm>
#include <string_view>

namespace outbox::common {

inline constexpr std::size_t dedup_key_bytes_max = 1024;
inline constexpr std::size_t key_bytes_max = 1 << 20;
inline constexpr std::size_t headers_bytes_max = 1 << 20;  // as JSON text

// Whether Kafka allows the topic name.
inline bool valid_topic_name(std::string_view name) {
  if (name.empty() || name.size() > 249 || name == "." || name == "..") return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

// Whether the header is reserved for the relay and the ledger: dedup-key, sent-at, outbox-*,
// effect-*.
inline bool reserved_header(std::string_view name) {
  return name == "dedup-key" || name == "sent-at" || name.starts_with("outbox-") ||
         name.starts_with("effect-");
}

// Whether `name` matches a librdkafka property pattern: "prefix*", "*suffix" or an exact name.
inline bool matches_pattern(std::string_view pattern, std::string_view name) {
  if (pattern.ends_with('*')) return name.starts_with(pattern.substr(0, pattern.size() - 1));
  if (pattern.starts_with('*')) return name.ends_with(pattern.substr(1));
  return pattern == name;
}

}  // namespace outbox::common
