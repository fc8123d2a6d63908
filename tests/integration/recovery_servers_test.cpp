// SPDX-License-Identifier: Apache-2.0
// The rows of recovery's table that need other servers than the usual ones: a promoted standby, another cluster, a database that
// went back, a progress topic that is gone.
#include <gtest/gtest.h>
#include <librdkafka/rdkafka.h>
#include <signal.h>

#include "relay/kafka/progress.h"
#include "tests/support/judge.h"
#include "tests/support/load.h"

namespace relay {
namespace {

using test::ScratchPostgres;
using test::World;

kafka::Options kafka_of(World& world) {
  kafka::Options o;
  o.brokers = world.kafka().brokers();
  o.relay = world.name();
  o.progress_topic = "outbox-progress." + world.name();
  return o;
}

// Appends a progress record as some other relay process would have.
void append_progress(World& world, const Progress& progress) {
  const auto options = kafka_of(world);
  auto client = kafka::make_client(RD_KAFKA_PRODUCER, std::move(*kafka::make_conf(options, {})));
  ASSERT_TRUE(client);
  const std::string value = kafka::progress_json(progress);
  rd_kafka_producev(client->get(), RD_KAFKA_V_TOPIC(options.progress_topic.c_str()), RD_KAFKA_V_PARTITION(0),
                    RD_KAFKA_V_KEY(options.relay.data(), options.relay.size()),
                    RD_KAFKA_V_VALUE(const_cast<char*>(value.data()), value.size()), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                    RD_KAFKA_V_END);
  ASSERT_EQ(rd_kafka_flush(client->get(), 10'000), RD_KAFKA_RESP_ERR_NO_ERROR);
}

Progress newest_progress(World& world) {
  const auto found = kafka::read_progress(kafka_of(world), true, Deadline(Millis{10'000}));
  if (!found || !*found) throw std::runtime_error("no progress record");
  return **found;
}

void deliver(World& world, const std::string& topic, int transactions) {
  test::write(world, topic, transactions);
  world.deliver();
}

// A relay that must refuse, and say why, before it has fenced or changed anything.
void refuses(World& world, const std::string& why) {
  const std::string before = world.value("select epoch from outbox.lease");
  auto relay = world.relay();
  EXPECT_EQ(relay.wait(), 5) << relay.output();
  EXPECT_NE(relay.output().find(why), std::string::npos) << relay.output();
  EXPECT_NE(relay.output().find("HINT: "), std::string::npos) << relay.output();
  EXPECT_EQ(world.value("select epoch from outbox.lease"), before);
}

class RecoveryServersTest : public ::testing::Test {
 protected:
  RecoveryServersTest() : topic(world.topic("t")) { test::create_counters(world); }
  // The progress topic is deleted, which the relay refuses, and created again, empty: nobody can know what became of a batch in doubt.
  void lose_progress() {
    world.kafka().delete_topic("outbox-progress." + world.name());
    // The broker forgets the topic a moment after it has answered.
    test::eventually("the progress topic is gone", [&] {
      const auto found = kafka::read_progress(kafka_of(world), false, Deadline(Millis{5'000}));
      return !found && found.error().fault == Fault::refused;
    });
    refuses(world, "does not exist");
    EXPECT_EQ(world.command({"init", "--kafka"}).code, 0);
  }

  World world;
  std::string topic;
};

TEST_F(RecoveryServersTest, ARecordOfAnotherClusterIsRefusedAndNobodyIsFenced) {
  deliver(world, topic, 5);
  Progress p = newest_progress(world);
  p.identity.cluster += 1;
  append_progress(world, p);
  refuses(world, "another database cluster");
}

TEST_F(RecoveryServersTest, ARecordOfANewerTimelineIsRefusedAndNobodyIsFenced) {
  deliver(world, topic, 5);
  Progress p = newest_progress(world);
  p.identity.timeline = 0x0A;  // as a number, not as text
  append_progress(world, p);
  refuses(world, "no longer the primary");
}

TEST_F(RecoveryServersTest, AnUnknownRecordIsReportedAndTheRelayGoesOnAboveIt) {
  deliver(world, topic, 5);
  Progress p = newest_progress(world);
  p.token = Uuid::random();
  p.number += 40;
  append_progress(world, p);
  test::write(world, topic, 5);
  auto relay = world.relay();
  relay.says("database_went_back");
  world.settled();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_GT(std::stoll(world.value("select max(number) from outbox.batch")), p.number);
  const auto verdict = test::judge(world, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

TEST_F(RecoveryServersTest, ADeletedProgressTopicIsRefusedWithItsRemedyAndAnEmptyOneIsReported) {
  test::write(world, topic, 10);
  auto doomed = world.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
  EXPECT_EQ(doomed.wait(), -SIGKILL);
  deliver(world, topic, 5);
  auto again = world.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
  test::write(world, topic, 5);
  EXPECT_EQ(again.wait(), -SIGKILL);

  lose_progress();
  {
    auto relay = world.relay({{"OUTBOX_RELAY_DELIVERY_ON_LOST_PROGRESS", "stop"}});
    EXPECT_EQ(relay.wait(), 5) << relay.output();
    EXPECT_NE(relay.output().find("lost the progress record"), std::string::npos) << relay.output();
  }
  auto relay = world.relay();
  relay.says("progress_lost");
  world.settled();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  const auto verdict = test::judge(world, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;  // it had not been delivered, and was sent now
}

// Whoever finds it must send it as it is, whatever the bounds of a batch are by then.
TEST_F(RecoveryServersTest, ABatchInDoubtIsLargerThanBatchesAreNow) {
  world.sql("insert into outbox.message (topic, key, payload) select '" + topic + "', 'k', convert_to('k ' || g, 'UTF8') "
            "from generate_series(1, 5000) g");
  auto doomed = world.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
  EXPECT_EQ(doomed.wait(), -SIGKILL);
  EXPECT_EQ(world.value("select messages from outbox.batch"), "5000");
  world.deliver({{"OUTBOX_RELAY_DELIVERY_BATCH_MESSAGES_MAX", "10"},
                 {"OUTBOX_RELAY_DELIVERY_BATCH_BYTES_MAX", "64KiB"},
                 {"OUTBOX_RELAY_DELIVERY_MESSAGE_BYTES_MAX", "1KiB"}});
  const auto verdict = test::judge(world, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  EXPECT_EQ(verdict.arrived, 5000) << verdict;
}

// As the page for operators says, when a person has found the batch in the topics.
TEST_F(RecoveryServersTest, ABatchWhoseProgressWasLostCanBeMarkedDelivered) {
  deliver(world, topic, 10);
  test::write(world, topic, 5);
  auto doomed = world.relay({{"OUTBOX_CRASH_AT", "confirmed"}}, "relay-with-crash-points");
  EXPECT_EQ(doomed.wait(), -SIGKILL);
  lose_progress();
  const test::Process::Environment stop = {{"OUTBOX_RELAY_DELIVERY_ON_LOST_PROGRESS", "stop"}};
  {
    auto relay = world.relay(stop);
    EXPECT_EQ(relay.wait(), 5) << relay.output();
  }
  world.sql("update outbox.batch set delivered_at = clock_timestamp() where delivered_at is null");
  test::write(world, topic, 5);
  world.deliver(stop);
  const auto verdict = test::judge(world, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

// A physical copy of the database, as a standby that is promoted while the old primary is still up.
TEST(Promotion, ThePromotedServerGoesOnAndTheOldPrimaryIsRefused) {
  ScratchPostgres primary({"wal_level=replica", "max_wal_senders=4"});
  World world(primary);
  const std::string topic = world.topic("t");
  test::create_counters(world);
  deliver(world, topic, 10);

  auto standby = ScratchPostgres::standby_of(primary);
  standby.promote();
  World moved = world.moved_to(standby);
  moved.sql("insert into outbox.message (topic, key, payload) values ('" + topic + "', 'p', 'p 1')");
  auto promoted = moved.relay();
  promoted.says("to=streaming");
  test::eventually("the promoted server's message is delivered", [&] {
    for (const auto& r : test::read_log(world.kafka().brokers(), {topic}, test::Isolation::read_committed).records) {
      if (r.payload == "p 1") return true;
    }
    return false;
  });
  refuses(world, "no longer the primary");
  promoted.signal(SIGTERM);
  EXPECT_EQ(promoted.wait(), 0) << promoted.output();
}

// At-least-once Kafka fences nobody: that its place is taken, the old relay sees by a record that is not its own among its own.
TEST(Promotion, AtLeastOnceTheRelayOfTheOldPrimaryEndsThoughItGoesOnToHaveMessages) {
  ScratchPostgres primary({"wal_level=replica", "max_wal_senders=4"});
  World world(primary);
  world.environment["OUTBOX_RELAY_RELAY_MODE"] = "at-least-once";
  const std::string topic = world.topic("t");
  test::create_counters(world);
  auto abandoned = world.relay();
  test::Load unaware([&] { test::write(world, topic, 5); });
  test::until_delivered(world, 20);
  auto standby = ScratchPostgres::standby_of(primary);
  standby.promote();
  World moved = world.moved_to(standby);
  auto promoted = moved.relay();
  promoted.says("to=streaming");
  moved.sql("insert into outbox.message (topic, key, payload) values ('" + topic + "', 'p', 'p 1')");
  EXPECT_EQ(abandoned.wait(), 5) << abandoned.output();
  EXPECT_NE(abandoned.output().find("no longer the primary"), std::string::npos) << abandoned.output();
  unaware.end();
  moved.settled();
  promoted.signal(SIGTERM);
  EXPECT_EQ(promoted.wait(), 0) << promoted.output();
}

TEST(TwoDatabases, UnderOneNameAreNoticedAndStopped) {
  // Two databases of one cluster: neither cluster nor timeline tells them apart, only tokens do.
  World world;
  World other;
  const std::string topic = world.topic("t");
  test::create_counters(world);
  test::create_counters(other);
  other.environment["OUTBOX_RELAY_RELAY_NAME"] = world.name();
  other.environment["OUTBOX_RELAY_KAFKA_PROGRESS_TOPIC"] = "outbox-progress." + world.name();
  auto first = world.relay();
  first.says("to=streaming");
  test::write(world, topic, 5);
  world.settled();
  auto second = other.relay();
  second.says("to=streaming");
  test::write(other, topic, 5);
  other.settled();
  test::write(world, topic, 5);
  EXPECT_EQ(first.wait(), 5) << first.output();
  EXPECT_NE(first.output().find("under our name"), std::string::npos) << first.output();
  second.signal(SIGTERM);
  EXPECT_EQ(second.wait(), 0) << second.output();
}

}  // namespace
}  // namespace relay
