// SPDX-License-Identifier: Apache-2.0
// Bytes that came from outside and are to become text in the database.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace outbox::consumer {

// Length of the UTF-8 character that `bytes` begins with; 0: it begins with none that PostgreSQL takes (a zero byte is none).
inline std::size_t character_at(std::string_view bytes) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = byte(0);
  if (first == 0) return 0;
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || bytes.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  const bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool outside = (first == 0xED && second > 0x9F) || (first == 0xF4 && second > 0x8F);  // surrogates, above U+10FFFF
  return overlong || outside ? 0 : length;
}

inline bool is_text(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t length = character_at(bytes);
    if (length == 0) return false;
    bytes.remove_prefix(length);
  }
  return true;
}

// The same with a ? for each byte that is no text, cut off where it is longer than `bytes_max`.
inline std::string made_text(std::string_view bytes, std::size_t bytes_max = 4'000) {
  std::string text;
  while (!bytes.empty()) {
    const std::size_t length = character_at(bytes);
    const std::size_t taken = std::max<std::size_t>(length, 1);
    if (text.size() + taken > bytes_max) break;
    text += length == 0 ? std::string_view("?") : bytes.substr(0, taken);
    bytes.remove_prefix(taken);
  }
  return text;
}

}  // namespace outbox::consumer
