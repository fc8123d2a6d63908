// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace relay {

// A UUID as 16 bytes in network order, as PostgreSQL sends it in binary.
struct Uuid {
  std::array<std::uint8_t, 16> bytes{};

  // A random UUID (version 4) from the kernel's generator.
  static Uuid random();
  // Parses the usual 36 characters; nothing else.
  static std::optional<Uuid> parse(std::string_view text);
  std::string text() const;
  // Writes the 36 characters to `out`, without a terminating zero: the hot path's form.
  void write(char* out) const;

  friend bool operator==(const Uuid&, const Uuid&) = default;
};

}  // namespace relay
