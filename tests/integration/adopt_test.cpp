// SPDX-License-Identifier: Apache-2.0
// Adopting a copied database: by dump and restore into a server whose transaction ids are lower, or
// higher; by pg_upgrade; under another name. Checked from Kafka: what the original had sent is not
// sent again, what it had not is.
#include "relay/postgres/adopt.h"

#include <gtest/gtest.h>
#include <signal.h>

#include "tests/support/checker.h"
#include "tests/support/database_copy.h"
#include "tests/support/kafka_admin.h"

namespace relay {
namespace {

using test::ScratchPostgres;
using test::TestOutbox;

// The server that is left behind: of the version in OUTBOX_UPGRADE_FROM, the folder of its
// programs, where it is set.
ScratchPostgres old_server() {
  const char* const old = std::getenv("OUTBOX_UPGRADE_FROM");
  if (old == nullptr) return ScratchPostgres();
  class Chosen {
   public:
    explicit Chosen(const char* programs) : usual_(test::postgres_program("")) {
      setenv("PG_BIN", programs, 1);
    }
    ~Chosen() { setenv("PG_BIN", usual_.c_str(), 1); }

   private:
    const std::string usual_;
  } const chosen(old);
  return ScratchPostgres();
}

class AdoptTest : public ::testing::Test {
 protected:
  AdoptTest() : from(old_server()), original(from), topic(original.topic("t", 2)) {
    test::create_counters(original);
    original.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = topic;
  }

  // Batches that are delivered, a parked message, one batch that is in doubt, and messages behind
  // it.
  void live(const std::string& phase) {
    test::burn_ids(from, original_ids);
    test::write(original, topic, 40);
    original.sql(
        "insert into outbox.message (topic, key, payload) values ('not.allowed', 'k0', 'x 1')");
    original.deliver();
    test::write(original, topic, 20);
    write_in_savepoint(original, 1'000);
    auto relay = original.relay({{"OUTBOX_CRASH_AT", phase}}, "relay-with-crash-points");
    EXPECT_EQ(relay.wait(), -SIGKILL) << relay.output();
    // A late one: its number is lower than those of what is delivered.
    test::write(original, topic, 20);
    test::eventually("the lease has run out", [&] {
      return original.value("select expires_at < clock_timestamp() from outbox.lease") == "t";
    });
  }

  void dump_and_restore(ScratchPostgres& to) {
    test::dump_and_restore(from, to, original.database());
  }

  // In both dbs alike, so that the rows of the original check the relay of the copy.
  void write_in_both(TestOutbox& copy, int number) {
    for (TestOutbox* db : {&copy, &original}) {
      db->sql("insert into outbox.message (topic, key, payload, dedup_key) values ('" + topic +
              "', 'k0', 'k0 " + std::to_string(number) + "', 'new-" + std::to_string(number) +
              "')");
    }
  }

  // PostgreSQL gives such a row an id of its own, which is not its transaction's.
  void write_in_savepoint(TestOutbox& db, int number) const {
    pqxx::connection connection(db.dsn());
    pqxx::work tx(connection);
    tx.exec("savepoint s");
    tx.exec("insert into outbox.message (topic, key, payload, dedup_key) values ('" + topic +
            "', 'saved', 'saved " + std::to_string(number) + "', 'saved-" + std::to_string(number) +
            "')");
    tx.exec("release s");
    tx.commit();
  }

  test::Finished run_adopt(TestOutbox& db, const std::vector<std::string>& options, int code) {
    std::vector<std::string> command = {"adopt"};
    command.insert(command.end(), options.begin(), options.end());
    auto done = db.command(command);
    EXPECT_EQ(done.code, code) << done.output;
    return done;
  }

  // The relay refuses the copy, adopt says what there is, and with its consent the relay goes on.
  void adopt_in_steps(TestOutbox& copy, const std::string& decision, const std::string& evidence) {
    const auto refused = copy.command({"run"});
    EXPECT_EQ(refused.code, 5) << refused.output;
    EXPECT_NE(refused.output.find("adopt"), std::string::npos) << refused.output;
    const std::string found = run_adopt(copy, {}, 2).output;
    EXPECT_NE(found.find("is in doubt"), std::string::npos) << found;
    EXPECT_NE(found.find(evidence), std::string::npos) << found;
    EXPECT_NE(run_adopt(copy, {decision}, 1).output.find("nothing was changed"), std::string::npos);
    EXPECT_EQ(copy.command({"run"}).code, 5);
    run_adopt(copy, {decision, "--yes"}, 0);
    run_adopt(copy, {decision, "--yes"}, 0);  // nothing is left to do
    EXPECT_EQ(copy.deliver().find(" error "), std::string::npos);
  }

  void upgrade_and_adopt(const std::string& decision, const std::string& evidence) {
    ScratchPostgres to;
    const char* const old_programs = std::getenv("OUTBOX_UPGRADE_FROM");
    test::upgrade(from, to, old_programs != nullptr ? old_programs : "");
    TestOutbox copy = original.moved_to(to);
    adopt_in_steps(copy, decision, evidence);
    expect_exactly_once();
    EXPECT_EQ(copy.value("select count(*) from outbox.message"),
              original.value("select count(*) from outbox.message"));
  }

  // By the rows of the original, which keeps all of them.
  void expect_exactly_once(int parked = 1) {
    const auto verdict = test::check_delivery(original, {topic});
    EXPECT_TRUE(verdict.exactly_once()) << verdict;
    EXPECT_EQ(verdict.parked, parked) << verdict;
  }

  int original_ids = 0;
  ScratchPostgres from;
  TestOutbox original;
  std::string topic;
};

TEST_F(AdoptTest, AfterDumpAndRestoreIntoAServerWithLowerTransactionIds) {
  original_ids = 5'000;
  live("opened");
  ScratchPostgres to;
  dump_and_restore(to);
  TestOutbox copy = original.moved_to(to);
  ASSERT_EQ(copy.value("select count(*) from outbox.message where txid >= "
                       "pg_snapshot_xmax(pg_current_snapshot())"),
            original.value("select count(*) from outbox.message"));
  adopt_in_steps(copy, "--resend", "Kafka does not have it");
  expect_exactly_once();
  EXPECT_EQ(copy.value("select count(*) from outbox.parked where released_in is null"), "1");
  test::write(copy, topic, 10);
  copy.deliver();
  EXPECT_EQ(copy.value("select string_agg(distinct s.state, ' ') from outbox.message m cross join "
                       "outbox.status_of_seq(m.seq) s"),
            "delivered");
}

// Without a transaction there is nothing that Kafka has or has not.
TEST_F(AdoptTest, AtLeastOnceABatchInDoubtMayBeThere) {
  original.environment["OUTBOX_RELAY_RELAY_MODE"] = "at-least-once";
  original_ids = 5'000;
  live("reported");
  ScratchPostgres to;
  dump_and_restore(to);
  TestOutbox copy = original.moved_to(to);
  adopt_in_steps(copy, "--delivered", "Kafka may have a part of it, or all of it");
  expect_exactly_once();
}

// The relay learns it from a progress record, for which an at-least-once relay never waits.
TEST(AdoptAtLeastOnce, IsDoneWhenKafkaHasTheProgressRecord) {
  TestOutbox db(test::shared_postgres(), &test::shared_kafka_with_rights());
  db.environment["OUTBOX_RELAY_RELAY_MODE"] = "at-least-once";
  test::create_counters(db);
  test::write(db, db.topic("t"), 5);
  db.deliver();
  db.environment["OUTBOX_RELAY_RELAY_NAME"] = db.name() + "-renamed";
  ASSERT_EQ(db.command({"init", "--kafka"}).code, 0);
  const std::string progress = "outbox-progress." + db.name() + "-renamed";
  test::deny(db.kafka().brokers(), progress, test::Denied::write);
  const auto untold = db.command({"adopt", "--yes"});
  EXPECT_EQ(untold.code, 4) << untold.output;
  EXPECT_NE(untold.output.find("HINT: the database is adopted, the progress record is not written: "
                               "run this command again"),
            std::string::npos)
      << untold.output;
  EXPECT_EQ(untold.output.find("start the relay"), std::string::npos) << untold.output;
  test::allow_again(db.kafka().brokers(), progress);
  const auto adopted = db.command({"adopt", "--yes"});
  EXPECT_EQ(adopted.code, 0) << adopted.output;
  test::write(db, db.topic("u"), 5);
  db.deliver();
}

// Where a batch is sent again, the record has the token of the one before it, as the original's
// has.
TEST(AdoptAtLeastOnce, IsNotDoneByTheRecordOfTheOriginal) {
  ScratchPostgres from;
  TestOutbox original(from, &test::shared_kafka_with_rights());
  original.environment["OUTBOX_RELAY_RELAY_MODE"] = "at-least-once";
  test::create_counters(original);
  const std::string topic = original.topic("t");
  test::write(original, topic, 5);
  original.deliver();
  test::write(original, topic, 5);
  auto doomed = original.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
  EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  test::eventually("the lease has run out", [&] {
    return original.value("select expires_at < clock_timestamp() from outbox.lease") == "t";
  });
  ScratchPostgres to;
  test::upgrade(from, to);
  TestOutbox copy = original.moved_to(to);
  const std::string progress = "outbox-progress." + original.name();
  test::deny(copy.kafka().brokers(), progress, test::Denied::write);
  const auto untold = copy.command({"adopt", "--resend", "--yes"});
  EXPECT_EQ(untold.code, 4) << untold.output;
  test::allow_again(copy.kafka().brokers(), progress);
  EXPECT_EQ(copy.command({"adopt", "--resend", "--yes"}).code, 0);
  copy.deliver();
}

TEST_F(AdoptTest, AReleaseInDoubtIsSentAheadOfWhatWaitsBehindIt) {
  original_ids = 5'000;
  test::burn_ids(from, original_ids);
  original.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = "nothing";
  test::write(original, topic, 10);
  original.deliver();
  original.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = topic;
  ASSERT_EQ(original.command({"parked", "release", "--all", "--why", "allowed now"}).code, 0);
  auto relay = original.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
  EXPECT_EQ(relay.wait(), -SIGKILL) << relay.output();
  EXPECT_EQ(original.value("select kind from outbox.batch where delivered_at is null"), "release");
  test::write(original, topic, 10);
  test::eventually("the lease has run out", [&] {
    return original.value("select expires_at < clock_timestamp() from outbox.lease") == "t";
  });
  ScratchPostgres to;
  dump_and_restore(to);
  TestOutbox copy = original.moved_to(to);
  adopt_in_steps(copy, "--resend", "Kafka does not have it");
  const auto verdict = test::check_delivery(original, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  EXPECT_EQ(verdict.parked, 0) << verdict;
  EXPECT_EQ(copy.value("select count(*) from outbox.parked"), "0");
}

TEST_F(AdoptTest, AfterDumpAndRestoreIntoAServerWithHigherTransactionIds) {
  live("confirmed");
  ScratchPostgres to;
  test::burn_ids(to, 20'000);
  dump_and_restore(to);
  TestOutbox copy = original.moved_to(to);
  EXPECT_EQ(copy.value("select count(*) from outbox.message where txid >= "
                       "pg_snapshot_xmax(pg_current_snapshot())"),
            "0");
  adopt_in_steps(copy, "--delivered", "Kafka has it");
  expect_exactly_once();
}

TEST_F(AdoptTest, WhatWasWrittenSinceTheCopyIsSentBehindIt) {
  original_ids = 5'000;
  live("opened");
  ScratchPostgres to;
  dump_and_restore(to);
  TestOutbox copy = original.moved_to(to);
  for (int i = 0; i < 5; ++i) write_in_both(copy, 1'000 + i);
  for (TestOutbox* db : {&copy, &original}) write_in_savepoint(*db, 1'001);
  EXPECT_NE(run_adopt(copy, {"--resend"}, 1).output.find("6 of them written here"),
            std::string::npos);
  adopt_in_steps(copy, "--resend", "Kafka does not have it");
  expect_exactly_once();
}

TEST_F(AdoptTest, ARestoredMessageWhoseIdIsByChanceThatOfTheRestoreIsNotSentAgain) {
  test::write(original, topic, 1'000);
  original.deliver();
  ScratchPostgres to;
  dump_and_restore(to);
  TestOutbox copy = original.moved_to(to);
  ASSERT_NE(copy.value("select count(*) from outbox.message where txid::text = xmin::text"), "0");
  run_adopt(copy, {"--yes"}, 0);
  EXPECT_EQ(copy.deliver().find(" error "), std::string::npos);
  expect_exactly_once(0);
}

// As after logical replication, which the constraint does not let in.
TEST_F(AdoptTest, WhereTheConstraintCameBackLateWhatWasWrittenBeforeItIsSent) {
  original_ids = 5'000;
  live("confirmed");
  ScratchPostgres to;
  dump_and_restore(to);
  TestOutbox copy = original.moved_to(to);
  copy.sql("alter table outbox.message drop constraint own_txid");
  EXPECT_NE(run_adopt(copy, {"--delivered", "--yes"}, 5).output.find("add constraint own_txid"),
            std::string::npos);
  write_in_both(copy, 1'000);
  copy.sql(
      "alter table outbox.message add constraint own_txid check (txid = pg_current_xact_id()) not "
      "valid");
  adopt_in_steps(copy, "--delivered", "Kafka has it");
  expect_exactly_once();
}

TEST_F(AdoptTest, AfterPgUpgradeThePositionHoldsAndTheBatchInDoubtIsSentAgain) {
  live("opened");
  upgrade_and_adopt("--resend", "Kafka does not have it");
}

TEST_F(AdoptTest, AfterPgUpgradeABatchThatWasDeliveredIsNotSentAgain) {
  live("confirmed");
  upgrade_and_adopt("--delivered", "Kafka has it");
}

TEST_F(AdoptTest, ADatabaseThatBeganAnewTakesTheNameOver) {
  test::write(original, topic, 20);
  original.deliver();
  ScratchPostgres to;
  to.create_database(original.database());
  TestOutbox moved = original.moved_to(to);
  ASSERT_EQ(moved.command({"init"}).code, 0);
  EXPECT_EQ(moved.command({"run"}).code, 5);
  run_adopt(moved, {}, 1);
  run_adopt(moved, {"--yes"}, 0);
  write_in_both(moved, 1'000);
  EXPECT_EQ(moved.deliver().find(" error "), std::string::npos);
  const auto verdict = test::check_delivery(original, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

TEST_F(AdoptTest, AnotherNameForTheSameDatabase) {
  test::write(original, topic, 20);
  original.deliver();
  test::write(original, topic, 20);
  original.environment["OUTBOX_RELAY_RELAY_NAME"] = original.name() + "-renamed";
  ASSERT_EQ(original.command({"init", "--kafka"}).code, 0);
  EXPECT_EQ(original.command({"run"}).code, 5);
  run_adopt(original, {}, 1);
  run_adopt(original, {"--yes"}, 0);
  original.deliver();
  const auto verdict = test::check_delivery(original, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

TEST_F(AdoptTest, IsRunAgainWhenItDiedBeforeKafkaWasTold) {
  original_ids = 5'000;
  live("opened");
  ScratchPostgres to;
  dump_and_restore(to);
  TestOutbox copy = original.moved_to(to);
  postgres::Options options;
  options.relay = copy.name();
  const auto control = postgres::PqxxSession::connect(copy.dsn());
  ASSERT_TRUE(control);
  const auto found = postgres::inspect_copy(**control, options);
  ASSERT_TRUE(found) << found.error().text();
  ASSERT_TRUE(
      postgres::adopt_copy(**control, options, *found, postgres::OperatorDecision::resend, {}));
  const auto refused = copy.command({"run"});
  EXPECT_EQ(refused.code, 5) << refused.output;
  run_adopt(copy, {"--yes"}, 0);
  copy.deliver();
  expect_exactly_once();
}

TEST_F(AdoptTest, IsRefusedWhileARelayIsActiveAndUnnecessaryWhereAllIsWell) {
  test::write(original, topic, 5);
  auto relay = original.relay();
  relay.says("to=streaming");
  EXPECT_NE(run_adopt(original, {"--yes"}, 5).output.find("a relay holds the lease"),
            std::string::npos);
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0);
  EXPECT_NE(run_adopt(original, {"--yes"}, 0).output.find("nothing to do"), std::string::npos);
}

}  // namespace
}  // namespace relay
