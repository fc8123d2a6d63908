// SPDX-License-Identifier: Apache-2.0
// Lower-case hexadecimal digits, for bytea values and keys. Pure functions.
#pragma once

#include <string>
#include <string_view>

namespace outbox::common {

inline constexpr char hex_digits[] = "0123456789abcdef";

// Encodes each byte as two digits.
inline std::string hex(std::string_view bytes) {
  std::string out;
  out.reserve(2 * bytes.size());
  for (const char c : bytes) {
    out += hex_digits[static_cast<unsigned char>(c) >> 4];
    out += hex_digits[static_cast<unsigned char>(c) & 15];
  }
  return out;
}

// Decodes such digits. REQUIRES: lower-case hexadecimal digits, as returned by encode() of
// PostgreSQL.
inline std::string unhex(std::string_view digits) {
  const auto value = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string out;
  out.reserve(digits.size() / 2);
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) {
    out += static_cast<char>(value(digits[i]) * 16 + value(digits[i + 1]));
  }
  return out;
}

}  // namespace outbox::common
