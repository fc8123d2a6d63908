// SPDX-License-Identifier: Apache-2.0
// A broker that takes messages and can begin no transaction, because its log of transactions wants
// more copies than there are brokers. That is what becomes of many a default on a cluster of one.
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/support/checker.h"

namespace relay {
namespace {

using test::ScratchKafka;
using test::TestOutbox;

constexpr const char* cause =
    "no transaction can begin: the brokers have transaction.state.log.replication.factor = 3, and "
    "there are 1 of them";

class WithoutTransactionsTest : public ::testing::Test {
 protected:
  WithoutTransactionsTest() : db(test::shared_postgres(), &kafka), topic(db.topic("t")) {
    test::create_counters(db);
    db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = topic;
  }
  void use(const std::string& mode) { db.environment["OUTBOX_RELAY_RELAY_MODE"] = mode; }
  void expect_delivered_at_least_once() {
    db.deliver();
    const auto verdict = test::check_delivery(db, {topic});
    EXPECT_TRUE(verdict.at_least_once()) << verdict;
    EXPECT_GT(verdict.arrived, 0) << verdict;
  }

  ScratchKafka kafka{{"transaction.state.log.replication.factor=3"}};
  TestOutbox db;
  std::string topic;
};

TEST_F(WithoutTransactionsTest, AtLeastOnceDeliversAllAndNeedsNone) {
  use("at-least-once");
  const auto checked = db.command({"check"});
  EXPECT_EQ(checked.code, 0) << checked.output;
  EXPECT_EQ(checked.output.find("transaction"), std::string::npos) << checked.output;
  for (const char* point : {"opened", "reported", "confirmed"}) {
    test::write(db, topic, 20);
    auto doomed = db.relay({{"OUTBOX_CRASH_AT", point}}, "relay-with-crash-points");
    EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  }
  expect_delivered_at_least_once();
}

TEST_F(WithoutTransactionsTest, ExactlyOnceStallsAndSaysWhyAndLosesNothing) {
  const auto checked = db.command({"check"});
  EXPECT_EQ(checked.code, 1) << checked.output;
  EXPECT_NE(checked.output.find(cause), std::string::npos) << checked.output;
  test::write(db, topic, 20);
  {
    auto relay = db.relay();
    relay.says("to=stalled");
    const std::string log = relay.output();
    EXPECT_NE(log.find(cause), std::string::npos) << log;
    EXPECT_NE(log.find("HINT: "), std::string::npos) << log;
    EXPECT_NE(log.find("at-least-once"), std::string::npos) << log;
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(), 0) << relay.output();
  }
  use("at-least-once");
  expect_delivered_at_least_once();
}

}  // namespace
}  // namespace relay
