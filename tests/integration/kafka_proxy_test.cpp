// SPDX-License-Identifier: Apache-2.0
// A relay whose broker is behind a bad network: slow, silent, cut, lossy. What late requests do is
// in late_request_test.
#include "tests/support/kafka_proxy.h"

#include <gtest/gtest.h>
#include <signal.h>

#include "tests/support/checker.h"

namespace relay {
namespace {

using test::KafkaApi;
using test::KafkaProxy;
using Then = test::KafkaProxy::Then;

class KafkaProxyTest : public ::testing::Test {
 protected:
  KafkaProxyTest()
      : kafka({"advertised=" + proxy.address()}),
        db(test::shared_postgres(), &kafka),
        topic(db.topic("t")) {
    proxy.forward_to(kafka.proxied());
    db.environment["OUTBOX_RELAY_KAFKA_BROKERS"] = proxy.address();
    test::create_counters(db);
  }

  void finish(test::Process& relay) {
    db.wait_until_idle();
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(), 0) << relay.output();
    const auto verdict = test::check_delivery(db, {topic});
    EXPECT_TRUE(verdict.exactly_once()) << verdict;
  }

  KafkaProxy proxy;
  test::ScratchKafka kafka;
  test::TestOutbox db;
  const std::string topic;
};

TEST_F(KafkaProxyTest, ARelayDeliversOverASlowNetwork) {
  proxy.schedule({Millis{50}, 0});
  const auto begin = Clock::now();
  auto relay = db.relay();
  relay.says("to=streaming");
  test::write(db, topic, 20);
  db.wait_until_idle();
  EXPECT_GE(Clock::now() - begin,
            Millis{200});  // at the least, one request of its start and one of its work
  EXPECT_GT(proxy.count(KafkaApi::api_versions), 0);
  EXPECT_GT(proxy.count(KafkaApi::metadata), 0);
  EXPECT_GT(proxy.count(KafkaApi::find_coordinator), 0);
  proxy.schedule({Millis{0}, 64 << 10});
  test::write(db, topic, 20);
  finish(relay);
}

TEST_F(KafkaProxyTest, ARelayRecoversWhenItsRequestsAreNoLongerSwallowed) {
  auto relay = db.relay();
  relay.says("to=streaming");
  test::write(db, topic, 20);
  db.wait_until_idle();
  proxy.swallow(true);
  test::write(db, topic, 20);
  relay.says("to=stalled", Millis{60'000});
  proxy.swallow(false);
  finish(relay);
}

// As behind a load balancer. librdkafka has an event for each connection that fails, and those must
// not count as reports.
TEST_F(KafkaProxyTest, ABrokerWhoseAddressAcceptsAndSaysNothingElseIsNoticedAtLeastOnce) {
  db.environment["OUTBOX_RELAY_RELAY_MODE"] = "at-least-once";
  auto relay = db.relay();
  relay.says("to=streaming");
  test::write(db, topic, 20);
  db.wait_until_idle();
  proxy.refuse(true);
  proxy.cut();
  test::write(db, topic, 20);
  relay.says("to=stalled", Millis{20'000});
  proxy.refuse(false);
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.at_least_once()) << verdict;
}

TEST_F(KafkaProxyTest, ARelayOutlivesConnectionsThatFlap) {
  auto relay = db.relay();
  relay.says("to=streaming");
  for (int round = 0; round < 5; ++round) {
    proxy.refuse(true);
    proxy.cut();
    test::write(db, topic, 5);
    proxy.refuse(false);
    db.wait_until_idle();
  }
  finish(relay);
}

TEST_F(KafkaProxyTest, ARequestThatIsLostIsSentAgainOrItsBatchIs) {
  auto relay = db.relay();
  relay.says("to=streaming");
  for (const KafkaApi api :
       {KafkaApi::add_partitions_to_txn, KafkaApi::produce, KafkaApi::end_txn}) {
    const auto held = proxy.hold(api, Then::lose_request);
    test::write(db, topic, 5);
    held->caught();
    EXPECT_EQ(held->request().api(), api);
    db.wait_until_idle();
  }
  finish(relay);
}

}  // namespace
}  // namespace relay
