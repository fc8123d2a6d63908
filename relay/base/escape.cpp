// SPDX-License-Identifier: Apache-2.0
#include "relay/base/escape.h"

#include "common/hex.h"
#include "common/utf8.h"

namespace relay {
namespace {

// Length of the character that `text` begins with; 0: it is a control character, or none.
std::size_t printable_character(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x20 || first == 0x7F) return 0;
  const std::size_t length = outbox::common::utf8_character(text);
  const bool c1 = length == 2 && first == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0;
  return c1 ? 0 : length;
}

std::string escaped_byte(char c) {
  switch (c) {
    case '\n': return "\\n";
    case '\t': return "\\t";
    case '\r': return "\\r";
    default: return "\\x" + outbox::common::hex(std::string_view(&c, 1));
  }
}

}  // namespace

std::string escape(std::string_view text, Escape how) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const char c = text[0];
    const std::size_t length = printable_character(text);
    if (length == 0) {
      const bool kept = how == Escape::lines && (c == '\n' || c == '\t');
      out += kept ? std::string(1, c) : escaped_byte(c);
    } else {
      if (how == Escape::quoted && (c == '"' || c == '\\')) out += '\\';
      out += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

}  // namespace relay
