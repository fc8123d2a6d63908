// SPDX-License-Identifier: Apache-2.0
// Validation of UTF-8, as PostgreSQL does it. Pure functions.
#pragma once

#include <cstddef>
#include <string_view>

namespace outbox::common {

// Length of the UTF-8 character at the beginning of `bytes`; 0: none. REQUIRES: !bytes.empty().
inline std::size_t utf8_character(std::string_view bytes) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || bytes.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  const bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool outside = (first == 0xED && second > 0x9F) ||
                       (first == 0xF4 && second > 0x8F);  // surrogates, above U+10FFFF
  return overlong || outside ? 0 : length;
}

inline bool is_utf8(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t length = utf8_character(bytes);
    if (length == 0) return false;
    bytes.remove_prefix(length);
  }
  return true;
}

// Whether PostgreSQL accepts the bytes as text: UTF-8 without a zero byte.
inline bool is_text(std::string_view bytes) {
  return bytes.find('\0') == std::string_view::npos && is_utf8(bytes);
}

}  // namespace outbox::common
