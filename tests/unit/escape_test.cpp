// SPDX-License-Identifier: Apache-2.0
#include "relay/base/escape.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

TEST(Escape, TextStaysAsItIs) {
  EXPECT_EQ(escape(""), "");
  EXPECT_EQ(escape("grün €😀 \"a\\b\""), "grün €😀 \"a\\b\"");
}

TEST(Escape, NoControlCharacterReachesATerminal) {
  EXPECT_EQ(escape("a\nb\tc\rd"), R"(a\nb\tc\rd)");
  EXPECT_EQ(escape("\x1b[31m"), R"(\x1b[31m)");
  EXPECT_EQ(escape("\x7f"), R"(\x7f)");
  EXPECT_EQ(escape("\xc2\x9b"
                   "1m"),
            R"(\xc2\x9b1m)");  // CSI as a C1 control character
  EXPECT_EQ(escape(std::string_view("a\0b", 3)), R"(a\x00b)");
}

TEST(Escape, BytesThatAreNotUtf8AreShown) {
  EXPECT_EQ(escape("a\xff"), R"(a\xff)");
  EXPECT_EQ(escape("\xc3"), R"(\xc3)");
  EXPECT_EQ(escape("\xc0\xaf"), R"(\xc0\xaf)");
  EXPECT_EQ(escape("\xed\xa0\x80"), R"(\xed\xa0\x80)");
}

TEST(Escape, LinesAreKeptOnRequest) {
  EXPECT_EQ(escape("a\nb\tc\rd\x1b", Escape::lines), "a\nb\tc\\rd\\x1b");
}

TEST(Escape, QuotesCanEncloseTheResult) {
  EXPECT_EQ(escape("say \"x\"\n", Escape::quoted), R"(say \"x\"\n)");
  EXPECT_EQ(escape(R"(back\slash)", Escape::quoted), R"(back\\slash)");
}

}  // namespace
}  // namespace relay
