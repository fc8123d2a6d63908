// SPDX-License-Identifier: Apache-2.0
// The rules of `check` about settings that one broker alone cannot show.
#include "relay/kafka/cluster_check.h"

#include <gtest/gtest.h>

namespace relay::kafka {
namespace {

const Requirements requirements{Mode::exactly_once, std::chrono::hours(24), 1 << 20};

std::string text_of(const std::vector<CheckResult>& findings) {
  std::string out;
  for (const CheckResult& f : findings) out += f.what + "\n";
  return out;
}
bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TopicFacts topic(int replicas, Settings settings) {
  return {"t", replicas, 3, std::move(settings)};
}

TEST(ClusterRules, CopiesOfATopic) {
  EXPECT_TRUE(contains(text_of(check_topic(topic(3, {{"min.insync.replicas", "1"}}), requirements)),
                       "min.insync.replicas = 1"));
  EXPECT_TRUE(contains(text_of(check_topic(topic(1, {{"min.insync.replicas", "1"}}), requirements)),
                       "one replica"));
  EXPECT_TRUE(contains(text_of(check_topic(topic(2, {{"min.insync.replicas", "3"}}), requirements)),
                       "nothing can be written"));
  EXPECT_TRUE(check_topic(topic(3, {{"min.insync.replicas", "2"}}), requirements).empty());
  // In a cluster of one broker it is said of the cluster.
  EXPECT_TRUE(check_topic({"t", 1, 1, {{"min.insync.replicas", "1"}}}, requirements).empty());
  EXPECT_TRUE(
      contains(text_of(check_progress_topic_settings(
                   {}, topic(3, {{"cleanup.policy", "compact"}, {"min.insync.replicas", "1"}}))),
               "min.insync.replicas = 1"));
}

TEST(ClusterRules, RetentionOfATopic) {
  const auto found = [](const char* policy, const char* retention) {
    return text_of(check_topic(topic(3, {{"cleanup.policy", policy}, {"retention.ms", retention}}),
                               requirements));
  };
  EXPECT_TRUE(contains(found("delete", "86000000"),
                       "keeps records for 23.8 h, the outbox keeps its messages for 24.0 h"));
  EXPECT_TRUE(contains(found("compact,delete", "1000"), "keeps records"));
  EXPECT_EQ(found("delete", "86400000"), "");
  EXPECT_EQ(found("delete", "-1"), "");
  EXPECT_FALSE(contains(found("compact", "1000"), "keeps records"));
}

TEST(ClusterRules, SizeOfMessages) {
  EXPECT_TRUE(
      contains(text_of(check_topic(topic(3, {{"max.message.bytes", "1048575"}}), requirements)),
               "larger messages are parked"));
  EXPECT_TRUE(check_topic(topic(3, {{"max.message.bytes", "1048588"}}), requirements).empty());
  EXPECT_TRUE(check_topic(topic(3, {{"max.message.bytes", "garbage"}}), requirements).empty());
}

TEST(ClusterRules, AVerifyingBrokerIsAskedForInExactlyOnceOnly) {
  const Requirements at_least_once{Mode::at_least_once, requirements.retention_keep,
                                   requirements.message_bytes_max};
  const char* const name = "transaction.partition.verification.enable";
  EXPECT_TRUE(contains(text_of(check_broker("1", {}, requirements)), "does not verify"));
  EXPECT_TRUE(
      contains(text_of(check_broker("1", {{name, "false"}}, requirements)), "enable = false"));
  EXPECT_TRUE(check_broker("1", {{name, "true"}}, requirements).empty());
  EXPECT_TRUE(check_broker("1", {{name, "false"}}, at_least_once).empty());
  EXPECT_TRUE(check_broker("1", {}, at_least_once).empty());
}

TEST(ClusterRules, TransactionsNeedALogThatCanBeWrittenTo) {
  const auto verdict = [](const TransactionLogFacts& facts) {
    const auto finding = check_transaction_log(facts);
    return finding ? finding->what : "";
  };
  const auto settings = [](const char* replicas, const char* in_sync) {
    return Settings{{"transaction.state.log.replication.factor", replicas},
                    {"transaction.state.log.min.isr", in_sync}};
  };
  EXPECT_TRUE(contains(verdict({1, 0, 0, 0, settings("3", "2"), {}}),
                       "replication.factor = 3, and there are 1 of them"));
  EXPECT_TRUE(contains(verdict({1, 0, 0, 0, settings("1", "2"), {}}),
                       "min.isr = 2, and transaction.state.log.replication.factor = 1"));
  EXPECT_EQ(verdict({1, 0, 0, 0, settings("1", "1"), {}}), "");
  EXPECT_EQ(verdict({3, 0, 0, 0, settings("3", "2"), {}}), "");
  EXPECT_EQ(verdict({1, 0, 0, 0, {}, {}}), "");
  EXPECT_TRUE(
      contains(verdict({3, 50, 7, 0, {}, {{"min.insync.replicas", "2"}}}), "7 of 50 partitions"));
  EXPECT_TRUE(contains(verdict({3, 50, 0, 1, {}, {{"min.insync.replicas", "2"}}}),
                       "min.insync.replicas = 2, and a partition with 1 in sync"));
  EXPECT_EQ(verdict({3, 50, 0, 2, {}, {{"min.insync.replicas", "2"}}}), "");
}

TEST(ClusterRules, AProgressTopicIsCompactedAndNothingElse) {
  Options options;
  options.progress_topic = "outbox-progress.main";
  const auto severity = [&](const char* policy) {
    const auto findings =
        check_progress_topic_settings(options, topic(3, {{"cleanup.policy", policy}}));
    return findings.empty() ? Severity::note : findings[0].severity;
  };
  EXPECT_EQ(severity("delete"), Severity::refused);
  EXPECT_EQ(severity("delete,compact"), Severity::finding);
  EXPECT_EQ(severity("compact"), Severity::note);
}

}  // namespace
}  // namespace relay::kafka
