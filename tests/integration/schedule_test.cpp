// SPDX-License-Identifier: Apache-2.0
// Scheduled messages fall due while the relay or the server is killed, and while the clock of the
// database steps. Each arrives once, in the order in which they fall due, and not before its time
// by that clock.
#include <gtest/gtest.h>
#include <signal.h>

#include <map>

#include "tests/support/checker.h"
#include "tests/support/load.h"

namespace relay {
namespace {

using std::chrono::seconds;
using test::ScratchPostgres;
using test::TestOutbox;

class ScheduleTest : public ::testing::Test {
 protected:
  // Kafka takes times that differ from its own clock; two partitions, so that one key's order is
  // that of one partition.
  ScheduleTest()
      : db(postgres),
        topic(db.topic("t", 2, {"message.timestamp.after.max.ms=" + std::to_string(1LL << 40)})) {}

  // Schedules messages "KEY N" in any order; they fall due in the order of N, evenly over `within`
  // from `after` on.
  void schedule(const std::string& key, int messages, seconds after, seconds within) {
    const auto scheduled = db.sql(
        "insert into outbox.scheduled (deliver_at, topic, key, payload) select now() + "
        "make_interval(secs => " +
        std::to_string(after.count()) + " + g * " + std::to_string(within.count()) + "::float8 / " +
        std::to_string(messages) + "), '" + topic + "', convert_to('" + key +
        "', 'UTF8'), convert_to('" + key + " ' || g, 'UTF8') from generate_series(1, " +
        std::to_string(messages) +
        ") g order by md5(g::text) returning id::text, ceil(1000 * extract(epoch from "
        "deliver_at))::bigint");
    for (const auto& row : scheduled) {
      due_ms[row[0].as<std::string>()] = row[1].as<std::int64_t>();
    }
  }
  int waiting() { return std::stoi(db.value("select count(*) from outbox.scheduled")); }
  void until_all_moved() {
    test::eventually(
        "all are due", [&] { return waiting() == 0; }, Millis{60'000});
  }
  void end(test::Process& relay) {
    db.wait_until_idle();
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(), 0) << relay.output();
    EXPECT_EQ(relay.output().find(" error "), std::string::npos) << relay.output();
  }
  // The time of a record is that at which its batch was opened, by the clock of the database.
  void expect_each_once_and_not_early(std::int64_t others = 0) {
    const auto verdict = test::check_delivery(db, {topic});
    EXPECT_TRUE(verdict.exactly_once()) << verdict;
    EXPECT_EQ(verdict.arrived, static_cast<std::int64_t>(due_ms.size()) + others) << verdict;
    int early = 0;
    for (const auto& r :
         test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records) {
      const auto due = due_ms.find(r.header("dedup-key").value_or(""));
      if (due != due_ms.end() && r.timestamp_ms + 1 < due->second) ++early;
    }
    EXPECT_EQ(early, 0);
  }

  ScratchPostgres postgres{{"clock=steered"}};
  TestOutbox db;
  std::string topic;
  std::map<std::string, std::int64_t> due_ms;  // by id
};

TEST_F(ScheduleTest, TheRelayAndTheServerAreKilledWhileManyFallDue) {
  int wave = 0;
  const auto schedule_more = [&] {
    schedule("wave" + std::to_string(++wave), 5'000, seconds{0}, seconds{2});
  };
  for (const char* point : {"opened", "confirmed", "sent"}) {
    schedule_more();
    auto doomed = db.relay({{"OUTBOX_CRASH_AT", point}}, "relay-with-crash-points");
    EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  }
  auto relay = db.relay();
  for (int round = 0; round < 2; ++round) {
    schedule_more();
    test::until_delivered(db, 100);
    postgres.stop(ScratchPostgres::Stop::immediate);
    postgres.start();
  }
  until_all_moved();
  end(relay);
  expect_each_once_and_not_early();
}

TEST_F(ScheduleTest, ATransactionThatCancelsAndStaysOpenHoldsUpNothingElse) {
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "1s";
  schedule("a", 3, seconds{-10}, seconds{3});
  schedule("b", 1, seconds{-10}, seconds{1});
  pqxx::connection application(db.dsn());
  pqxx::work open(application);
  ASSERT_EQ(open.exec("delete from outbox.scheduled where payload = 'b 1'").affected_rows(), 1);
  auto relay = db.relay();
  test::eventually("all others are moved", [&] { return waiting() == 1; });
  const std::string epoch = db.value("select epoch from outbox.lease");
  // It is renewed every third of a second while the stream is idle.
  for (int renewals = 0; renewals < 6; ++renewals) {
    const std::string expires = db.value("select expires_at from outbox.lease");
    test::eventually("the lease is renewed",
                     [&] { return db.value("select expires_at from outbox.lease") != expires; });
  }
  EXPECT_EQ(waiting(), 1);
  EXPECT_EQ(db.value("select epoch from outbox.lease"), epoch);
  open.abort();
  until_all_moved();
  end(relay);
  EXPECT_EQ(relay.output().find("to=stalled"), std::string::npos) << relay.output();
  expect_each_once_and_not_early();
}

TEST_F(ScheduleTest, AClockThatStepsForwardMakesThemDueAtOnceAndDisturbsNothingElse) {
  test::create_counters(db);
  schedule("a", 20'000, seconds{1'200}, seconds{1'200});
  schedule("b", 100, seconds{7'200}, seconds{60});
  auto relay = db.relay();
  test::Load load([&] { test::write(db, topic, 20); });
  test::until_delivered(db, 200);
  EXPECT_EQ(waiting(), 20'100);
  postgres.set_clock(seconds{3'000});
  test::eventually("those that are due are moved", [&] { return waiting() == 100; });
  test::until_delivered(db, 200);
  EXPECT_EQ(waiting(), 100);
  postgres.set_clock(seconds{9'000});
  until_all_moved();
  load.end();
  end(relay);
  EXPECT_EQ(relay.output().find("to=stalled"), std::string::npos) << relay.output();
  expect_each_once_and_not_early(
      std::stoll(db.value("select count(*) from outbox.message m where m.key not in ('a', 'b')")));
}

TEST_F(ScheduleTest, AClockThatStepsBackHoldsThemUntilTheirTime) {
  test::create_counters(db);
  schedule("a", 5'000, seconds{0}, seconds{4});
  auto relay = db.relay();
  test::until_delivered(db, 100);
  postgres.set_clock(seconds{-3'600});
  // Not one more falls due, but what is written now flows.
  test::eventually("the step is seen", [&] {
    return db.value(
               "select not exists (select from outbox.scheduled s where s.deliver_at < "
               "clock_timestamp() + interval '50 minutes')") == "t";
  });
  const int held = waiting();
  EXPECT_GT(held, 0);
  test::Load load([&] { test::write(db, topic, 20); });
  for (int round = 0; round < 3; ++round) test::until_delivered(db, 100);
  EXPECT_EQ(waiting(), held);
  postgres.set_clock(seconds{0});
  until_all_moved();
  load.end();
  end(relay);
  EXPECT_EQ(relay.output().find("to=stalled"), std::string::npos) << relay.output();
  expect_each_once_and_not_early(
      std::stoll(db.value("select count(*) from outbox.message m where m.key <> 'a'")));
}

// The lease of the dead relay runs out an hour from now by the clock of the database, and after its
// ttl by that of the successor.
TEST_F(ScheduleTest, AClockThatStepsBackDoesNotKeepASuccessorWaiting) {
  test::create_counters(db);
  schedule("a", 1'000, seconds{0}, seconds{3});
  {
    auto doomed = db.relay();
    test::until_delivered(db, 100);
    doomed.signal(SIGKILL);
    doomed.wait();
  }
  postgres.set_clock(seconds{-3'600});
  test::write(db, topic, 20);
  auto relay = db.relay();
  test::until_delivered(db, 60, Millis{10'000});
  relay.signal(SIGSTOP);  // and while it is stopped, time goes on
  postgres.set_clock(seconds{3'600});
  auto successor = db.relay();
  until_all_moved();
  db.wait_until_idle();
  relay.signal(SIGCONT);
  relay.says("fenced");
  test::write(db, topic, 20);
  end(successor);
  expect_each_once_and_not_early(
      std::stoll(db.value("select count(*) from outbox.message m where m.key <> 'a'")));
}

}  // namespace
}  // namespace relay
