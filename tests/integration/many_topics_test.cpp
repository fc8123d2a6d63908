// SPDX-License-Identifier: Apache-2.0
// A page that names many topics, on a slow network: looking them up must not outlast the lease.
#include <gtest/gtest.h>

#include "relay/base/clock.h"
#include "relay/kafka/producer.h"
#include "tests/support/event_fd.h"
#include "tests/support/kafka_proxy.h"
#include "tests/support/scratch_servers.h"

namespace outbox {
namespace {

constexpr Millis latency{20};
constexpr int topics = 60;
constexpr Millis one_turn{2'500};  // a second of look-ups, and one more of two questions

TEST(ManyTopics, AreLookedUpInTurnsOfASecond) {
  test::KafkaProxy proxy;
  const test::ScratchKafka kafka({"advertised=" + proxy.address()});
  proxy.forward_to(kafka.proxied());
  std::vector<std::string> names;
  for (int i = 0; i < topics; ++i) {
    names.push_back("t" + std::to_string(i));
    kafka.create_topic(names.back(), 1);
  }
  kafka.create_topic("outbox-progress.r", 1);
  kafka::Options options;
  options.brokers = proxy.address();
  options.relay = "r";
  options.progress_topic = "outbox-progress.r";
  options.allow = {"*"};
  const test::EventFd wake;
  kafka::Producer producer(options, wake.fd);
  ASSERT_TRUE(producer.renew(Mode::exactly_once, [] { return Result<void>{}; }));
  proxy.weather({latency, 0});

  Page page;
  for (const std::string& name : names) {
    Message m;
    m.seq = static_cast<std::int64_t>(page.messages.size()) + 1;
    m.id = Uuid::random();
    m.topic = name;
    page.messages.push_back(m);
  }
  int turns = 0;
  for (bool settled = false; !settled; ++turns) {
    ASSERT_LT(turns, topics) << "a turn has found nothing";
    const auto began = Clock::now();
    const auto vetted = producer.vet(page);
    ASSERT_TRUE(vetted) << vetted.error().text();
    EXPECT_LT(Clock::now() - began, one_turn);
    EXPECT_TRUE(vetted->rejected.empty());
    settled = vetted->settled;
  }
  EXPECT_GT(turns, 1) << "the network was not slow enough to tell";
}

}  // namespace
}  // namespace outbox
