// SPDX-License-Identifier: Apache-2.0
// A page that names many topics, on a slow network: looking them up must not outlast the lease.
#include <gtest/gtest.h>

#include "relay/base/clock.h"
#include "relay/kafka/producer.h"
#include "relay/kafka/topic_lookup.h"
#include "tests/support/event_fd.h"
#include "tests/support/kafka_proxy.h"
#include "tests/support/scratch_servers.h"

namespace relay {
namespace {

constexpr Millis latency{20};
constexpr int topics = 60;
constexpr Millis one_turn{2'500};  // a second of look-ups, and one more of two questions

class ManyTopics : public ::testing::Test {
 protected:
  ManyTopics() : kafka({"advertised=" + proxy.address()}) {
    proxy.forward_to(kafka.proxied());
    kafka.create_topic("outbox-progress.r", 1);
    for (int i = 0; i < topics; ++i) names.push_back("t" + std::to_string(i));
    options.brokers = proxy.address();
    options.relay = "r";
    options.progress_topic = "outbox-progress.r";
    options.allow = {"*"};
  }

  Page page_that_names_all() const {
    Page page;
    for (const std::string& name : names) {
      Message m;
      m.seq = static_cast<std::int64_t>(page.messages.size()) + 1;
      m.id = Uuid::random();
      m.topic = name;
      page.messages.push_back(m);
    }
    return page;
  }
  // How many turns it takes, and what is rejected in the end.
  int validate(kafka::KafkaProducer& producer, std::size_t& rejected) {
    const Page page = page_that_names_all();
    for (int turns = 1; turns <= 3 * topics; ++turns) {
      const auto began = Clock::now();
      const auto validation = producer.validate(page, std::nullopt);
      EXPECT_TRUE(validation) << validation.error().text();
      EXPECT_LT(Clock::now() - began, one_turn);
      rejected = validation->rejected.size();
      if (validation->complete) return turns;
    }
    ADD_FAILURE() << "a turn has found nothing";
    return 0;
  }

  test::KafkaProxy proxy;
  const test::ScratchKafka kafka;
  kafka::Options options;
  std::vector<std::string> names;
  const test::EventFd wake;
};

Result<void> unhindered() { return {}; }

// Those that were missing are asked about together: one by one, a slow network would never let the
// answer come in time.
TEST_F(ManyTopics, ThatAppearAreFoundByOneQuestion) {
  kafka.create_topic(names.back(), 1);
  proxy.schedule({latency, 0});
  const auto found = kafka::TopicLookup(options).existing(names, Deadline(latency * (topics / 2)));
  ASSERT_TRUE(found) << found.error().text();
  EXPECT_EQ(*found, std::vector<std::string>{names.back()});
}

TEST_F(ManyTopics, AreLookedUpInTurnsOfASecond) {
  for (const std::string& name : names) kafka.create_topic(name, 1);
  kafka::KafkaProducer producer(options, wake.fd);
  ASSERT_TRUE(producer.renew(Mode::exactly_once, unhindered));
  proxy.schedule({latency, 0});
  std::size_t rejected = 0;
  EXPECT_GT(validate(producer, rejected), 1) << "the network was not slow enough to show it";
  EXPECT_EQ(rejected, 0U);
}

// The first would be due again before the last was asked about.
TEST_F(ManyTopics, ThatAreMissingAreAskedAboutTwiceAndNoMore) {
  options.missing_after = Millis{1};
  kafka::KafkaProducer producer(options, wake.fd);
  ASSERT_TRUE(producer.renew(Mode::exactly_once, unhindered));
  proxy.schedule({latency, 0});
  const int before = proxy.count(test::KafkaApi::metadata);
  std::size_t rejected = 0;
  EXPECT_GT(validate(producer, rejected), 1) << "the network was not slow enough to show it";
  EXPECT_EQ(rejected, names.size());
  // librdkafka asks once more for each; without the rule there were 13 questions about each of
  // them.
  EXPECT_LE(proxy.count(test::KafkaApi::metadata) - before, 4 * topics);
}

}  // namespace
}  // namespace relay
