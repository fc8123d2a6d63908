// SPDX-License-Identifier: Apache-2.0
#include "relay/core/headers.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

TEST(HeadersTest, AreDecodedIntoThePageThatOwnsThem) {
  Page page;
  Message first;
  Message second;
  decode_headers(R"({"a": "1", "b": "\u00e9"})", first, page);
  decode_headers(R"({"c": ""})", second, page);
  ASSERT_EQ(page.headers.size(), 3U);
  EXPECT_EQ(first.headers_from, 0U);
  EXPECT_EQ(first.headers_to, 2U);
  EXPECT_EQ(page.headers[0].name, "a");
  EXPECT_EQ(page.headers[1].value, "\u00e9");
  EXPECT_EQ(second.headers_from, 2U);
  EXPECT_EQ(second.headers_to, 3U);
  EXPECT_EQ(page.headers[2].value, "");
  EXPECT_EQ(first.bad_headers, nullptr);
}

TEST(HeadersTest, NoneIsAnEmptyRange) {
  Page page;
  Message m;
  decode_headers("{}", m, page);
  EXPECT_EQ(m.headers_from, m.headers_to);
  EXPECT_EQ(m.bad_headers, nullptr);
}

TEST(HeadersTest, WhatCannotBeSentIsNamedAndHasNoHeaders) {
  for (const char* json : {"[]", "3", R"({"a": 1})", R"({"a": null})", R"({"dedup-key": "x"})",
                           R"({"sent-at": "x"})", R"({"outbox-x": "x"})", R"({"effect-x": "x"})"}) {
    Page page;
    Message m;
    decode_headers(json, m, page);
    EXPECT_NE(m.bad_headers, nullptr) << json;
    EXPECT_EQ(m.headers_from, m.headers_to) << json;
  }
}

TEST(HeadersTest, TheMarkOfAReplayIsAllowed) {
  Page page;
  Message m;
  decode_headers(R"({"outbox-replay": "7"})", m, page);
  EXPECT_EQ(m.bad_headers, nullptr);
  EXPECT_EQ(m.headers_to, 1U);
}

}  // namespace
}  // namespace relay
