// SPDX-License-Identifier: Apache-2.0
// Names: the same rules for the application that writes a message, the relay that sends it, and the consumer.
#pragma once

#include <algorithm>
#include <string_view>

namespace outbox::common {

inline constexpr std::size_t dedup_key_bytes_max = 1024;
inline constexpr std::size_t key_bytes_max = 1 << 20;
inline constexpr std::size_t headers_bytes_max = 1 << 20;  // as JSON text

// Whether Kafka allows a topic of this name.
inline bool valid_topic_name(std::string_view name) {
  if (name.empty() || name.size() > 249 || name == "." || name == "..") return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

// Whether applications may not set this header: dedup-key, sent-at, outbox-* and effect-* are the relay's and the ledger's.
inline bool reserved_header(std::string_view name) {
  return name == "dedup-key" || name == "sent-at" || name.starts_with("outbox-") || name.starts_with("effect-");
}

// Whether `name` fits a pattern that may end in * (a prefix) or begin with * (a suffix), for properties of librdkafka.
inline bool matches_pattern(std::string_view pattern, std::string_view name) {
  if (pattern.ends_with('*')) return name.starts_with(pattern.substr(0, pattern.size() - 1));
  if (pattern.starts_with('*')) return name.ends_with(pattern.substr(1));
  return pattern == name;
}

}  // namespace outbox::common
