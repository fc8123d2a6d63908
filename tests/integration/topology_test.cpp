// SPDX-License-Identifier: Apache-2.0
// More than one of everything: relays on one Kafka, brokers that die in turn, a primary with a
// standby.
#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <list>

#include "tests/support/checker.h"
#include "tests/support/load.h"

namespace relay {
namespace {

using test::Load;
using test::ScratchKafka;
using test::ScratchPostgres;
using test::TestOutbox;

void expect_ended_well(test::Process& relay) {
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

// Several outboxes, each with a relay, that write to a topic of their own and to one that all
// share. One relay dies again and again, each time with something under way.
TEST(SeveralRelays, OneThatIsKilledDisturbsNoOther) {
  std::array<TestOutbox, 4> dbs;
  const std::string shared = dbs[0].topic("shared", 4);
  std::vector<std::string> own;
  std::list<Load> loads;
  std::list<test::Process> relays;
  for (TestOutbox& w : dbs) {
    test::create_counters(w);
    own.push_back(w.topic("own", 2));
    loads.emplace_back([&w, &shared, mine = own.back()] {
      test::write(w, shared, 20, 7);
      test::write(w, mine, 10, 3);
    });
    if (&w != &dbs[0]) relays.emplace_back(w.relay());
  }
  for (const char* point : {"opened:10", "sent:10", "reported:10", "confirmed:10", "marked:1"}) {
    auto doomed = dbs[0].relay({{"OUTBOX_CRASH_AT", point}}, "relay-with-crash-points");
    if (point == std::string("marked:1")) {
      test::until_delivered(dbs[0], 100);
      doomed.signal(SIGKILL);  // wherever it is
    }
    EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
    for (TestOutbox& w : dbs) {
      if (&w != &dbs[0]) test::until_delivered(w, 100);
    }
  }
  auto last = dbs[0].relay();
  test::until_delivered(dbs[0], 100);
  for (Load& load : loads) load.end();
  for (TestOutbox& w : dbs) w.wait_until_idle();
  expect_ended_well(last);
  for (test::Process& relay : relays) {
    expect_ended_well(relay);
    for (const char* trouble : {" error ", "to=stalled", "fenced", "batch_recovered"}) {
      EXPECT_EQ(relay.output().find(trouble), std::string::npos) << relay.output();
    }
  }
  for (std::size_t i = 0; i < dbs.size(); ++i) {
    std::vector<TestOutbox*> neighbours;
    for (TestOutbox& w : dbs) neighbours.push_back(&w);
    std::erase(neighbours, &dbs[i]);
    const auto verdict =
        test::check_delivery(dbs[i], {shared, own[i]}, test::Isolation::read_committed, neighbours);
    EXPECT_TRUE(verdict.exactly_once()) << verdict;
    EXPECT_GT(verdict.arrived, 500) << verdict;
    if (i > 0) {
      EXPECT_EQ(dbs[i].value("select l.epoch from outbox.lease l"), "1");
    }
  }
}

class ThreeBrokersTest : public ::testing::Test {
 protected:
  ThreeBrokersTest() : db(test::shared_postgres(), &kafka), topic(db.topic("t", 6)) {
    test::create_counters(db);
    db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = topic;
    // Every topic has replicas enough, the progress topic among them.
    const auto checked = db.command({"check"});
    EXPECT_EQ(checked.code, 0) << checked.output;
  }
  void until_in_sync() {
    test::eventually(
        "all replicas are in sync", [&] { return kafka.in_sync(); }, Millis{60'000});
  }
  void expect_exactly_once(test::Process& relay, Load& load) {
    load.end();
    until_in_sync();
    db.wait_until_idle();
    expect_ended_well(relay);
    EXPECT_EQ(relay.output().find(" error "), std::string::npos) << relay.output();
    EXPECT_EQ(db.value("select count(*) from outbox.parked"), "0");
    const auto verdict = test::check_delivery(db, {topic});
    EXPECT_TRUE(verdict.exactly_once()) << verdict;
  }

  ScratchKafka kafka{{"brokers=3"}};
  TestOutbox db;
  std::string topic;
};

TEST_F(ThreeBrokersTest, TheRelayGoesOnWithTwoWhileEachIsKilledInTurn) {
  auto relay = db.relay();
  Load load([&] { test::write(db, topic, 20, 11); });
  test::until_delivered(db, 200);
  for (int broker = 1; broker <= 3; ++broker) {
    kafka.kill(broker);
    test::until_delivered(db, 2'000, Millis{60'000});
    kafka.start(broker);
    until_in_sync();
    test::until_delivered(db, 200);
  }
  expect_exactly_once(relay, load);
}

// The brokers that are left still name the dead one as the leader of what the relay asks for first.
TEST_F(ThreeBrokersTest, ARelayThatStartsAsALeaderDiesGoesOnAndWithOneBrokerWaits) {
  Load load([&] { test::write(db, topic, 20, 11); });
  const int leader = kafka.leader("outbox-progress." + db.name());
  kafka.kill(leader);
  auto relay = db.relay();
  test::until_delivered(db, 200, Millis{60'000});
  const int other = leader % 3 + 1;
  kafka.kill(other);
  test::eventually("the relay stalls", [&] {
    const std::string log = relay.output();
    const auto stalled = log.rfind("to=stalled");
    return stalled != std::string::npos && stalled > log.rfind("to=streaming");
  });
  kafka.start(other);
  test::until_delivered(db, 2'000, Millis{60'000});
  kafka.start(leader);
  expect_exactly_once(relay, load);
}

// A list of hosts in one connection string, of which libpq takes the one that can be written to.
class FailoverTest : public ::testing::TestWithParam<bool> {
 protected:
  FailoverTest() : db(primary), topic(db.topic("t")) { test::create_counters(db); }

  ScratchPostgres primary;
  TestOutbox db;
  std::string topic;
};

TEST_P(FailoverTest, TheRelayFollowsThePromotedStandby) {
  auto standby = ScratchPostgres::standby_of(primary);
  primary.replicate_synchronously();
  std::string ports = std::to_string(primary.port());
  ports = GetParam() ? ports + "," + std::to_string(standby.port())
                     : std::to_string(standby.port()) + "," + ports;
  const std::string list = "host=127.0.0.1,127.0.0.1 port=" + ports +
                           " user=postgres dbname=" + db.database() +
                           " target_session_attrs=read-write";
  auto relay = db.relay({{"OUTBOX_RELAY_POSTGRES_DSN", list}});
  Load load([&] {
    try {
      test::write(list, topic, 20, 11);
    } catch (const pqxx::failure&) {  // whether it was committed or not, the promoted server knows
    }
  });
  test::until_delivered(db, 500);
  primary.stop(ScratchPostgres::Stop::immediate);
  relay.says("to=stalled");
  standby.promote();
  TestOutbox moved = db.moved_to(standby);
  test::until_delivered(moved, 500);
  load.end();
  moved.wait_until_idle();
  expect_ended_well(relay);
  EXPECT_EQ(relay.output().find(" error "), std::string::npos) << relay.output();
  const auto verdict = test::check_delivery(moved, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

INSTANTIATE_TEST_SUITE_P(WithItsListBeginningWith, FailoverTest, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "the_primary" : "the_standby"; });

}  // namespace
}  // namespace relay
