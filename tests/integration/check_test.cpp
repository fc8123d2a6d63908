// SPDX-License-Identifier: Apache-2.0
// `check` finds what would break a guarantee, says how to fix it, and changes nothing.
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "tests/support/checker.h"
#include "tests/support/kafka_admin.h"

namespace relay {
namespace {

using nlohmann::json;
using test::ScratchKafka;
using test::ScratchPostgres;
using test::TestOutbox;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// What check answers for a db.
json check(TestOutbox& db, int code) {
  const auto done = db.command({"check", "--json"});
  EXPECT_EQ(done.code, code) << done.output;
  const auto answer = json::parse(done.output, nullptr, false);
  EXPECT_TRUE(answer.is_object()) << done.output;
  if (!answer.is_object()) return {{"findings", json::array()}};
  EXPECT_EQ(answer["schema"], 1);
  for (const auto& f : answer["findings"]) EXPECT_FALSE(f["hint"].get<std::string>().empty()) << f;
  return answer;
}

bool says(const json& answer, const std::string& severity, const std::string& about,
          const std::string& what) {
  for (const auto& f : answer["findings"]) {
    if (f["severity"] == severity && f["about"] == about && contains(f["what"], what)) return true;
  }
  return false;
}

int count(const json& answer, const std::string& severity) {
  int n = 0;
  for (const auto& f : answer["findings"]) n += f["severity"] == severity ? 1 : 0;
  return n;
}

class CheckTest : public ::testing::Test {
 protected:
  // Only this db's own topics, whatever else is on the broker.
  CheckTest() { db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = db.name() + ".*"; }

  json expect_refused(const std::string& what) {
    const json answer = check(db, 5);
    EXPECT_FALSE(answer["would_run"].get<bool>()) << answer;
    EXPECT_TRUE(says(answer, "refused", "PostgreSQL", what) ||
                says(answer, "refused", "Kafka", what))
        << answer;
    auto relay = db.relay();
    EXPECT_EQ(relay.wait(), 5) << "check and run must agree: " << relay.output();
    return answer;
  }

  TestOutbox db;
};

TEST_F(CheckTest, ASoundWorldHasNothingButNotesAndARunningRelayIsNotDisturbed) {
  const std::string topic = db.topic("t");
  auto relay = db.relay();
  relay.says("to=streaming");
  db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'x')");
  db.wait_until_idle();
  const std::string epoch = db.value("select epoch from outbox.lease");
  const json answer = check(db, 0);
  EXPECT_TRUE(answer["would_run"] && answer["postgres_reached"] && answer["kafka_reached"])
      << answer;
  EXPECT_EQ(count(answer, "note"), static_cast<int>(answer["findings"].size())) << answer;
  EXPECT_TRUE(says(answer, "note", "Kafka", "one broker")) << answer;
  const auto text = db.command({"check"});
  EXPECT_EQ(text.code, 0);
  EXPECT_TRUE(contains(text.output, "nothing was found")) << text.output;

  db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'y')");
  db.wait_until_idle();
  EXPECT_EQ(db.value("select epoch from outbox.lease"), epoch);
  EXPECT_FALSE(contains(relay.output(), "fenced") || contains(relay.output(), "stalled"))
      << relay.output();
  EXPECT_EQ(
      test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records.size(),
      2U);
}

TEST_F(CheckTest, SettingsOfTopicsThatBreakPromises) {
  db.topic("append", 1, {"message.timestamp.type=LogAppendTime"});
  db.topic("short", 1, {"retention.ms=3600000"});
  db.topic("small", 1, {"max.message.bytes=2000"});
  db.topic("unclean", 1, {"unclean.leader.election.enable=true"});
  db.topic("compact", 1, {"cleanup.policy=compact"});
  db.topic("fine");
  const std::string all = db.name() + ".";
  db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] =
      all + "*," + all + "missing,nothing-like-this.*,__consumer_offsets";
  const json answer = check(db, 1);
  EXPECT_TRUE(says(answer, "finding", "topic " + all + "append", "LogAppendTime")) << answer;
  EXPECT_TRUE(says(answer, "finding", "topic " + all + "short",
                   "keeps records for 1.0 h, the outbox keeps its messages for 24.0 h"))
      << answer;
  EXPECT_TRUE(says(answer, "finding", "topic " + all + "small", "max.message.bytes = 2000"))
      << answer;
  EXPECT_TRUE(says(answer, "finding", "topic " + all + "unclean", "unclean.leader.election"))
      << answer;
  EXPECT_TRUE(says(answer, "note", "topic " + all + "compact", "is compacted")) << answer;
  EXPECT_TRUE(says(answer, "finding", "topic " + all + "missing", "does not exist")) << answer;
  EXPECT_TRUE(says(answer, "note", "Kafka", "no topic matches \"nothing-like-this.*\"")) << answer;
  EXPECT_TRUE(says(answer, "finding", "topic __consumer_offsets", "internal topics")) << answer;
  EXPECT_EQ(count(answer, "finding"), 6) << answer;
  EXPECT_FALSE(contains(answer.dump(), all + "fine")) << answer;
  const auto text = db.command({"check"});
  EXPECT_TRUE(contains(text.output, "findings: 6") &&
              contains(text.output, "HINT: raise retention.ms"))
      << text.output;
}

TEST_F(CheckTest, AProgressTopicThatCannotKeepProgress) {
  const auto use = [&](const std::string& topic) {
    db.environment["OUTBOX_RELAY_KAFKA_PROGRESS_TOPIC"] = topic;
  };
  db.progress_topic("deleting");
  expect_refused("is not compacted");
  const std::string both = db.progress_topic("both", 1, {"cleanup.policy=compact,delete"});
  EXPECT_TRUE(says(check(db, 1), "finding", "topic " + both, "deletes by time"));
  db.progress_topic("several", 3, {"cleanup.policy=compact"});
  expect_refused("has 3 partitions");
  use("outbox-progress.nowhere." + db.name());
  expect_refused("does not exist");

  TestOutbox other;
  other.sql("insert into outbox.message (topic, payload) values ('" + other.topic("t") + "', 'x')");
  {
    auto relay = other.relay();
    relay.says("to=streaming");
    other.wait_until_idle();
  }
  use("outbox-progress." + other.name());
  expect_refused("another relay");
}

TEST_F(CheckTest, WhatRunRefusesInTheDatabase) {
  db.sql("alter sequence outbox.message_seq_seq cache 20");
  expect_refused("CACHE 1");
  db.sql("alter sequence outbox.message_seq_seq cache 1");
  db.sql("alter table outbox.message enable row level security");
  expect_refused("row-level security");
  db.sql("alter table outbox.message disable row level security");
  db.sql("update outbox.lease set relay = 'somebody-else'");
  expect_refused("somebody-else");
  db.sql("drop schema outbox cascade");
  expect_refused("no outbox schema");
}

TEST_F(CheckTest, AnotherClustersProgressIsRefused) {
  ScratchPostgres elsewhere;
  TestOutbox first(elsewhere);
  first.sql("insert into outbox.message (topic, payload) values ('" + first.topic("t") + "', 'x')");
  {
    auto relay = first.relay();
    relay.says("to=streaming");
    first.wait_until_idle();
  }
  db.environment["OUTBOX_RELAY_RELAY_NAME"] = first.name();
  expect_refused("from the database cluster");
}

TEST_F(CheckTest, TablesThatACrashWouldEmptyAndAMissingConstraint) {
  db.sql("alter table outbox.scheduled set unlogged");
  db.sql("alter table outbox.message drop constraint own_txid");
  const json answer = check(db, 1);
  EXPECT_TRUE(says(answer, "finding", "PostgreSQL", "outbox.scheduled is unlogged")) << answer;
  EXPECT_TRUE(says(answer, "finding", "PostgreSQL", "own_txid is missing")) << answer;
}

TEST_F(CheckTest, AGuardThatIsOffIsNamed) {
  db.sql("create role \"" + db.name() + "\" login in role outbox_relay");
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = db.postgres().dsn(db.database(), db.name());
  EXPECT_EQ(count(check(db, 0), "refused"), 0);
  db.sql("revoke execute on function pg_control_system() from public");
  expect_refused("pg_control_system");
  db.environment["OUTBOX_RELAY_POSTGRES_ALLOW_UNVERIFIED_SERVER"] = "true";
  json answer = check(db, 0);
  EXPECT_TRUE(says(answer, "note", "PostgreSQL", "the check for another cluster is off")) << answer;
  EXPECT_FALSE(says(answer, "note", "PostgreSQL", "former primary")) << answer;
  db.sql("revoke execute on function pg_walfile_name(pg_lsn) from public");
  answer = check(db, 0);
  EXPECT_TRUE(says(answer, "note", "PostgreSQL", "the check for a former primary is off"))
      << answer;
}

TEST_F(CheckTest, WhatIsNotReachableIsSaidAndTheRestIsStillLookedAt) {
  const std::string dsn = db.environment["OUTBOX_RELAY_POSTGRES_DSN"];
  db.topic("append", 1, {"message.timestamp.type=LogAppendTime"});
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = "host=127.0.0.1 port=1 dbname=x user=x";
  json answer = check(db, 3);
  EXPECT_FALSE(answer["postgres_reached"].get<bool>());
  EXPECT_TRUE(says(answer, "finding", "topic " + db.name() + ".append", "LogAppendTime")) << answer;
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = dsn;
  db.environment["OUTBOX_RELAY_KAFKA_BROKERS"] = "127.0.0.1:1";
  db.sql("alter table outbox.scheduled set unlogged");
  answer = check(db, 4);
  EXPECT_FALSE(answer["kafka_reached"].get<bool>());
  EXPECT_TRUE(says(answer, "finding", "PostgreSQL", "unlogged")) << answer;
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "never";
  const auto wrong = db.command({"check"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_TRUE(contains(wrong.output, "OUTBOX_RELAY_LEASE_TTL") && contains(wrong.output, "HINT: "))
      << wrong.output;
}

// librdkafka's own error is "Broker transport failure" each time.
TEST_F(CheckTest, AClusterThatIsNotReachedIsNamedWithTheReasonByEachCommand) {
  const std::map<std::string, std::string> reasons = {
      {"127.0.0.1:1", "Connection refused"},
      {"no-such-host.invalid:9092", "Failed to resolve"},
  };
  for (const auto& [brokers, reason] : reasons) {
    db.environment["OUTBOX_RELAY_KAFKA_BROKERS"] = brokers;
    std::vector<std::vector<std::string>> commands = {{"check"}};
    if (brokers == "127.0.0.1:1") commands.push_back({"init", "--kafka"});  // which takes 20 s
    for (const auto& command : commands) {
      const auto done = db.command(command);
      EXPECT_EQ(done.code, 4) << command[0] << ": " << done.output;
      EXPECT_TRUE(contains(done.output, reason)) << command[0] << ": " << done.output;
      EXPECT_TRUE(contains(done.output, brokers)) << command[0] << ": " << done.output;
    }
    auto relay = db.relay();
    relay.says("to=stalled");
    relay.says(reason);
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(), 0) << relay.output();
  }
}

TEST(CheckServers, AServerThatDoesNotKeepWhatItAcknowledges) {
  ScratchPostgres careless({"fsync=off", "full_page_writes=off"});
  TestOutbox db(careless);
  db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = db.name() + ".*";
  const json answer = check(db, 1);
  EXPECT_TRUE(says(answer, "finding", "PostgreSQL", "fsync is off")) << answer;
  EXPECT_TRUE(says(answer, "finding", "PostgreSQL", "full_page_writes is off")) << answer;
  EXPECT_EQ(count(answer, "finding"), 2) << answer;
}

TEST(CheckServers, ABrokerWithCarelessSettingsAndRightsThatAreMissing) {
  ScratchKafka careless(
      {"auto.create.topics.enable=true", "transaction.partition.verification.enable=false",
       "unclean.leader.election.enable=true", "allow.everyone.if.no.acl.found=true",
       "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer"});
  TestOutbox db(test::shared_postgres(), &careless);
  const std::string secret = db.topic("secret");
  const std::string opaque = db.topic("opaque");
  const std::string missing = db.name() + ".missing";
  test::deny(careless.brokers(), secret, test::Denied::describe);
  test::deny(careless.brokers(), opaque, test::Denied::describe_configs);
  db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = secret + "," + opaque + "," + missing;
  json answer;
  // The rights take a moment to reach the broker.
  test::eventually("the rights are in force", [&] {
    answer = json::parse(db.command({"check", "--json"}).output);
    return says(answer, "finding", "topic " + secret, "may not use it") &&
           says(answer, "note", "topic " + opaque, "may not describe");
  });
  EXPECT_TRUE(says(answer, "finding", "broker 1", "auto.create.topics.enable")) << answer;
  EXPECT_TRUE(
      says(answer, "finding", "broker 1", "transaction.partition.verification.enable = false"))
      << answer;
  EXPECT_TRUE(says(answer, "finding", "broker 1", "unclean.leader.election.enable")) << answer;
  // Looking for a topic does not create it.
  EXPECT_TRUE(says(answer, "finding", "topic " + missing, "does not exist")) << answer;
  EXPECT_TRUE(says(check(db, 1), "finding", "topic " + missing, "does not exist"));
  db.environment["OUTBOX_RELAY_RELAY_MODE"] = "at-least-once";
  EXPECT_FALSE(says(check(db, 1), "finding", "broker 1",
                    "transaction.partition.verification.enable = false"));
}

}  // namespace
}  // namespace relay
