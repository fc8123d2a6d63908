// SPDX-License-Identifier: Apache-2.0
// A database in which a guarantee could not be kept is refused, each with its own clear error, and
// nothing is sent.
#include <gtest/gtest.h>
#include <librdkafka/rdkafka.h>
#include <signal.h>

#include <librdkafka/rdkafka_mock.h>  // wants the other one first

#include "relay/kafka/handle.h"
#include "tests/support/checker.h"

namespace relay {
namespace {

using test::TestOutbox;

class BadInputTest : public ::testing::Test {
 protected:
  BadInputTest() : topic(db.topic("t")) {
    db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'x')");
  }

  void refused(const std::string& why, const std::string& remedy, int code = 5) {
    auto relay = db.relay();
    EXPECT_EQ(relay.wait(), code) << relay.output();
    EXPECT_NE(relay.output().find(why), std::string::npos) << relay.output();
    EXPECT_NE(relay.output().find("HINT: "), std::string::npos) << relay.output();
    EXPECT_NE(relay.output().find(remedy), std::string::npos) << relay.output();
    EXPECT_TRUE(test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_uncommitted)
                    .records.empty());
  }

  TestOutbox db;
  std::string topic;
};

TEST_F(BadInputTest, ADatabaseWithoutTheSchema) {
  db.sql("drop schema outbox cascade");
  refused("no outbox schema", "outbox-relay init");
}

TEST_F(BadInputTest, AnOlderSchema) {
  db.sql("delete from outbox.schema_version");
  refused("has version 0", "outbox-relay init");
}

TEST_F(BadInputTest, ANewerSchema) {
  db.sql("insert into outbox.schema_version (number, name) values (77, 'future')");
  refused("has version 77", "newer outbox-relay");
}

TEST_F(BadInputTest, AnEncodingInWhichATextCanHaveNoUtf8Form) {
  // init refuses such a database; one that got the schema all the same is refused as well.
  db.sql("update pg_database set encoding = pg_char_to_encoding('SQL_ASCII') where datname = '" +
         db.database() + "'");
  refused("encoding SQL_ASCII", "UTF8");
}

TEST_F(BadInputTest, MissingRights) {
  db.sql("create role \"" + db.name() + "\" login");
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = db.postgres().dsn(db.database(), db.name());
  refused("", "grant");
  db.sql("grant usage on schema outbox to \"" + db.name() + "\"");
  db.sql("grant select on outbox.schema_version to \"" + db.name() + "\"");
  refused("lacks rights", "grant the role outbox_relay");
}

TEST_F(BadInputTest, RowLevelSecurity) {
  db.sql("alter table outbox.message enable row level security");
  refused("row-level security is enabled on outbox.message", "disable row level security");
}

TEST_F(BadInputTest, ASequenceThatBreaksTheOrderOfKeys) {
  db.sql("alter sequence outbox.message_seq_seq cache 20");
  refused("CACHE 1", "alter sequence");
}

TEST_F(BadInputTest, ASequenceThatWentBack) {
  db.sql("alter sequence outbox.message_seq_seq restart with 1");
  refused("behind the newest message", "adopt");
}

TEST_F(BadInputTest, AnotherCluster) {
  db.sql("update outbox.lease set cluster = 1");
  refused("another cluster", "adopt");
}

TEST_F(BadInputTest, TransactionIdsFromTheFuture) {
  db.sql("alter table outbox.message drop constraint own_txid");
  db.sql("update outbox.message set txid = '999999999'");
  refused("from the future", "adopt");
}

TEST_F(BadInputTest, ASecondRelayName) {
  db.sql("update outbox.lease set relay = 'somebody-else'");
  refused("somebody-else", "relay.name");
}

TEST_F(BadInputTest, AProgressTopicWithSeveralPartitions) {
  db.progress_topic("wide", 3);
  refused("3 partitions", "create it again");
}

TEST_F(BadInputTest, AProgressTopicThatIsNotCompacted) {
  db.progress_topic("deleting");
  refused("is not compacted", "cleanup.policy=compact");
}

TEST_F(BadInputTest, AMissingProgressTopic) {
  db.environment["OUTBOX_RELAY_KAFKA_PROGRESS_TOPIC"] = "outbox-progress.nowhere." + db.name();
  refused("does not exist", "init --kafka");
}

TEST_F(BadInputTest, AProgressTopicOfAnotherRelay) {
  TestOutbox other;
  const std::string t = other.topic("t");
  other.sql("insert into outbox.message (topic, payload) values ('" + t + "', 'x')");
  auto relay = other.relay();
  other.wait_until_idle();
  db.environment["OUTBOX_RELAY_KAFKA_PROGRESS_TOPIC"] = "outbox-progress." + other.name();
  refused("another relay", "progress topic of its own");
}

// No broker without transactions can be started any more; librdkafka's own mock can be configured
// which requests it knows.
class OldBroker {
 public:
  OldBroker(const std::string& progress_topic, const std::vector<std::int16_t>& unknown_requests) {
    char why[256];
    client_.reset(rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), why, sizeof why));
    cluster_.reset(rd_kafka_mock_cluster_new(client_.get(), 1));
    rd_kafka_mock_topic_create(cluster_.get(), progress_topic.c_str(), 1, 1);
    for (const auto request : unknown_requests)
      rd_kafka_mock_set_apiversion(cluster_.get(), request, -1, -1);
  }
  std::string brokers() const { return rd_kafka_mock_cluster_bootstraps(cluster_.get()); }
  void create_topic(const std::string& name) {
    rd_kafka_mock_topic_create(cluster_.get(), name.c_str(), 1, 1);
  }

 private:
  kafka::Client client_;
  kafka::Owned<rd_kafka_mock_cluster_t, rd_kafka_mock_cluster_destroy> cluster_;
};

class OldBrokerTest : public ::testing::Test {
 protected:
  // A relay with a message for a broker that does not know this request.
  test::Process relay_without(std::int16_t request) {
    broker.emplace("outbox-progress." + db.name(), std::vector{request});
    broker->create_topic("t");
    db.environment["OUTBOX_RELAY_KAFKA_BROKERS"] = broker->brokers();
    db.sql("insert into outbox.message (topic, payload) values ('t', 'x')");
    return db.relay();
  }

  TestOutbox db{test::shared_postgres(), nullptr};
  std::optional<OldBroker> broker;
};

TEST_F(OldBrokerTest, IsRefusedWithAHintToUseAtLeastOnce) {
  auto relay = relay_without(22);
  EXPECT_EQ(relay.wait(), 5) << relay.output();
  EXPECT_NE(relay.output().find(
                "HINT: this broker cannot do transactions: set relay.mode = \"at-least-once\""),
            std::string::npos)
      << relay.output();
}

// No broker lacks this request alone. The mock shows records that were not committed, so that
// recovery finds the batch and goes on.
TEST_F(OldBrokerTest, ThatCannotEndTransactionsIsNamedWithTheHint) {
  auto relay = relay_without(26);
  relay.says("this broker cannot do transactions: set relay.mode");
  EXPECT_NE(relay.output().find("to=stalled"), std::string::npos) << relay.output();
}

TEST(OldBrokerCheck, SaysThatRunWouldRefuse) {
  TestOutbox db(test::shared_postgres(), nullptr);
  OldBroker broker("outbox-progress." + db.name(), {22});
  db.environment["OUTBOX_RELAY_KAFKA_BROKERS"] = broker.brokers();
  db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = "none.*";
  const auto done = db.command({"check"});
  EXPECT_EQ(done.code, 5) << done.output;
  EXPECT_NE(done.output.find("broker 1"), std::string::npos) << done.output;
  EXPECT_NE(done.output.find("set relay.mode = \"at-least-once\""), std::string::npos)
      << done.output;
}

// What the relay reads whole, and what indexes hold, is bounded where it is written.
TEST_F(BadInputTest, NamesKeysAndHeadersThatAreTooLarge) {
  const auto refuses = [&](const std::string& columns, const std::string& values,
                           const std::string& constraint) {
    for (const std::string& table :
         {std::string("message (") + columns, std::string("scheduled (deliver_at, ") + columns}) {
      const std::string due = table.starts_with("scheduled") ? "now(), " : "";
      try {
        db.sql("insert into outbox." + table + ") values (" + due + values + ")");
        ADD_FAILURE() << table << " took " << values.substr(0, 80);
      } catch (const pqxx::sql_error& e) {
        EXPECT_NE(std::string(e.what()).find(constraint), std::string::npos) << e.what();
      }
    }
  };
  refuses("topic", "repeat('t', 1025)", "topic_at_most_1024_bytes");
  refuses("topic, key", "'t', convert_to(repeat('k', 1048577), 'UTF8')", "key_at_most_1_mib");
  refuses("topic, headers", "'t', jsonb_build_object('h', repeat('x', 1048576))",
          "headers_at_most_1_mib");
  db.sql("insert into outbox.message (topic) values (repeat('ü', 512))");
  db.deliver();
  EXPECT_EQ(db.value("select error_class from outbox.parked"), "topic_invalid");
}

TEST_F(BadInputTest, NamesMadeOfOtherThingsAreParkedWithoutAFloodOfLines) {
  db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = topic;
  db.sql("insert into outbox.message (topic) select 'name-' || g from generate_series(1, 25000) g");
  const std::string log = db.deliver();
  EXPECT_EQ(
      db.value("select count(*) from outbox.parked p where p.error_class = 'topic_not_allowed'"),
      "25000");
  int lines = 0;
  for (auto at = log.find("topic_unwritable"); at != std::string::npos;
       at = log.find("topic_unwritable", at + 1))
    ++lines;
  EXPECT_GE(lines, 1);
  EXPECT_LE(lines, 40);  // 20 a minute
}

// The first page that a relay reads is cut by guess.
TEST_F(BadInputTest, ABacklogOfLargeHeaders) {
  db.sql("insert into outbox.message (topic, headers) select '" + topic +
         "', jsonb_build_object('a', repeat('h', 8000)) "
         "from generate_series(1, 1000) g");
  db.deliver({{"OUTBOX_RELAY_DELIVERY_BATCH_BYTES_MAX", "64KiB"},
              {"OUTBOX_RELAY_DELIVERY_MESSAGE_BYTES_MAX", "1KiB"}});
  EXPECT_EQ(
      test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records.size(),
      1'001U);
}

// A key and headers of a megabyte each are legal where the topic takes them, and are found before
// they are sent where it does not.
TEST_F(BadInputTest, LargeKeysAndHeaders) {
  const std::string wide = db.topic("wide", 1, {"max.message.bytes=4000000"});
  for (const std::string& to : {topic, wide}) {
    db.sql(
        "insert into outbox.message (topic, key, payload, headers) values ('" + to +
        "', convert_to(repeat('k', 1048576), 'UTF8'), "
        "convert_to(repeat('p', 1048576), 'UTF8'), jsonb_build_object('a', repeat('h', 1048000)))");
  }
  const std::string log = db.deliver();
  EXPECT_EQ(
      db.value("select string_agg(p.topic || ' ' || p.error_class, ',') from outbox.parked p"),
      topic + " too_large");
  EXPECT_EQ(log.find("messages_refused"), std::string::npos) << log;
  const auto records =
      test::read_log(db.kafka().brokers(), {wide}, test::Isolation::read_committed).records;
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records.front().header("a")->size(), 1'048'000U);
}

TEST_F(BadInputTest, RowsThatSomebodyDeletedFromABatchInDoubt) {
  db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'y')");
  {
    auto doomed = db.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
    EXPECT_EQ(doomed.wait(), -SIGKILL);
  }
  db.sql("delete from outbox.message where seq = 1");
  refused("deleted or hid rows", "outbox.message");
  // As the page for operators says: one is lost.
  db.sql(
      "update outbox.batch set messages = messages - 1 where number = 1 and delivered_at is null");
  db.deliver();
  const auto records =
      test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records;
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records.front().payload, "y");
}

}  // namespace
}  // namespace relay
