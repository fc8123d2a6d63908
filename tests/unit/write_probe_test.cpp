// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/write_probe.h"

#include <gtest/gtest.h>

#include <set>

namespace relay::kafka {
namespace {

constexpr auto forbidden = RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;

// A cluster that refuses a transaction with one of some topics, and does not say which.
class FakeClient : public ProbeClient {
 public:
  bool may_go_on() override { return true; }
  bool begin_probe() override {
    ++transactions;
    refused_ = false;
    return true;
  }
  bool send_probe(const Page& page, std::size_t index) override {
    const std::string topic(page.messages[index].topic);
    tried.insert(topic);
    refused_ = refused_ || unwritable.contains(topic);
    return true;
  }
  void await_probe(Deadline) override {}
  std::optional<rd_kafka_resp_err_t> probe_answer() override {
    if (silent) return std::nullopt;
    return refused_ ? forbidden : RD_KAFKA_RESP_ERR_NO_ERROR;
  }
  void probe_refused(const Page& page, std::size_t index) override {
    found.emplace(page.messages[index].topic);
  }

  std::set<std::string> unwritable;
  bool silent = false;
  std::set<std::string> tried;
  std::set<std::string> found;
  int transactions = 0;

 private:
  bool refused_ = false;
};

class WriteProbeTest : public testing::Test {
 protected:
  // A page with two messages of each topic t0, t1, ….
  Page page_of(std::size_t topics) {
    while (names.size() < topics) {
      names.push_back(std::make_unique<std::string>("t" + std::to_string(names.size())));
    }
    Page page;
    for (std::size_t i = 0; i < 2 * topics; ++i) {
      Message m;
      m.seq = static_cast<std::int64_t>(i) + 1;
      m.topic = *names[i % topics];
      page.messages.push_back(m);
    }
    return page;
  }

  std::vector<std::unique_ptr<std::string>> names;
  FakeClient client;
  WriteProbe probe;
};

TEST_F(WriteProbeTest, FindsEachTopicThatMayNotBeWrittenTo) {
  client.unwritable = {"t3", "t60"};
  EXPECT_TRUE(probe.search(page_of(100), client));
  EXPECT_EQ(client.found, client.unwritable);
  EXPECT_LT(client.transactions, 100);
}

TEST_F(WriteProbeTest, TriesEachTopicOnceWhenAllMayBeWrittenTo) {
  EXPECT_TRUE(probe.search(page_of(40), client));
  EXPECT_EQ(client.tried.size(), 40U);
  EXPECT_EQ(client.transactions, 2);
  EXPECT_TRUE(client.found.empty());
}

TEST_F(WriteProbeTest, WhatTheServerKeepsIsNotTried) {
  Page page = page_of(1);
  for (Message& m : page.messages) m.oversize = true;
  EXPECT_TRUE(probe.search(page, client));
  EXPECT_TRUE(client.tried.empty());
}

TEST_F(WriteProbeTest, EndsWithoutAnAnswerAndTriesFewerTheNextTime) {
  client.silent = true;
  EXPECT_FALSE(probe.search(page_of(40), client));
  EXPECT_EQ(client.transactions, 1);
  EXPECT_EQ(client.tried.size(), 32U);
  client.tried.clear();
  EXPECT_FALSE(probe.search(page_of(40), client));
  EXPECT_EQ(client.tried.size(), 16U);
}

}  // namespace
}  // namespace relay::kafka
