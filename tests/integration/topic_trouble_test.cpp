// SPDX-License-Identifier: Apache-2.0
// A topic that changes under load: it takes only small messages for a while, may not be written to
// for a while, is deleted and created again. What it does not take meanwhile is parked, other
// topics flow, and in the end every message is there, in order.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <future>

#include "tests/support/checker.h"
#include "tests/support/kafka_admin.h"

namespace relay {
namespace {

using test::TestOutbox;

class TopicTroubleTest : public ::testing::TestWithParam<const char*> {
 protected:
  TopicTroubleTest()
      : db(test::shared_postgres(), &test::shared_kafka_with_rights()),
        topic(db.topic("troubled", 2)),
        other(db.topic("other", 2)) {
    test::create_counters(db);
    db.environment["OUTBOX_RELAY_RELAY_MODE"] = GetParam();
    db.environment["OUTBOX_RELAY_LEASE_TTL"] = "5s";
    db.environment["OUTBOX_RELAY_TOPICS_MISSING_AFTER"] = "500ms";
  }

  // Commits messages to both topics until it is stopped; each tenth is large.
  void write_on() {
    writer = std::async(std::launch::async, [this] {
      pqxx::connection connection(db.dsn());
      for (int i = 0; !done; ++i) {
        pqxx::work tx(connection);
        const std::string key = "k" + std::to_string(i % 7);
        tx.exec_params(
            "with c as (insert into counter values ($3, 1) on conflict (key) do update set n = "
            "counter.n + 1 returning n) "
            "insert into outbox.message (topic, key, payload) select t.name, convert_to($3, "
            "'UTF8'), "
            "convert_to($3 || ' ' || c.n || repeat('x', $4), 'UTF8') from c cross join (values "
            "($1), ($2)) as t(name)",
            topic, other, key, i % 10 == 0 ? 20'000 : 100);
        tx.commit();
      }
    });
  }
  void until_parked(const std::string& error_class) {
    test::eventually(error_class + " messages are parked", [&] {
      return std::stoi(db.value("select count(*) from outbox.parked where error_class = '" +
                                error_class + "'")) >= 5;
    });
  }
  void until_delivered(int more) {
    const auto delivered = [&] {
      return std::stoi(db.value(
          "select coalesce(sum(messages), 0) from outbox.batch where delivered_at is not null"));
    };
    const int before = delivered();
    test::eventually("messages are delivered", [&] { return delivered() >= before + more; });
  }
  test::CheckerReport settle(test::Process& relay) {
    done = true;
    writer.get();
    db.wait_until_idle();
    db.wait_until_released();
    // Those that were parked after the decision about the others.
    if (db.value("select count(*) from outbox.parked where released_in is null") != "0") release();
    db.wait_until_released();
    db.wait_until_idle();
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(), 0) << relay.output();
    EXPECT_EQ(db.value("select count(*) from outbox.parked where topic = '" + other + "'"), "0");
    EXPECT_EQ(db.value("select count(*) from outbox.parked where released_in is null"), "0");
    return test::check_delivery(db, {topic, other});
  }
  void expect_guarantees(const test::CheckerReport& verdict) {
    EXPECT_TRUE(GetParam() == std::string("exactly-once") ? verdict.exactly_once()
                                                          : verdict.at_least_once())
        << verdict;
  }
  void release() {
    const auto released =
        db.command({"parked", "release", "--topic", topic, "--why", "it is well again"});
    EXPECT_EQ(released.code, 0) << released.output;
  }

  TestOutbox db;
  std::string topic;
  std::string other;
  std::atomic<bool> done{false};
  std::future<void> writer;
};

TEST_P(TopicTroubleTest, ASizeLimitIsLoweredAndRaised) {
  auto relay = db.relay();
  write_on();
  until_delivered(200);
  db.kafka().alter_topic(topic, {"max.message.bytes=5000"});
  until_parked("too_large");
  until_delivered(200);
  db.kafka().alter_topic(topic, {"max.message.bytes=1000000"});
  release();
  until_delivered(200);
  expect_guarantees(settle(relay));
}

TEST_P(TopicTroubleTest, TheRightToWriteIsTakenAndGiven) {
  auto relay = db.relay();
  write_on();
  until_delivered(200);
  test::deny(db.kafka().brokers(), topic, test::Denied::write);
  until_parked("topic_unauthorized");
  until_delivered(200);
  test::allow_again(db.kafka().brokers(), topic);
  release();
  until_delivered(200);
  expect_guarantees(settle(relay));
}

TEST_P(TopicTroubleTest, ItIsDeletedAndCreatedAgain) {
  auto relay = db.relay();
  write_on();
  until_delivered(200);
  db.kafka().delete_topic(topic);
  until_parked("topic_missing");
  until_delivered(200);
  db.kafka().create_topic(topic, 2);
  relay.says("topic_found");
  until_delivered(200);
  const auto verdict = settle(relay);
  // What was delivered before it was deleted went with it.
  const auto before =
      std::stoi(db.value("select coalesce(sum(b.messages), 0) from outbox.batch b where "
                         "b.delivered_at is not null and "
                         "b.opened_at < (select min(p.parked_at) from outbox.parked p)"));
  EXPECT_LE(verdict.lost, before) << verdict;
  EXPECT_GT(verdict.arrived, 0) << verdict;
  EXPECT_EQ(verdict.ghosts + verdict.reordered + verdict.both, 0) << verdict;
  if (GetParam() == std::string("exactly-once")) {
    EXPECT_EQ(verdict.repeated, 0) << verdict;
  }
}

INSTANTIATE_TEST_SUITE_P(EachMode, TopicTroubleTest,
                         ::testing::Values("exactly-once", "at-least-once"), [](const auto& p) {
                           return p.param == std::string("exactly-once") ? "exactly_once"
                                                                         : "at_least_once";
                         });

// An outage was longer than what a topic takes.
TEST_P(TopicTroubleTest, ABatchInDoubtThatIsTooOldForATopicIsSentWithANewTime) {
  const std::string young = db.topic("young", 1, {"message.timestamp.before.max.ms=2000"});
  db.sql(
      "insert into outbox.message (topic, key, payload) select t, convert_to('k0', 'UTF8'), "
      "convert_to('k0 ' || n, 'UTF8') from unnest(array['" +
      young + "', '" + other + "']) t, generate_series(1, 3) n");
  auto doomed = db.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
  EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  const std::string opened = db.value("select opened_at from outbox.batch");
  test::eventually("the batch is too old", [&] {
    return db.value("select clock_timestamp() - '" + opened + "' > interval '3 s'") == "t";
  });
  auto relay = db.relay();
  relay.says("sent_with_new_time");
  db.wait_until_released();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(relay.output().find("to=stalled"), std::string::npos) << relay.output();
  EXPECT_EQ(db.value("select string_agg(distinct error_class, ' ') from outbox.parked"), "too_old");
  const auto verdict = test::check_delivery(db, {young, other});
  EXPECT_TRUE(verdict.at_least_once()) << verdict;
  EXPECT_EQ(verdict.repeated, 0) << verdict;
}

}  // namespace
}  // namespace relay
