// SPDX-License-Identifier: Apache-2.0
// A relay that is paused, loses its lease and wakes up again: it may write nothing visible any
// more.
#include <gtest/gtest.h>
#include <signal.h>

#include <regex>

#include "relay/core/loop.h"
#include "tests/support/checker.h"

namespace relay {
namespace {

using test::CheckerReport;
using test::TestOutbox;

// Of the batches that it found in doubt, and sent again.
int messages_sent_again(const std::string& log) {
  const std::regex recovered("batch_recovered batch=\\d+ messages=(\\d+) found=not_delivered");
  int sum = 0;
  for (std::sregex_iterator it(log.begin(), log.end(), recovered), end; it != end; ++it)
    sum += std::stoi((*it)[1]);
  return sum;
}

struct Zombie {
  CheckerReport verdict;
  int sent_again = 0;
};

// The first relay stops itself at `phase`, a second takes over and delivers, then the first wakes
// up.
Zombie zombie_at(const std::string& phase, Mode mode) {
  TestOutbox db;
  db.environment["OUTBOX_RELAY_RELAY_MODE"] = to_string(mode);
  const std::string topic = db.topic("t");
  test::create_counters(db);
  test::write(db, topic, 30);
  auto first = db.relay({{"OUTBOX_STOP_AT", phase}}, "relay-with-crash-points");
  first.stops();
  auto second = db.relay();
  second.says("to=streaming");
  test::write(db, topic, 10);
  db.wait_until_idle();
  first.signal(SIGCONT);
  first.says("to=standby epoch=1");
  test::write(db, topic, 10);
  db.wait_until_idle();
  // The one that woke up is a good standby: it takes over at once when the second hands over.
  second.signal(SIGTERM);
  EXPECT_EQ(second.wait(), 0) << second.output();
  test::write(db, topic, 10);
  db.wait_until_idle();
  first.signal(SIGTERM);
  EXPECT_EQ(first.wait(), 0) << first.output();
  EXPECT_EQ(db.value("select count(*) from outbox.batch b where exists (select from outbox.batch x "
                     "where x.number < b.number and "
                     "x.epoch > b.epoch)"),
            "0");
  return {test::check_delivery(db, {topic}),
          messages_sent_again(first.output()) + messages_sent_again(second.output())};
}

class ZombieTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ZombieTest, ExactlyOnceNothingItDoesBecomesVisible) {
  const auto verdict = zombie_at(GetParam(), Mode::exactly_once).verdict;
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

// That is the zombie's alone: its late progress record makes its successor look again, which knows
// what it has confirmed itself.
TEST_P(ZombieTest, AtLeastOnceOnlyBatchesInDoubtAreRepeated) {
  const auto [verdict, sent_again] = zombie_at(GetParam(), Mode::at_least_once);
  EXPECT_TRUE(verdict.at_least_once()) << verdict;
  EXPECT_LE(verdict.repeated, sent_again) << verdict;
  constexpr int open_batch = 90;
  EXPECT_LE(sent_again, open_batch);
}

INSTANTIATE_TEST_SUITE_P(StoppedAt, ZombieTest,
                         ::testing::Values("opening", "opened", "begun", "sent", "reported",
                                           "confirmed"),
                         [](const auto& point) { return std::string(point.param); });

// Its session ends between Kafka's acknowledgements and the mark: it finds the batch in doubt, and
// knows better.
TEST(AtLeastOnce, WhatARelayConfirmedItselfIsMarkedAndNotSentAgain) {
  TestOutbox db;
  db.environment["OUTBOX_RELAY_RELAY_MODE"] = to_string(Mode::at_least_once);
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "60s";
  const std::string topic = db.topic("t");
  test::create_counters(db);
  test::write(db, topic, 30);
  auto relay = db.relay({{"OUTBOX_STOP_AT", "confirmed"}}, "relay-with-crash-points");
  relay.stops();
  db.sql(
      "select pg_terminate_backend(a.pid) from pg_stat_activity a where a.datname = "
      "current_database() and a.pid <> pg_backend_pid()");
  relay.signal(SIGCONT);
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_NE(relay.output().find("found=delivered"), std::string::npos) << relay.output();
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

TEST(HandOver, AStandbyWaitsAndTakesOverWhenTheHolderStops) {
  TestOutbox db;
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "20s";
  const std::string topic = db.topic("t");
  test::create_counters(db);
  auto first = db.relay();
  first.says("to=streaming");
  auto second = db.relay();
  second.says("to=standby");
  test::write(db, topic, 20);
  db.wait_until_idle();
  EXPECT_EQ(second.output().find("to=streaming"), std::string::npos);
  first.signal(SIGTERM);
  EXPECT_EQ(first.wait(), 0);
  second.says("to=streaming", Millis{5'000});  // long before the lease would run out
  test::write(db, topic, 20);
  db.wait_until_idle();
  second.signal(SIGTERM);
  EXPECT_EQ(second.wait(), 0);
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

TEST(HandOver, SigtermUnderLoadFinishesTheBatchAndLeavesNoneOpen) {
  TestOutbox db;
  const std::string topic = db.topic("t");
  test::create_counters(db);
  for (int round = 0; round < 5; ++round) {
    auto relay = db.relay();
    relay.says("to=streaming");
    test::write(db, topic, 40);
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(Millis{5'000}), 0) << relay.output();
    EXPECT_EQ(db.value("select count(*) from outbox.batch where delivered_at is null"), "0");
  }
  auto relay = db.relay();
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0);
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

}  // namespace
}  // namespace relay
