// SPDX-License-Identifier: Apache-2.0
// The rows of recovery's table that need other servers than the usual ones: a promoted standby,
// another cluster, a database that went back, a progress topic that is gone.
#include <gtest/gtest.h>
#include <librdkafka/rdkafka.h>
#include <signal.h>

#include <random>

#include "relay/kafka/progress.h"
#include "tests/support/checker.h"
#include "tests/support/load.h"

namespace relay {
namespace {

using test::ScratchPostgres;
using test::TestOutbox;

kafka::Options kafka_of(TestOutbox& db) {
  kafka::Options o;
  o.brokers = db.kafka().brokers();
  o.relay = db.name();
  o.progress_topic = "outbox-progress." + db.name();
  return o;
}

// Appends a progress record as some other relay process would have.
void append_progress(TestOutbox& db, const Progress& progress) {
  const auto options = kafka_of(db);
  auto client = kafka::make_client(RD_KAFKA_PRODUCER, std::move(*kafka::make_conf(options, {})));
  ASSERT_TRUE(client);
  const std::string value = kafka::progress_json(progress);
  rd_kafka_producev(client->get(), RD_KAFKA_V_TOPIC(options.progress_topic.c_str()),
                    RD_KAFKA_V_PARTITION(0),
                    RD_KAFKA_V_KEY(options.relay.data(), options.relay.size()),
                    RD_KAFKA_V_VALUE(const_cast<char*>(value.data()), value.size()),
                    RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
  ASSERT_EQ(rd_kafka_flush(client->get(), 10'000), RD_KAFKA_RESP_ERR_NO_ERROR);
}

Progress newest_progress(TestOutbox& db) {
  const auto found = kafka::read_progress(kafka_of(db), true, Deadline(Millis{10'000}));
  if (!found || !*found) throw std::runtime_error("no progress record");
  return **found;
}

void deliver(TestOutbox& db, const std::string& topic, int transactions) {
  test::write(db, topic, transactions);
  db.deliver();
}

// A relay that must refuse, and say why, before it has fenced or changed anything.
void refuses(TestOutbox& db, const std::string& why) {
  const std::string before = db.value("select epoch from outbox.lease");
  auto relay = db.relay();
  EXPECT_EQ(relay.wait(), 5) << relay.output();
  EXPECT_NE(relay.output().find(why), std::string::npos) << relay.output();
  EXPECT_NE(relay.output().find("HINT: "), std::string::npos) << relay.output();
  EXPECT_EQ(db.value("select epoch from outbox.lease"), before);
}

class RecoveryServersTest : public ::testing::Test {
 protected:
  RecoveryServersTest() : topic(db.topic("t")) { test::create_counters(db); }
  // The progress topic is deleted, which the relay refuses, and created again, empty: nobody can
  // know what became of a batch in doubt.
  void lose_progress() {
    db.kafka().delete_topic("outbox-progress." + db.name());
    // The broker forgets the topic a moment after it has answered.
    test::eventually("the progress topic is gone", [&] {
      const auto found = kafka::read_progress(kafka_of(db), false, Deadline(Millis{5'000}));
      return !found && found.error().fault == Fault::refused;
    });
    refuses(db, "does not exist");
    EXPECT_EQ(db.command({"init", "--kafka"}).code, 0);
  }

  TestOutbox db;
  std::string topic;
};

TEST_F(RecoveryServersTest, ARecordOfAnotherClusterIsRefusedAndNobodyIsFenced) {
  deliver(db, topic, 5);
  Progress p = newest_progress(db);
  p.identity.cluster += 1;
  append_progress(db, p);
  refuses(db, "from the database cluster");
}

TEST_F(RecoveryServersTest, ARecordOfANewerTimelineIsRefusedAndNobodyIsFenced) {
  deliver(db, topic, 5);
  Progress p = newest_progress(db);
  p.identity.timeline = 0x0A;  // as a number, not as text
  append_progress(db, p);
  refuses(db, "no longer the primary");
}

TEST_F(RecoveryServersTest, AnUnknownRecordIsReportedAndTheRelayGoesOnAboveIt) {
  deliver(db, topic, 5);
  Progress p = newest_progress(db);
  p.token = Uuid::random();
  p.number += 40;
  append_progress(db, p);
  test::write(db, topic, 5);
  auto relay = db.relay();
  relay.says("database_went_back");
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_GT(std::stoll(db.value("select max(number) from outbox.batch")), p.number);
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

TEST_F(RecoveryServersTest, ADeletedProgressTopicIsRefusedWithItsRemedyAndAnEmptyOneIsReported) {
  test::write(db, topic, 10);
  auto doomed = db.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
  EXPECT_EQ(doomed.wait(), -SIGKILL);
  deliver(db, topic, 5);
  auto again = db.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
  test::write(db, topic, 5);
  EXPECT_EQ(again.wait(), -SIGKILL);

  lose_progress();
  {
    auto relay = db.relay({{"OUTBOX_RELAY_DELIVERY_ON_LOST_PROGRESS", "stop"}});
    EXPECT_EQ(relay.wait(), 5) << relay.output();
    EXPECT_NE(relay.output().find("lost the progress record"), std::string::npos) << relay.output();
  }
  auto relay = db.relay();
  relay.says("progress_lost");
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;  // it had not been delivered, and was sent now
}

// The relay that finds it must send it as it is, whatever the bounds of a batch are by then.
TEST_F(RecoveryServersTest, ABatchInDoubtIsLargerThanBatchesAreNow) {
  db.sql("insert into outbox.message (topic, key, payload) select '" + topic +
         "', 'k', convert_to('k ' || g, 'UTF8') "
         "from generate_series(1, 5000) g");
  auto doomed = db.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
  EXPECT_EQ(doomed.wait(), -SIGKILL);
  EXPECT_EQ(db.value("select messages from outbox.batch"), "5000");
  db.deliver({{"OUTBOX_RELAY_DELIVERY_BATCH_MESSAGES_MAX", "10"},
              {"OUTBOX_RELAY_DELIVERY_BATCH_BYTES_MAX", "64KiB"},
              {"OUTBOX_RELAY_DELIVERY_MESSAGE_BYTES_MAX", "1KiB"}});
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  EXPECT_EQ(verdict.arrived, 5000) << verdict;
}

// As the page for operators says, when an operator has found the batch in the topics.
TEST_F(RecoveryServersTest, ABatchWhoseProgressWasLostCanBeMarkedDelivered) {
  deliver(db, topic, 10);
  test::write(db, topic, 5);
  auto doomed = db.relay({{"OUTBOX_CRASH_AT", "confirmed"}}, "relay-with-crash-points");
  EXPECT_EQ(doomed.wait(), -SIGKILL);
  lose_progress();
  const test::Process::Environment stop = {{"OUTBOX_RELAY_DELIVERY_ON_LOST_PROGRESS", "stop"}};
  {
    auto relay = db.relay(stop);
    EXPECT_EQ(relay.wait(), 5) << relay.output();
  }
  db.sql("update outbox.batch set delivered_at = clock_timestamp() where delivered_at is null");
  test::write(db, topic, 5);
  db.deliver(stop);
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

// A physical copy of the database, as a standby that is promoted while the old primary is still up.
TEST(Promotion, ThePromotedServerGoesOnAndTheOldPrimaryIsRefused) {
  ScratchPostgres primary({"wal_level=replica", "max_wal_senders=4"});
  TestOutbox db(primary);
  const std::string topic = db.topic("t");
  test::create_counters(db);
  deliver(db, topic, 10);

  auto standby = ScratchPostgres::standby_of(primary);
  standby.promote();
  TestOutbox moved = db.moved_to(standby);
  moved.sql("insert into outbox.message (topic, key, payload) values ('" + topic +
            "', 'p', 'p 1')");
  auto promoted = moved.relay();
  promoted.says("to=streaming");
  test::eventually("the promoted server's message is delivered", [&] {
    for (const auto& r :
         test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records) {
      if (r.payload == "p 1") return true;
    }
    return false;
  });
  refuses(db, "no longer the primary");
  promoted.signal(SIGTERM);
  EXPECT_EQ(promoted.wait(), 0) << promoted.output();
}

// At-least-once Kafka fences nobody: that its place is taken, the old relay sees by a record that
// is not its own among its own.
TEST(Promotion, AtLeastOnceTheRelayOfTheOldPrimaryEndsThoughItGoesOnToHaveMessages) {
  ScratchPostgres primary({"wal_level=replica", "max_wal_senders=4"});
  TestOutbox db(primary);
  db.environment["OUTBOX_RELAY_RELAY_MODE"] = "at-least-once";
  const std::string topic = db.topic("t");
  test::create_counters(db);
  auto abandoned = db.relay();
  test::Load unaware([&] { test::write(db, topic, 5); });
  test::until_delivered(db, 20);
  auto standby = ScratchPostgres::standby_of(primary);
  standby.promote();
  TestOutbox moved = db.moved_to(standby);
  auto promoted = moved.relay();
  promoted.says("to=streaming");
  moved.sql("insert into outbox.message (topic, key, payload) values ('" + topic +
            "', 'p', 'p 1')");
  EXPECT_EQ(abandoned.wait(), 5) << abandoned.output();
  EXPECT_NE(abandoned.output().find("no longer the primary"), std::string::npos)
      << abandoned.output();
  unaware.end();
  moved.wait_until_idle();
  promoted.signal(SIGTERM);
  EXPECT_EQ(promoted.wait(), 0) << promoted.output();
}

// Two databases of one server with one relay name, by mistake. The name belongs to that whose relay
// ran first.
class TwoDatabases : public ::testing::Test {
 protected:
  TwoDatabases() : topic(db.topic("t")) {
    test::create_counters(db);
    test::create_counters(other);
    other.environment["OUTBOX_RELAY_RELAY_NAME"] = db.name();
    other.environment["OUTBOX_RELAY_KAFKA_PROGRESS_TOPIC"] = "outbox-progress." + db.name();
  }
  void expect_refused(const std::vector<std::string>& command) {
    const auto refused = other.command(command);
    EXPECT_EQ(refused.code, 5) << command[0] << ": " << refused.output;
    EXPECT_NE(refused.output.find("belongs to another database"), std::string::npos)
        << refused.output;
    EXPECT_NE(refused.output.find("relay.name"), std::string::npos) << refused.output;
    EXPECT_EQ(refused.output.find("to=streaming"), std::string::npos) << refused.output;
  }
  void expect_no_harm(const test::Process& relay) {
    EXPECT_EQ(relay.output().find("fenced"), std::string::npos) << relay.output();
    EXPECT_EQ(relay.output().find(" error "), std::string::npos) << relay.output();
  }

  TestOutbox db;
  TestOutbox other;
  std::string topic;
};

TEST_F(TwoDatabases, TheNameBelongsToTheOneThatRanFirstThoughItSentNothing) {
  auto first = db.relay();
  first.says("to=streaming");
  test::write(other, topic, 5);
  expect_refused({"check"});
  expect_refused({"init", "--kafka"});
  expect_refused({"run"});
  test::write(db, topic, 5);
  db.wait_until_idle();
  EXPECT_EQ(db.value("select epoch from outbox.lease"), "1");
  first.signal(SIGTERM);
  EXPECT_EQ(first.wait(), 0);
  expect_no_harm(first);
}

TEST_F(TwoDatabases, WhateverTheOwnerDoesMeanwhileItIsNeverFenced) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::minstd_rand random(seed);
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "1s";
  std::optional<test::Process> first(db.relay());
  first->says("to=streaming");
  for (int i = 0; i < 20; ++i) {
    test::write(db, topic, 5);
    test::write(other, topic, 5);
    const int signal = std::array{0, SIGKILL, SIGTERM}[random() % 3];
    if (signal == 0) db.wait_until_idle();
    else first->signal(signal);
    const std::vector<std::string> commands[] = {{"run"}, {"check"}, {"init", "--kafka"}};
    expect_refused(commands[random() % 3]);
    expect_no_harm(*first);
    if (signal == 0) continue;
    first->wait();
    first.emplace(db.relay());
    if (random() % 2 == 0) first->says("to=streaming");
  }
  db.wait_until_idle();
  first->signal(SIGTERM);
  EXPECT_EQ(first->wait(), 0);
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.at_least_once() && verdict.repeated == 0) << verdict;
}

// A copy within the server shares everything but the object id of the database.
TEST_F(TwoDatabases, ACopyTakesTheNameByAdoption) {
  test::write(db, topic, 5);
  db.deliver();
  const std::string name = db.database() + "_copy";
  {
    pqxx::connection c(db.postgres().dsn("postgres"));
    pqxx::nontransaction(c).exec("create database " + name + " template " + db.database());
  }
  auto environment = db.environment;
  environment["OUTBOX_RELAY_POSTGRES_DSN"] = db.postgres().dsn(name);
  const auto refused = db.command({"run"}, environment);
  EXPECT_EQ(refused.code, 5) << refused.output;
  EXPECT_NE(refused.output.find("outbox-relay adopt"), std::string::npos) << refused.output;
  EXPECT_EQ(db.command({"adopt", "--yes"}, environment).code, 0);
  auto copy = db.relay(environment);
  copy.says("to=streaming");
  copy.signal(SIGTERM);
  EXPECT_EQ(copy.wait(), 0) << copy.output();
  expect_no_harm(copy);
  const auto original = db.command({"run"});
  EXPECT_EQ(original.code, 5) << original.output;
}

}  // namespace
}  // namespace relay
