// SPDX-License-Identifier: Apache-2.0
// Converts external bytes (reasons, header names) to text that PostgreSQL can store.
// Pure function; never fails.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "common/utf8.h"

namespace outbox::consumer {

// Replaces each invalid byte, zero bytes included, by "?", and truncates to `bytes_max` at a
// character boundary.
inline std::string sanitize_utf8(std::string_view bytes, std::size_t bytes_max = 4'000) {
  std::string text;
  while (!bytes.empty()) {
    const std::size_t length = bytes[0] == '\0' ? 0 : common::utf8_character(bytes);
    const std::size_t taken = std::max<std::size_t>(length, 1);
    if (text.size() + taken > bytes_max) break;
    text += length == 0 ? std::string_view("?") : bytes.substr(0, taken);
    bytes.remove_prefix(taken);
  }
  return text;
}

}  // namespace outbox::consumer
