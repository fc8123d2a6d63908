// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/topic_rules.h"

#include <gtest/gtest.h>

namespace relay::kafka {
namespace {

std::string error_class(std::string_view name, const std::vector<std::string>& allow = {"*"}) {
  Options options;
  options.progress_topic = "progress";
  options.allow = allow;
  const auto error = forbidden_topic(name, options);
  return error ? error->error_class : "";
}

TEST(TopicRulesTest, PatternsAreNamesOrPrefixes) {
  EXPECT_TRUE(matches("orders", {"orders"}));
  EXPECT_FALSE(matches("orders.eu", {"orders"}));
  EXPECT_TRUE(matches("orders.eu", {"payments", "orders.*"}));
  EXPECT_FALSE(matches("orders", {"orders.*"}));
  EXPECT_TRUE(matches("anything", {"*"}));
  EXPECT_FALSE(matches("anything", {}));
}

TEST(TopicRulesTest, AnInvalidNameIsRefused) {
  EXPECT_EQ(error_class(""), "topic_invalid");
  EXPECT_EQ(error_class("with space"), "topic_invalid");
  EXPECT_EQ(error_class(std::string(250, 'x')), "topic_invalid");
  EXPECT_EQ(error_class(std::string(249, 'x')), "");
}

TEST(TopicRulesTest, InternalTopicsAreRefusedWhateverIsAllowed) {
  for (const char* name : {"__consumer_offsets", "progress", "outbox-progress.other"}) {
    EXPECT_EQ(error_class(name), "topic_not_allowed") << name;
  }
}

TEST(TopicRulesTest, WhatIsNotAllowedIsRefused) {
  EXPECT_EQ(error_class("orders", {"payments"}), "topic_not_allowed");
  EXPECT_EQ(error_class("orders", {"orders"}), "");
}

}  // namespace
}  // namespace relay::kafka
