// SPDX-License-Identifier: Apache-2.0
// What cannot be sent is parked with its reason; everything else flows, and keys keep their order.
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/support/checker.h"

namespace relay {
namespace {

using test::TestOutbox;

class ParkingTest : public ::testing::Test {
 protected:
  ParkingTest() : topic(db.topic("t", 2)) {
    db.environment["OUTBOX_RELAY_TOPICS_MISSING_AFTER"] = "1s";
  }

  // Inserts one message; columns beside topic and key as SQL.
  void put(const std::string& to, const std::string& key, const std::string& payload_sql,
           const std::string& headers_sql = "null") {
    db.sql("insert into outbox.message (topic, key, payload, headers) values ('" + to + "', " +
           key + ", " + payload_sql + ", " + headers_sql + ")");
  }
  static std::string text(const std::string& s) { return "convert_to('" + s + "', 'UTF8')"; }
  std::string parked() {
    return db.value(
        "select string_agg(convert_from(coalesce(p.key, 'null'), 'UTF8') || ':' || p.error_class, "
        "' ' order by p.seq) "
        "from outbox.parked p");
  }

  TestOutbox db;
  std::string topic;
};

TEST_F(ParkingTest, ARelayStartsWithoutReadingAllThatIsParked) {
  db.sql(
      "insert into outbox.parked (parked_for, seq, txid, id, topic, key, created_at, error_class, "
      "error_text) select 1, -g, '3', gen_random_uuid(), (array['" +
      topic +
      "', 'a', 'z'])[g % 3 + 1], convert_to('k' || g, 'UTF8'), now(), 'refused', 'a test' "
      "from generate_series(1, 100000) g");
  db.sql("analyze outbox.parked");
  db.sql("select pg_stat_reset()");
  put(topic, "'k3'", text("blocked"));
  put(topic, "'k1'", text("sent"));
  db.deliver();
  EXPECT_EQ(db.value("select string_agg(error_class, ' ') from outbox.parked where seq > 0"),
            "key_blocked");
  std::int64_t read = 0;
  test::eventually("the server has counted", [&] {
    read =
        std::stoll(db.value("select sum(s.seq_tup_read) + sum(coalesce(s.idx_tup_fetch, 0)) "
                            "from pg_stat_user_tables s where s.relname = 'parked'"));
    return read > 0;
  });
  EXPECT_LT(read, 1'000);
}

TEST_F(ParkingTest, EachKindOfBadMessageIsParkedWithItsReasonAndTheOthersFlow) {
  db.environment["OUTBOX_RELAY_DELIVERY_MESSAGE_BYTES_MAX"] = "10KiB";
  const std::string small = db.topic("small", 1, {"max.message.bytes=2000"});
  db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = db.name() + "*";
  put(topic, "'ok1'", text("ok1 1"));
  put(topic, "'large'", "convert_to(repeat('x', 10241), 'UTF8')");
  put(small, "'medium'", "convert_to(repeat('x', 3000), 'UTF8')");
  put(small, "'fits'", text("fits 1"));
  put(topic, "'list'", text("x"), "'[1]'");
  put(topic, "'number'", text("x"), "'{\"a\": 1}'");
  put(topic, "'reserved'", text("x"), "'{\"outbox-a\": \"1\"}'");
  put("not/a topic", "'name'", text("x"));
  put("elsewhere", "'notallowed'", text("x"));
  put("__consumer_offsets", "'internal'", text("x"));
  put("outbox-progress." + db.name(), "'progress'", text("x"));
  put(db.name() + ".missing", "'missing'", text("x"));
  put(topic, "'ok2'", text("ok2 1"), "'{\"trace\": \"1\"}'");
  db.deliver();
  EXPECT_EQ(parked(),
            "large:too_large medium:too_large list:bad_headers number:bad_headers "
            "reserved:bad_headers name:topic_invalid "
            "notallowed:topic_not_allowed internal:topic_not_allowed progress:topic_not_allowed "
            "missing:topic_missing");
  const auto verdict = test::check_delivery(db, {topic, small});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  EXPECT_EQ(verdict.arrived, 3) << verdict;
  EXPECT_EQ(db.value("select count(*) from outbox.parked where error_text = '' or payload is null"),
            "0");
  EXPECT_EQ(db.value("select octet_length(payload) from outbox.parked where key = 'large'"),
            "10241");
}

TEST_F(ParkingTest, OrderKeyHoldsBackTheLaterMessagesOfTheKeyAcrossBatchesAndRestarts) {
  put(topic, "'a'", text("a 1"));
  put(topic, "'a'", text("a 2"), "'[]'");
  put(topic, "'a'", text("a 3"));
  put(topic, "'b'", text("b 1"));
  put(topic, "null", text("free"), "'[]'");
  put(topic, "null", text("free"));
  db.deliver();
  EXPECT_EQ(parked(), "a:bad_headers a:key_blocked null:bad_headers");
  put(topic, "'a'", text("a 4"));
  put(topic, "'b'", text("b 2"));
  put(db.topic("other"), "'a'", text("a 1"));  // another topic is another key
  db.deliver();
  EXPECT_EQ(parked(), "a:bad_headers a:key_blocked null:bad_headers a:key_blocked");
  const auto verdict = test::check_delivery(db, {topic, db.name() + ".other"});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  EXPECT_EQ(verdict.arrived, 5) << verdict;
}

TEST_F(ParkingTest, OrderMessageParksNothingButTheBadOne) {
  db.environment["OUTBOX_RELAY_DELIVERY_ORDER"] = "message";
  put(topic, "'a'", text("a 1"), "'[]'");
  put(topic, "'a'", text("a 2"));
  db.deliver();
  put(topic, "'a'", text("a 3"));
  db.deliver();
  EXPECT_EQ(parked(), "a:bad_headers");
  EXPECT_EQ(test::check_delivery(db, {topic}).arrived, 2);
}

TEST_F(ParkingTest, ATopicThatWasThereAndIsBackInTimeIsNotMissing) {
  db.environment["OUTBOX_RELAY_TOPICS_MISSING_AFTER"] = "20s";
  const std::string late = db.topic("late");
  put(late, "'a'", text("a 1"));
  auto relay = db.relay();
  db.wait_until_idle();
  db.kafka().delete_topic(late);
  put(late, "'a'", text("a 2"));
  relay.says("to=stalled");
  db.topic("late");
  db.wait_until_idle();
  EXPECT_EQ(db.value("select count(*) from outbox.parked"), "0");
  EXPECT_EQ(test::check_delivery(db, {late}).lost, 1);  // with the topic that was deleted
}

// missing_after is an hour: nothing waits for it.
TEST_F(ParkingTest, NobodyWaitsForATopicThatWasNeverThereAndItsMessagesFollowAtOnce) {
  db.environment["OUTBOX_RELAY_TOPICS_MISSING_AFTER"] = "1h";
  auto relay = db.relay();
  relay.says("to=streaming");
  for (int i = 0; i < 5; ++i) {
    const std::string suffix = "late" + std::to_string(i);
    const std::string late = db.name() + "." + suffix;
    put(late, "'a'", text("a 1"));
    put(topic, "'a'", text("a " + std::to_string(i)));
    db.wait_until_idle();
    EXPECT_EQ(db.value("select error_class from outbox.parked where topic = '" + late + "'"),
              "topic_missing");
    db.topic(suffix);
    test::eventually("its message is released", [&] {
      return db.value("select released_in is not null from outbox.parked where topic = '" + late +
                      "'") == "t";
    });
  }
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(relay.output().find("to=stalled"), std::string::npos) << relay.output();
}

TEST_F(ParkingTest, AMessageThatTheBrokerRefusesIsParkedAndTheRestOfItsBatchArrivesOnce) {
  const std::string strict = db.topic("strict", 1);
  auto relay = db.relay();
  put(strict, "'a'", text("a 1"));
  db.wait_until_idle();
  // The relay has learnt the old limit; now the broker will refuse what it would send.
  db.kafka().alter_topic(strict, {"max.message.bytes=2000"});
  db.sql("insert into outbox.message (topic, key, payload) select '" + strict +
         "', convert_to('k' || g, 'UTF8'), convert_to(case when g = 7 then "
         "repeat('x', 5000) else 'k' || g || ' 1' end, 'UTF8') from generate_series(1, 20) g");
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(db.value("select count(*) from outbox.parked"), "1");
  EXPECT_EQ(db.value("select octet_length(payload) from outbox.parked"), "5000");
  const auto verdict = test::check_delivery(db, {strict});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

TEST_F(ParkingTest, OnlyWhatComesBehindARefusedMessageOfItsKeyIsHeldBack) {
  const std::string strict = db.topic("strict", 1);
  auto relay = db.relay();
  put(strict, "'a'", text("a 1"));
  db.wait_until_idle();
  db.kafka().alter_topic(strict, {"max.message.bytes=2000"});
  db.sql("insert into outbox.message (topic, key, payload, headers) select '" + strict +
         "', 'a', convert_to(case when g = 3 then "
         "repeat('x', 5000) else 'a ' || g end, 'UTF8'), case when g = 5 then '[]'::jsonb end from "
         "generate_series(2, 6) g");
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(relay.output().find("to=stalled"), std::string::npos) << relay.output();
  const std::string reason =
      db.value("select p.error_class from outbox.parked p order by p.seq limit 1");
  EXPECT_TRUE(reason == "refused" || reason == "too_large") << reason;
  EXPECT_EQ(parked(), "a:" + reason + " a:key_blocked a:bad_headers a:key_blocked");
  const auto verdict = test::check_delivery(db, {strict});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  EXPECT_EQ(verdict.arrived, 2) << verdict;
}

// The broker refuses a record without a key in a compacted topic, which no look at the message can
// foresee, and says so of the whole record batch.
class RefusalTest : public ParkingTest,
                    public ::testing::WithParamInterface<std::tuple<const char*, const char*>> {
 protected:
  RefusalTest() : compacted(db.topic("compacted", 1, {"cleanup.policy=compact"})) {
    db.environment["OUTBOX_RELAY_RELAY_MODE"] = std::get<0>(GetParam());
    db.environment["OUTBOX_RELAY_DELIVERY_ORDER"] = std::get<1>(GetParam());
  }
  // Commits messages with keys, but those at `bad` without, all as one batch.
  void put_all(int messages, const std::string& bad) {
    db.sql("insert into outbox.message (topic, key, payload) select '" + compacted +
           "', case when not g = any ('" + bad +
           "') then convert_to('k' || g % 7, 'UTF8') end, convert_to('k' || g % 7 || ' ' || g, "
           "'UTF8') from generate_series(1, " +
           std::to_string(messages) + ") g");
  }
  void expect_parked(const std::string& bad) {
    EXPECT_EQ(db.value("select '{' || string_agg(substring(convert_from(p.payload, 'UTF8') from ' "
                       "(.*)'), ',' order by p.seq) || '}' from "
                       "outbox.parked p"),
              bad);
    const auto verdict = test::check_delivery(db, {compacted});
    EXPECT_TRUE(verdict.at_least_once()) << verdict;
    if (std::get<0>(GetParam()) == std::string("exactly-once")) {
      EXPECT_EQ(verdict.repeated, 0) << verdict;
    }
  }

  std::string compacted;
};

TEST_P(RefusalTest, OnlyTheBadMessageAmongHundredsOfItsRecordBatchIsParked) {
  put_all(700, "{333}");
  db.deliver();
  expect_parked("{333}");
}

// The broker refuses it while the relay still hands over the rest.
TEST_P(RefusalTest, ABadMessageEarlyInALargeBatchIsParkedAndNoOther) {
  put_all(15'000, "{3}");
  db.deliver();
  expect_parked("{3}");
}

TEST_P(RefusalTest, EachOfSeveralBadMessagesIsParkedAndNoOther) {
  put_all(300, "{1,2,150,300}");
  db.deliver();
  expect_parked("{1,2,150,300}");
}

// The limit of a topic is one of record batches, and small messages can exceed it together.
TEST_P(RefusalTest, ATopicThatTakesOnlySmallRecordBatchesGetsThem) {
  compacted = db.topic("narrow", 1, {"max.message.bytes=3000"});
  put_all(2'000, "{}");
  db.deliver();
  expect_parked("");
  EXPECT_EQ(test::check_delivery(db, {compacted}).arrived, 2'000);
}

INSTANTIATE_TEST_SUITE_P(EachModeAndOrder, RefusalTest,
                         ::testing::Combine(::testing::Values("exactly-once", "at-least-once"),
                                            ::testing::Values("key", "message")),
                         [](const auto& point) {
                           return std::string(std::get<0>(point.param)[0] == 'e'
                                                  ? "exactly_once_"
                                                  : "at_least_once_") +
                                  std::get<1>(point.param);
                         });

// A broker takes the first record batch that it sees of a producer whatever its sequence number is.
// So when the very first one is refused, those under way behind it must not have been sent yet.
// Many topics, since it takes two requests to be on the wire.
TEST_F(ParkingTest, NothingOvertakesARefusedFirstRecordBatch) {
  db.environment["OUTBOX_RELAY_RELAY_MODE"] = "at-least-once";
  db.environment["OUTBOX_RELAY_DELIVERY_ORDER"] = "message";
  db.environment["OUTBOX_RELAY_KAFKA_PROPERTIES"] = "batch.num.messages=2";
  std::vector<std::string> topics;
  std::string messages;
  for (int t = 0; t < 8; ++t) {
    topics.push_back(db.topic("first" + std::to_string(t), 1, {"cleanup.policy=compact"}));
    messages += "insert into outbox.message (topic, key, payload) select '" + topics.back() +
                "', case when g <> 2 then '\x6b'::bytea end, "
                "convert_to('k ' || g, 'UTF8') from generate_series(1, 12) g;";
  }
  db.sql(messages);
  db.deliver();
  EXPECT_EQ(db.value("select count(*) from outbox.parked p where p.key is null"), "8");
  const auto verdict = test::check_delivery(db, topics);
  EXPECT_TRUE(verdict.at_least_once()) << verdict;
}

// The database's clock was a day ahead when the batch was opened.
TEST_F(ParkingTest, AClockThatTheBrokerRefusesParksNothing) {
  // The default of Kafka 4; before it there is no bound.
  const std::string strict = db.topic("strict", 1, {"message.timestamp.after.max.ms=3600000"});
  put(strict, "'k'", text("k 1"));
  {
    auto doomed = db.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
    EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  }
  db.sql("update outbox.batch set opened_at = opened_at + interval '1 day'");
  auto relay = db.relay();
  relay.says("compare the clocks");
  EXPECT_EQ(parked(), "");
  db.sql("update outbox.batch set opened_at = clock_timestamp()");
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(parked(), "");
  const auto verdict = test::check_delivery(db, {strict});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

TEST_F(ParkingTest, MillionsOfBytesOfLargeMessagesStayWithinTheMemoryBound) {
  const std::string big = db.topic("big", 2, {"max.message.bytes=2000000"});
  db.sql("insert into outbox.message (topic, key, payload) select '" + big +
         "', 'k', convert_to(repeat(md5(g::text), 31250), 'UTF8') "
         "from generate_series(1, 120) g");
  auto relay = db.relay();
  db.wait_until_idle();
  const auto peak = test::run_command(
      {"/bin/sh", "-c", "grep VmHWM /proc/" + std::to_string(relay.pid()) + "/status | tr -dc 0-9"},
      {});
  EXPECT_LT(std::stoll(peak.output), 80'000)
      << "kB";  // two pages of 8 MiB, and what librdkafka copies of one to send it
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(test::check_delivery(db, {big}).lost, 0);
}

}  // namespace
}  // namespace relay
