// SPDX-License-Identifier: Apache-2.0
// The choices that decide how messages are delivered, and their names in the configuration and in
// the journal.
#pragma once

#include <optional>
#include <string_view>

namespace relay {

// What a consumer may see of a batch that was in doubt: one copy (one Kafka transaction per batch),
// or also a repeat.
enum class Mode { exactly_once, at_least_once };

// What a parked message holds back: the later messages of its key, or nothing.
enum class KeyOrder { key, message };

// What to do with a batch in doubt when Kafka has lost the progress records that would settle it.
enum class OnLostProgress { resend, stop };

constexpr const char* to_string(Mode mode) {
  return mode == Mode::exactly_once ? "exactly-once" : "at-least-once";
}
constexpr const char* to_string(KeyOrder order) {
  return order == KeyOrder::key ? "key" : "message";
}
constexpr const char* to_string(OnLostProgress answer) {
  return answer == OnLostProgress::resend ? "resend" : "stop";
}

// Each parses exactly what to_string gives; nullopt for anything else.
constexpr std::optional<Mode> parse_mode(std::string_view text) {
  for (const Mode mode : {Mode::exactly_once, Mode::at_least_once}) {
    if (text == to_string(mode)) return mode;
  }
  return std::nullopt;
}

constexpr std::optional<KeyOrder> parse_key_order(std::string_view text) {
  for (const KeyOrder order : {KeyOrder::key, KeyOrder::message}) {
    if (text == to_string(order)) return order;
  }
  return std::nullopt;
}

constexpr std::optional<OnLostProgress> parse_on_lost_progress(std::string_view text) {
  for (const OnLostProgress answer : {OnLostProgress::resend, OnLostProgress::stop}) {
    if (text == to_string(answer)) return answer;
  }
  return std::nullopt;
}

}  // namespace relay
