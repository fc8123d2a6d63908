// SPDX-License-Identifier: Apache-2.0
// Parsing and formatting of single values: units, lists, names. Each error is what follows the
// value in a sentence ("has no unit") and how to write it; the caller adds the value, unless it is
// a secret, and its position.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "relay/base/clock.h"
#include "relay/base/error.h"

namespace relay::config {

// An integer and one of ms, s, m, h, d: "20ms".
Result<Millis> parse_duration(std::string_view text);
// An integer and one of B, kB, MB, GB, KiB, MiB, GiB: "8MiB". In bytes.
Result<std::int64_t> parse_size(std::string_view text);
Result<std::int64_t> parse_integer(std::string_view text);
// true or false, nothing else.
Result<bool> parse_boolean(std::string_view text);

// The exact value in the largest unit that divides it. Parsing the result gives the same value.
std::string format_duration(Millis value);
std::string format_size(std::int64_t bytes);

// Splits at commas and trims spaces; `\,` is a comma of the value, `\\` a backslash. Empty entries
// are kept.
std::vector<std::string> split_list(std::string_view text);

// `text` in double quotes for a message: control characters escaped, long text truncated. Never for
// a secret.
std::string in_quotes(std::string_view text);

// The candidate that `word` most likely misspells, if any is similar enough.
std::optional<std::string> nearest(std::string_view word,
                                   const std::vector<std::string>& candidates);

// [a-z0-9._-]{1,64}: the name is part of a topic name and of transactional.id.
Result<void> check_relay_name(std::string_view name);
// A name that Kafka accepts for a topic.
Result<void> check_topic_name(std::string_view name);
Result<void> check_progress_topic_name(std::string_view name);
// A topic name, a prefix of one followed by `*`, or `*`.
Result<void> check_topic_pattern(std::string_view pattern);
// host, host:port or PROTOCOL://host:port.
Result<void> check_broker(std::string_view broker);

}  // namespace relay::config
