// SPDX-License-Identifier: Apache-2.0
#include "common/utf8.h"

#include <gtest/gtest.h>

#include <string>

#include "client/consumer/sanitize_utf8.h"
#include "common/hex.h"

namespace relay {
namespace {

TEST(Utf8, DistinguishesCharactersFromOtherBytes) {
  for (const char* good : {"", "61", "c3a4", "e282ac", "f09f9880", "f48fbfbf", "ee8080"}) {
    EXPECT_TRUE(outbox::common::is_utf8(outbox::common::unhex(good))) << good;
  }
  // A stray byte, overlong forms, surrogates, above U+10FFFF, cut off.
  for (const char* bad : {"80", "ff", "c080", "c1bf", "e08080", "f0808080", "eda080", "f4908080",
                          "f5808080", "c3", "e282", "61c3"}) {
    EXPECT_FALSE(outbox::common::is_utf8(outbox::common::unhex(bad))) << bad;
  }
}

TEST(Utf8, AZeroByteIsNoTextForPostgreSQL) {
  EXPECT_TRUE(outbox::common::is_utf8(std::string_view("a\0b", 3)));
  EXPECT_FALSE(outbox::common::is_text(std::string_view("a\0b", 3)));
  EXPECT_EQ(outbox::consumer::sanitize_utf8(std::string_view("a\0b\xff\xc3\xa4", 6)),
            "a?b?\xc3\xa4");
  EXPECT_EQ(outbox::consumer::sanitize_utf8("abc\xc3\xa4", 4), "abc")
      << "no half character at the end";
}

TEST(Hex, ThereAndBack) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(outbox::common::unhex(outbox::common::hex(all)), all);
}

}  // namespace
}  // namespace relay
