// SPDX-License-Identifier: Apache-2.0
// `trace` says where a message is, in every state that it can be in, and reads it back from Kafka.
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "tests/support/checker.h"
#include "tests/support/kafka_admin.h"

namespace relay {
namespace {

using nlohmann::json;
using test::TestOutbox;

class TraceTest : public ::testing::Test {
 protected:
  TraceTest() : topic(db.topic("t")) {}

  // Inserts one message and returns its id; more columns and their values as SQL.
  std::string put(const std::string& columns = "", const std::string& values = "") {
    return db.value("insert into outbox.message (topic, key, payload" + columns + ") values ('" +
                    topic + "', 'k', 'x'" + values + ") returning id");
  }
  void crash(const std::string& at) {
    auto doomed = db.relay({{"OUTBOX_CRASH_AT", at}}, "relay-with-crash-points");
    ASSERT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  }
  void lease_expires() {
    test::eventually("the lease expires", [this] {
      return db.value("select expires_at < clock_timestamp() from outbox.lease") == "t";
    });
  }
  // The messages that trace finds.
  json trace(std::vector<std::string> arguments, int code = 0) {
    arguments.insert(arguments.begin(), "trace");
    arguments.emplace_back("--json");
    const auto done = db.command(arguments);
    EXPECT_EQ(done.code, code) << done.output;
    const auto answer = json::parse(done.output.substr(done.output.find('{')), nullptr, false);
    EXPECT_TRUE(answer.is_object()) << done.output;
    if (!answer.is_object()) return json::array();
    EXPECT_EQ(answer["schema"], 1);
    return answer["messages"];
  }
  json trace_one(const std::string& id, int code = 0) {
    const json found = trace({id}, code);
    EXPECT_EQ(found.size(), 1U) << found;
    return found.empty() ? json::object() : found[0];
  }
  // For an operator.
  std::string trace_text(const std::string& id, int code = 0) {
    const auto done = db.command({"trace", id});
    EXPECT_EQ(done.code, code) << done.output;
    return done.output;
  }
  // Compares what trace says of every message with the topic itself.
  void expect_every_message_where_it_is() {
    const auto log = test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed);
    ASSERT_EQ(std::to_string(log.records.size()), db.value("select count(*) from outbox.message"));
    for (const auto& record : log.records) {
      const json found = trace_one(*record.header("dedup-key"));
      EXPECT_EQ(found["state"], "delivered") << found;
      EXPECT_EQ(found["kafka"]["verdict"], "found") << found;
      EXPECT_EQ(found["kafka"]["partition"], record.partition) << found;
      EXPECT_EQ(found["kafka"]["offset"], record.offset) << found;
    }
  }

  TestOutbox db;
  std::string topic;
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(TraceTest, AMessageIsPendingUntilItIsDeliveredAndThenReadBack) {
  const std::string id = put();
  json found = trace_one(id);
  EXPECT_EQ(found["state"], "pending");
  EXPECT_EQ(found["batch"], nullptr);
  EXPECT_EQ(found["kafka"], nullptr);
  EXPECT_EQ(found["topic"], topic);
  EXPECT_EQ(found["dedup_key"], id);
  EXPECT_TRUE(contains(trace_text(id), "No relay is running")) << trace_text(id);
  db.sql("insert into outbox.message (topic, key, payload) select '" + topic +
         "', convert_to(g::text, 'UTF8'), 'x' from generate_series(1, 6) g");
  db.deliver();
  expect_every_message_where_it_is();
  found = trace_one(id);
  EXPECT_EQ(found["batch"]["number"], 1);
  EXPECT_EQ(found["batch"]["mode"], "exactly-once");
  EXPECT_FALSE(found["batch"]["delivered_at"].is_null());
  EXPECT_EQ(trace({"--seq", "1"}), trace({id}));
  EXPECT_TRUE(contains(trace_text(id), "read back from Kafka")) << trace_text(id);
}

TEST_F(TraceTest, WhatRecoveryFoundDeliveredIsFoundBetweenTheNeighbours) {
  put();
  db.deliver();
  put();
  put();
  crash("confirmed");
  put();
  db.deliver();
  put();
  db.deliver();
  EXPECT_EQ(
      db.value(
          "select count(*) from outbox.batch where delivered_at is not null and offsets is null"),
      "1");
  expect_every_message_where_it_is();
}

TEST_F(TraceTest, TheVeryFirstBatchIsFoundAlsoIfRecoveryFoundItDelivered) {
  put();
  crash("confirmed");
  db.deliver();
  EXPECT_EQ(
      db.value(
          "select count(*) from outbox.batch where delivered_at is not null and offsets is null"),
      "1");
  expect_every_message_where_it_is();
}

TEST_F(TraceTest, ABatchInDoubtIsExplainedAndLookedForInKafka) {
  const std::string lost = put();
  crash("opened");
  lease_expires();
  json found = trace_one(lost);
  EXPECT_EQ(found["state"], "in_doubt");
  EXPECT_EQ(found["kafka"]["verdict"], "absent") << found;
  EXPECT_TRUE(
      contains(found["explanation"], "sends the batch again only if Kafka does not have it"))
      << found;
  db.deliver();
  const std::string kept = put();
  crash("confirmed");
  lease_expires();
  found = trace_one(kept);
  EXPECT_EQ(found["state"], "in_doubt");
  EXPECT_EQ(found["kafka"]["verdict"], "found") << found;
  EXPECT_TRUE(contains(found["explanation"], "the next relay marks it delivered")) << found;
}

TEST_F(TraceTest, AtLeastOnceWhatKafkaHasOfABatchInDoubtIsSentAgain) {
  db.environment["OUTBOX_RELAY_RELAY_MODE"] = "at-least-once";
  const std::string id = put();
  crash("reported");
  lease_expires();
  const json found = trace_one(id);
  EXPECT_EQ(found["state"], "in_doubt");
  EXPECT_EQ(found["kafka"]["verdict"], "found") << found;
  EXPECT_TRUE(contains(found["explanation"], "sends the batch again")) << found;
  EXPECT_FALSE(contains(found["explanation"], "transaction")) << found;
}

TEST_F(TraceTest, ABatchThatIsBeingSentIsNotInDoubt) {
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "60s";
  const std::string id = put();
  auto relay = db.relay({{"OUTBOX_STOP_AT", "opened"}}, "relay-with-crash-points");
  test::eventually("the batch is open",
                   [this] { return db.value("select count(*) from outbox.batch") == "1"; });
  const json found = trace_one(id);
  EXPECT_EQ(found["state"], "sending") << found;
  EXPECT_TRUE(contains(found["explanation"], "being sent")) << found;
}

TEST_F(TraceTest, AParkedMessageComesWithItsReasonAlsoWhenRetentionTookTheRow) {
  const std::string id = put(", headers", ", '[]'");
  db.deliver();
  for (const bool pruned : {false, true}) {
    if (pruned) db.sql("delete from outbox.message");
    const json found = trace_one(id);
    EXPECT_EQ(found["state"], "parked") << found;
    EXPECT_EQ(found["kafka"], nullptr) << found;
    ASSERT_EQ(found["parked"].size(), 1U) << found;
    EXPECT_EQ(found["parked"][0]["error_class"], "bad_headers") << found;
    EXPECT_EQ(found["parked"][0]["parked_for"], 1) << found;
    EXPECT_TRUE(contains(found["explanation"], "It waits for a decision")) << found;
  }
}

TEST_F(TraceTest, AScheduledMessageSaysWhenItIsDue) {
  const auto enqueue = [this](const std::string& when) {
    return db.value("select outbox.enqueue('" + topic + "', 'k'::text, 'x'::text, deliver_at => " +
                    when + ")");
  };
  const json later = trace_one(enqueue("'2100-01-01 00:00:00+00'"));
  EXPECT_EQ(later["state"], "scheduled");
  EXPECT_EQ(later["deliver_at"], "2100-01-01T00:00:00.000000Z");
  EXPECT_TRUE(contains(later["explanation"], "not to be delivered before 2100-01-01")) << later;
  const std::string id = enqueue("clock_timestamp() - interval '1 s'");
  EXPECT_TRUE(contains(trace_one(id)["explanation"], "It is due")) << trace_one(id);
  auto relay = db.relay();
  test::eventually("the due message is moved",
                   [&] { return trace_one(id)["state"] != "scheduled"; });
  db.wait_until_idle();
  EXPECT_EQ(trace_one(id)["kafka"]["verdict"], "found");
}

TEST_F(TraceTest, EveryMessageOfADeduplicationKeyIsShown) {
  put(", dedup_key", ", 'order-1'");
  db.deliver();
  put(", dedup_key", ", 'order-1'");
  db.deliver();
  const json found = trace({"--key", "order-1"});
  ASSERT_EQ(found.size(), 2U) << found;
  EXPECT_NE(found[0]["kafka"]["offset"], found[1]["kafka"]["offset"]) << found;
  EXPECT_EQ(found[0]["kafka"]["verdict"], "found") << found;
  EXPECT_EQ(found[1]["kafka"]["verdict"], "found") << found;
  // Without a key of its own, the id is the key that consumers see.
  const std::string id = put();
  EXPECT_EQ(trace({"--key", id}), trace({id}));
  EXPECT_EQ(trace({"--key", found[0]["id"]}, 1).size(), 0U);
}

TEST_F(TraceTest, WhatIsNotThereIsNotFound) {
  db.sql(
      "begin; insert into outbox.message (id, topic, payload) values "
      "('00000000-0000-7000-8000-000000000001', 't', 'x'); rollback");
  for (const std::vector<std::string>& which :
       std::vector<std::vector<std::string>>{{"00000000-0000-7000-8000-000000000001"},
                                             {"--key", "nobody"},
                                             {"--key", "o'brien\"; --"},
                                             {"--seq", "1"},
                                             {"--seq", "-5"}}) {
    EXPECT_TRUE(trace(which, 1).empty());
    std::vector<std::string> words = which;
    words.insert(words.begin(), "trace");
    const auto done = db.command(words);
    EXPECT_EQ(done.code, 1) << done.output;
    EXPECT_TRUE(contains(done.output, "no committed message") && contains(done.output, "HINT: "))
        << done.output;
  }
}

TEST_F(TraceTest, RecordsThatTheTopicHasRemovedAreExpired) {
  const std::string id = put();
  db.deliver();
  for (int p = 0; p < 3; ++p) test::delete_records(db.kafka().brokers(), topic, p);
  EXPECT_EQ(trace_one(id)["kafka"]["verdict"], "expired");
  EXPECT_TRUE(contains(trace_text(id), "expired from the topic")) << trace_text(id);
  db.kafka().delete_topic(topic);
  test::eventually("the topic is gone", [&] {
    return contains(db.command({"trace", id, "--json"}).output, "\"no_topic\"");
  });
  EXPECT_EQ(trace_one(id, 1)["kafka"]["verdict"], "no_topic");
  // Another topic of that name has fewer records than the journal says, and none was removed.
  db.topic("t");
  test::eventually("the new topic is served", [&] {
    return contains(db.command({"trace", id, "--json"}).output, "\"absent\"");
  });
  EXPECT_EQ(trace_one(id, 1)["kafka"]["verdict"], "absent");
}

TEST_F(TraceTest, ATopicWithTimesOfItsOwnIsReadByTheHeaderSentAt) {
  topic = db.topic("append", 1, {"message.timestamp.type=LogAppendTime"});
  put();
  db.deliver();
  expect_every_message_where_it_is();
}

TEST_F(TraceTest, SuchATopicIsReadWhereTheRelayCouldNotKnow) {
  TestOutbox closed(test::shared_postgres(), &test::shared_kafka_with_rights());
  const std::string append = closed.topic("append", 1, {"message.timestamp.type=LogAppendTime"});
  test::deny(closed.kafka().brokers(), append, test::Denied::describe_configs);
  const std::string id = closed.value("insert into outbox.message (topic, key, payload) values ('" +
                                      append + "', 'k', 'x') returning id");
  closed.deliver();
  const auto log =
      test::read_log(closed.kafka().brokers(), {append}, test::Isolation::read_committed);
  ASSERT_EQ(log.records.size(), 1U);
  ASSERT_FALSE(log.records[0].header("sent-at"));
  const auto traced = closed.command({"trace", id});
  EXPECT_EQ(traced.code, 0) << traced.output;
  EXPECT_TRUE(contains(traced.output, "read back from Kafka")) << traced.output;
}

TEST_F(TraceTest, WithoutKafkaItTellsWhatPostgresKnows) {
  const std::string id = put();
  db.deliver();
  db.environment["OUTBOX_RELAY_KAFKA_BROKERS"] = "127.0.0.1:1";
  const json found = trace_one(id, 4);
  EXPECT_EQ(found["state"], "delivered");
  EXPECT_EQ(found["kafka"]["verdict"], "unreachable");
}

TEST_F(TraceTest, AnObserverMayTraceAndALoginWithoutRightsLearnsWhatItNeeds) {
  const std::string id = put(", headers", ", '{\"a\": \"b\"}'");
  db.deliver();
  const std::string login = "watcher-" + db.name();
  db.sql("create role \"" + login + "\" login");
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = db.postgres().dsn(db.database(), login);
  const auto refused = db.command({"trace", id});
  EXPECT_EQ(refused.code, 5) << refused.output;
  EXPECT_TRUE(contains(refused.output, "HINT: grant the role outbox_observer")) << refused.output;
  db.sql("grant outbox_observer to \"" + login + "\"");
  EXPECT_EQ(trace_one(id)["kafka"]["verdict"], "found");
  EXPECT_EQ(trace({"--key", id}).size(), 1U);
  EXPECT_EQ(trace({"--seq", "1"}).size(), 1U);
}

}  // namespace
}  // namespace relay
