// SPDX-License-Identifier: Apache-2.0
// Adopting a copied database: by dump and restore into a server whose transaction ids are lower, or higher; by pg_upgrade; under
// another name. Judged from Kafka: what the original had sent is not sent again, what it had not is.
#include "relay/postgres/rebase.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>

#include "tests/support/judge.h"

namespace outbox {
namespace {

using test::ScratchPostgres;
using test::World;

std::string bin(const std::string& program) {
  const auto found = test::run_command({"/usr/bin/env", "bash", "-c", ". " OUTBOX_SOURCE_DIR "/scripts/lib.sh; pg_bin"}, {});
  EXPECT_EQ(found.code, 0) << found.output;
  return found.output.substr(0, found.output.find('\n')) + "/" + program;
}

void run(const std::string& shell) {
  const auto done = test::run_command({"/usr/bin/env", "bash", "-c", "set -euo pipefail; " + shell}, {}, Millis{120'000});
  ASSERT_EQ(done.code, 0) << shell << "\n" << done.output;
}

// Moves the server's transaction ids on.
void burn_ids(ScratchPostgres& postgres, int ids) {
  pqxx::connection connection(postgres.dsn());
  pqxx::nontransaction tx(connection);
  tx.exec("do $$ begin for i in 1.." + std::to_string(ids) + " loop perform pg_current_xact_id(); commit; end loop; end $$");
}

// The server that is left behind: of the version in OUTBOX_UPGRADE_FROM, the folder of its programs, where it is set.
ScratchPostgres old_server() {
  const char* const old = std::getenv("OUTBOX_UPGRADE_FROM");
  if (old == nullptr) return ScratchPostgres();
  class Chosen {
   public:
    explicit Chosen(const char* programs) : usual_(bin("")) { setenv("PG_BIN", programs, 1); }
    ~Chosen() { setenv("PG_BIN", usual_.c_str(), 1); }

   private:
    const std::string usual_;
  } const chosen(old);
  return ScratchPostgres();
}

class RebaseTest : public ::testing::Test {
 protected:
  RebaseTest() : from(old_server()), original(from), topic(original.topic("t", 2)) {
    test::create_counters(original);
    original.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = topic;
  }

  // Batches that are delivered, a parked message, one batch that is in doubt, and messages behind it.
  void live(const std::string& phase) {
    burn_ids(from, original_ids);
    test::write(original, topic, 40);
    original.sql("insert into outbox.message (topic, key, payload) values ('not.allowed', 'k0', 'x 1')");
    original.deliver();
    test::write(original, topic, 20);
    auto relay = original.relay({{"OUTBOX_CRASH_AT", phase}}, "relay-with-crash-points");
    EXPECT_EQ(relay.wait(), -SIGKILL) << relay.output();
    // A late one: its number is lower than those of what is delivered.
    test::write(original, topic, 20);
    test::eventually("the lease has run out",
                     [&] { return original.value("select expires_at < clock_timestamp() from outbox.lease") == "t"; });
  }

  void dump_and_restore(ScratchPostgres& to) {
    const std::string quiet = " >/dev/null";
    run(bin("pg_dumpall") + " --roles-only -d '" + from.dsn() + "' | grep -v 'ROLE postgres' | " + bin("psql") + " -X -q '" + to.dsn() + "'" + quiet);
    to.create_database(original.database());
    run(bin("pg_dump") + " '" + original.dsn() + "' | " + bin("psql") + " -X -q -v ON_ERROR_STOP=1 '" + to.dsn(original.database()) + "'" + quiet);
  }

  // Both stay: the original to judge by.
  void upgrade(ScratchPostgres& to) {
    to.stop(ScratchPostgres::Stop::fast);
    from.stop(ScratchPostgres::Stop::fast);
    const std::string user = geteuid() == 0 ? "setpriv --reuid=postgres --regid=postgres --init-groups -- " : "";
    const std::string bins = std::filesystem::path(bin("initdb")).parent_path();
    const char* const old = std::getenv("OUTBOX_UPGRADE_FROM");
    const std::string data = "/postgres";
    run("cd " + to.folder().string() + data + "; " + user + bin("pg_upgrade") + " -U postgres -b " + (old != nullptr ? old : bins) + " -B " + bins +
        " -d " + from.folder().string() + data + " -D " + to.folder().string() + data + " -p " + std::to_string(from.port()) + " -P " +
        std::to_string(to.port()));
    to.start();
    from.start();
  }

  test::Finished rebase(World& world, const std::vector<std::string>& options, int code) {
    std::vector<std::string> command = {"rebase"};
    command.insert(command.end(), options.begin(), options.end());
    auto done = world.command(command);
    EXPECT_EQ(done.code, code) << done.output;
    return done;
  }

  // The relay refuses the copy, rebase says what there is, and with its consent the relay goes on.
  void adopt(World& copy, const std::string& settlement, const std::string& evidence) {
    const auto refused = copy.command({"run"});
    EXPECT_EQ(refused.code, 5) << refused.output;
    EXPECT_NE(refused.output.find("rebase"), std::string::npos) << refused.output;
    const std::string found = rebase(copy, {}, 2).output;
    EXPECT_NE(found.find("is in doubt"), std::string::npos) << found;
    EXPECT_NE(found.find(evidence), std::string::npos) << found;
    EXPECT_NE(rebase(copy, {settlement}, 1).output.find("nothing was changed"), std::string::npos);
    EXPECT_EQ(copy.command({"run"}).code, 5);
    rebase(copy, {settlement, "--yes"}, 0);
    rebase(copy, {settlement, "--yes"}, 0);  // nothing is left to do
    EXPECT_EQ(copy.deliver().find(" error "), std::string::npos);
  }

  void upgrade_and_adopt(const std::string& settlement, const std::string& evidence) {
    ScratchPostgres to;
    upgrade(to);
    World copy = original.moved_to(to);
    adopt(copy, settlement, evidence);
    expect_exactly_once();
    EXPECT_EQ(copy.value("select count(*) from outbox.message"), original.value("select count(*) from outbox.message"));
  }

  // By the rows of the original, which keeps all of them.
  void expect_exactly_once() {
    const auto verdict = test::judge(original, {topic});
    EXPECT_TRUE(verdict.exactly_once()) << verdict;
    EXPECT_EQ(verdict.parked, 1) << verdict;
  }

  int original_ids = 0;
  ScratchPostgres from;
  World original;
  std::string topic;
};

TEST_F(RebaseTest, AfterDumpAndRestoreIntoAServerWithLowerTransactionIds) {
  original_ids = 5'000;
  live("opened");
  ScratchPostgres to;
  dump_and_restore(to);
  World copy = original.moved_to(to);
  ASSERT_EQ(copy.value("select count(*) from outbox.message where txid >= pg_snapshot_xmax(pg_current_snapshot())"),
            original.value("select count(*) from outbox.message"));
  adopt(copy, "--resend", "Kafka does not have it");
  expect_exactly_once();
  EXPECT_EQ(copy.value("select count(*) from outbox.parked where released_in is null"), "1");
  test::write(copy, topic, 10);
  copy.deliver();
  EXPECT_EQ(copy.value("select string_agg(distinct s.state, ' ') from outbox.message m cross join outbox.status_of_seq(m.seq) s"), "delivered");
}

TEST_F(RebaseTest, AReleaseInDoubtIsSentAheadOfWhatWaitsBehindIt) {
  original_ids = 5'000;
  burn_ids(from, original_ids);
  original.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = "nothing";
  test::write(original, topic, 10);
  original.deliver();
  original.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = topic;
  ASSERT_EQ(original.command({"parked", "release", "--all", "--why", "allowed now"}).code, 0);
  auto relay = original.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
  EXPECT_EQ(relay.wait(), -SIGKILL) << relay.output();
  EXPECT_EQ(original.value("select kind from outbox.batch where delivered_at is null"), "release");
  test::write(original, topic, 10);
  test::eventually("the lease has run out", [&] { return original.value("select expires_at < clock_timestamp() from outbox.lease") == "t"; });
  ScratchPostgres to;
  dump_and_restore(to);
  World copy = original.moved_to(to);
  adopt(copy, "--resend", "Kafka does not have it");
  const auto verdict = test::judge(original, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  EXPECT_EQ(verdict.parked, 0) << verdict;
  EXPECT_EQ(copy.value("select count(*) from outbox.parked"), "0");
}

TEST_F(RebaseTest, AfterDumpAndRestoreIntoAServerWithHigherTransactionIds) {
  live("confirmed");
  ScratchPostgres to;
  burn_ids(to, 20'000);
  dump_and_restore(to);
  World copy = original.moved_to(to);
  EXPECT_EQ(copy.value("select count(*) from outbox.message where txid >= pg_snapshot_xmax(pg_current_snapshot())"), "0");
  adopt(copy, "--delivered", "Kafka has it");
  expect_exactly_once();
}

TEST_F(RebaseTest, WhatWasWrittenSinceTheCopyIsSentBehindIt) {
  original_ids = 5'000;
  live("opened");
  ScratchPostgres to;
  dump_and_restore(to);
  World copy = original.moved_to(to);
  // The same in both, so that the original's rows judge the copy's relay: the copy is the one that is delivered.
  pqxx::connection there(copy.dsn());
  pqxx::connection here(original.dsn());
  for (int i = 0; i < 5; ++i) {
    pqxx::nontransaction(there).exec("insert into outbox.message (topic, key, payload, dedup_key) values ('" + topic + "', 'k0', 'k0 100" +
                                     std::to_string(i) + "', 'new-" + std::to_string(i) + "')");
    pqxx::nontransaction(here).exec("insert into outbox.message (topic, key, payload, dedup_key) values ('" + topic + "', 'k0', 'k0 100" +
                                    std::to_string(i) + "', 'new-" + std::to_string(i) + "')");
  }
  EXPECT_NE(rebase(copy, {"--resend"}, 1).output.find("5 of them written here"), std::string::npos);
  adopt(copy, "--resend", "Kafka does not have it");
  expect_exactly_once();
}

TEST_F(RebaseTest, AfterPgUpgradeThePositionHoldsAndTheBatchInDoubtIsSentAgain) {
  live("opened");
  upgrade_and_adopt("--resend", "Kafka does not have it");
}

TEST_F(RebaseTest, AfterPgUpgradeABatchThatWasDeliveredIsNotSentAgain) {
  live("confirmed");
  upgrade_and_adopt("--delivered", "Kafka has it");
}

TEST_F(RebaseTest, ADatabaseThatBeganAnewTakesTheNameOver) {
  test::write(original, topic, 20);
  original.deliver();
  ScratchPostgres to;
  to.create_database(original.database());
  World anew = original.moved_to(to);
  ASSERT_EQ(anew.command({"init"}).code, 0);
  EXPECT_EQ(anew.command({"run"}).code, 5);
  rebase(anew, {}, 1);
  rebase(anew, {"--yes"}, 0);
  anew.sql("insert into outbox.message (topic, key, payload, dedup_key) values ('" + topic + "', 'k0', 'k0 1000', 'new')");
  original.sql("insert into outbox.message (topic, key, payload, dedup_key) values ('" + topic + "', 'k0', 'k0 1000', 'new')");
  EXPECT_EQ(anew.deliver().find(" error "), std::string::npos);
  const auto verdict = test::judge(original, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

TEST_F(RebaseTest, AnotherNameForTheSameDatabase) {
  test::write(original, topic, 20);
  original.deliver();
  test::write(original, topic, 20);
  original.environment["OUTBOX_RELAY_RELAY_NAME"] = original.name() + "-renamed";
  ASSERT_EQ(original.command({"init", "--kafka"}).code, 0);
  EXPECT_EQ(original.command({"run"}).code, 5);
  rebase(original, {}, 1);
  rebase(original, {"--yes"}, 0);
  original.deliver();
  const auto verdict = test::judge(original, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

TEST_F(RebaseTest, IsRunAgainWhenItDiedBeforeKafkaWasTold) {
  original_ids = 5'000;
  live("opened");
  ScratchPostgres to;
  dump_and_restore(to);
  World copy = original.moved_to(to);
  postgres::Options options;
  options.relay = copy.name();
  const auto control = postgres::Control::connect(copy.dsn());
  ASSERT_TRUE(control);
  const auto found = postgres::inspect_copy(**control, options);
  ASSERT_TRUE(found) << found.error().text();
  ASSERT_TRUE(postgres::adopt_copy(**control, options, *found, postgres::Settle::resend, {}));
  const auto refused = copy.command({"run"});
  EXPECT_EQ(refused.code, 5) << refused.output;
  rebase(copy, {"--yes"}, 0);
  copy.deliver();
  expect_exactly_once();
}

TEST_F(RebaseTest, IsRefusedWhileARelayIsActiveAndUnnecessaryWhereAllIsWell) {
  test::write(original, topic, 5);
  auto relay = original.relay();
  relay.says("to=streaming");
  EXPECT_NE(rebase(original, {"--yes"}, 5).output.find("a relay holds the lease"), std::string::npos);
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0);
  EXPECT_NE(rebase(original, {"--yes"}, 0).output.find("nothing to do"), std::string::npos);
}

}  // namespace
}  // namespace outbox
