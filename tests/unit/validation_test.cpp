// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/validation.h"

#include <gtest/gtest.h>

namespace relay::kafka {
namespace {

class MessageErrorTest : public testing::Test {
 protected:
  std::string error_class() const {
    const auto error = message_error(message, 3, page, topic, options);
    if (error) {
      EXPECT_EQ(error->index, 3U);
      EXPECT_EQ(error->seq, 40);
    }
    return error ? error->error_class : "";
  }
  MessageErrorTest() {
    message.seq = 40;
    message.topic = "t";
    message.key = "key";
    message.payload = "payload";
    message.payload_bytes = 7;
  }

  Page page;
  Message message;
  TopicInfo topic;
  Options options;
};

TEST_F(MessageErrorTest, AMessageIsGoodWhileNothingIsKnownOfTheTopic) {
  EXPECT_EQ(error_class(), "");
}

TEST_F(MessageErrorTest, TheLimitOfTheTopicCountsTheWholeRecord) {
  topic.bytes_max = record_bytes(message, page);
  EXPECT_EQ(error_class(), "");
  --topic.bytes_max;
  EXPECT_EQ(error_class(), "too_large");
}

TEST_F(MessageErrorTest, HeadersAndDeduplicationKeyArePartOfTheRecord) {
  const auto without = record_bytes(message, page);
  page.headers.push_back({"name", "value"});
  message.headers_to = 1;
  EXPECT_GE(record_bytes(message, page), without + 9);
  message.dedup_key = std::string_view("a deduplication key that is longer than a UUID is");
  EXPECT_GT(record_bytes(message, page), without + 9 + 5);
}

TEST_F(MessageErrorTest, WhatStayedOnTheServerIsTooLarge) {
  message.oversize = true;
  message.payload_bytes = 5'000'000;
  EXPECT_EQ(error_class(), "too_large");
}

TEST_F(MessageErrorTest, HeadersThatCannotBeSentAreNamed) {
  message.bad_headers = "headers is no JSON object";
  EXPECT_EQ(error_class(), "bad_headers");
}

}  // namespace
}  // namespace relay::kafka
