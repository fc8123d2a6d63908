// SPDX-License-Identifier: Apache-2.0
// PostgreSQL crashes and uses transaction ids again, sessions are terminated, rows carry ids of
// elsewhere: nothing that was delivered is forgotten, nothing that was forgotten is delivered, and
// no new message looks delivered.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <thread>

#include "tests/support/asynchronous_writers.h"
#include "tests/support/checker.h"

namespace relay {
namespace {

using test::ScratchPostgres;
using test::TestOutbox;

void stop(test::Process& relay) {
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

TEST(LostIds, UnderLoadAndCrashesNothingIsGhostedLostOrSkipped) {
  ScratchPostgres postgres({"synchronous_commit=off", "full_page_writes=off"});
  TestOutbox db(postgres);
  const std::string topic = db.topic("t");
  test::create_counters(db);
  auto relay = db.relay();
  test::AsynchronousWriters writers(db.dsn(), topic, 4);
  const auto batches = [&] {
    return std::stoll(db.value(
        "select coalesce(max(number), 0) from outbox.batch where delivered_at is not null"));
  };
  int round = 0;
  for (; round < 4 || (writers.forgotten() == 0 && round < 15); ++round) {
    const auto before = batches();
    test::eventually("the relay delivers", [&] { return batches() > before + 3; });
    postgres.stop(ScratchPostgres::Stop::immediate);
    postgres.start();
  }
  writers.stop();
  db.wait_until_idle();
  stop(relay);
  std::printf("%d crashes, %lld commits acknowledged, %lld of them forgotten\n", round,
              static_cast<long long>(writers.acknowledged()),
              static_cast<long long>(writers.forgotten()));
  EXPECT_GT(writers.forgotten(), 0);  // or nothing was shown
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

// A server on which nothing but the relay's open writes transactions to disk.
class ForgetfulServer : public ::testing::Test {
 protected:
  ForgetfulServer() : topic(db.topic("t", 1)) { db.environment["OUTBOX_RELAY_LEASE_TTL"] = "60s"; }

  void insert(const std::string& payload) {
    db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', '" + payload +
           "')");
  }
  std::int64_t next_id() {
    return std::stoll(db.value("select pg_snapshot_xmax(pg_current_snapshot())::text"));
  }
  void crash() {
    postgres.stop(ScratchPostgres::Stop::immediate);
    postgres.start();
  }
  void finish(test::Process& relay) {
    db.wait_until_idle();
    stop(relay);
    const auto verdict = test::check_delivery(db, {topic});
    EXPECT_TRUE(verdict.exactly_once()) << verdict;
  }

  ScratchPostgres postgres{
      {"wal_writer_delay=10s", "synchronous_commit=off", "autovacuum=off", "full_page_writes=off"}};
  TestOutbox db{postgres};
  std::string topic;
};

// The relay polls, and remembers a base beyond the journal's; the ids in between are given out
// again.
TEST_F(ForgetfulServer, WhatTheRelayRemembersBeyondItsJournalIsForgottenWithTheServer) {
  auto relay = db.relay();
  insert("first");
  db.wait_until_idle();
  bool reused = false;
  for (int round = 0; round < 5 && !reused; ++round) {
    for (int i = 0; i < 30; ++i) db.sql("select pg_current_xact_id()");
    const auto beyond = next_id();
    const std::string now = db.value("select clock_timestamp()");
    test::eventually("the relay has polled", [&] {
      return db.value(
                 "select count(*) from pg_stat_activity where application_name = 'outbox-relay " +
                 db.name() +
                 "' and query like "
                 "'%pg_current_snapshot%' and state = 'idle' and query_start > '" +
                 now + "'") == "1";
    });
    crash();
    insert("round " + std::to_string(round));
    reused = std::stoll(db.value("select max(txid::text::bigint) from outbox.message")) < beyond;
  }
  EXPECT_TRUE(reused);
  finish(relay);
}

// The relay holds a page that it has read and not opened; the server forgets its rows and gives
// their ids to others.
TEST_F(ForgetfulServer, APageReadAheadOfACrashIsNotSent) {
  bool forgotten = false;
  for (int round = 0; round < 5 && !forgotten; ++round) {
    auto relay = db.relay({{"OUTBOX_STOP_AT", "opening:2"}}, "relay-with-crash-points");
    relay.says("to=streaming");
    insert("first of round " + std::to_string(round));
    db.wait_until_idle();
    insert("held");
    relay.stops();
    crash();
    forgotten = db.value("select count(*) from outbox.message where payload = 'held'") == "0";
    insert("in its place");
    relay.signal(SIGCONT);
    finish(relay);
  }
  EXPECT_TRUE(forgotten);
}

TEST_F(ForgetfulServer, APreparedTransactionOutlivesRestartsOfTheServer) {
  pqxx::connection c(db.dsn());
  {
    pqxx::nontransaction tx(c);
    for (const std::string gid : {"fast", "immediate"}) {
      tx.exec("begin");
      tx.exec("insert into outbox.message (topic, payload) values ('" + topic + "', 'prepared " +
              gid + "')");
      tx.exec("prepare transaction '" + gid + "'");
    }
  }
  c.disconnect();
  auto relay = db.relay();
  for (const auto how : {ScratchPostgres::Stop::fast, ScratchPostgres::Stop::immediate}) {
    insert("before");
    db.wait_until_idle();
    postgres.stop(how);
    postgres.start();
    insert("after");
    db.wait_until_idle();
    db.sql(how == ScratchPostgres::Stop::fast ? "commit prepared 'fast'"
                                              : "commit prepared 'immediate'");
    db.wait_until_idle();
  }
  finish(relay);
  EXPECT_EQ(db.value("select count(*) from outbox.message"), "6");
}

// --- Sessions ----------------------------------------------------------------------------------

class Terminated : public ::testing::Test {
 protected:
  Terminated() : topic(db.topic("t")) { test::create_counters(db); }
  int terminate() {
    return std::stoi(
        db.value("select count(pg_terminate_backend(a.pid)) from pg_stat_activity a where "
                 "a.datname = current_database() "
                 "and a.application_name like 'outbox-relay%'"));
  }
  TestOutbox db;
  std::string topic;
};

TEST_F(Terminated, AgainAndAgainUnderLoadTheRelayLosesNothing) {
  db.environment["OUTBOX_RELAY_DELIVERY_BATCH_MESSAGES_MAX"] = "10";
  auto relay = db.relay();
  relay.says("to=streaming");
  std::atomic<bool> writing = true;
  std::thread writer([&] {
    test::write(db, topic, 300);
    writing = false;
  });
  int sessions = 0;
  while (writing || sessions < 20) {
    sessions += terminate();
    test::eventually("the relay is back", [&] {
      return db.value(
                 "select count(*) from pg_stat_activity where application_name = 'outbox-relay " +
                 db.name() + "'") != "0";
    });
  }
  writer.join();
  db.wait_until_idle();
  stop(relay);
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

TEST_F(Terminated, WhileAPageIsHeldItIsReadAnew) {
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "60s";
  auto relay = db.relay({{"OUTBOX_STOP_AT", "opening"}}, "relay-with-crash-points");
  relay.says("to=streaming");
  test::write(db, topic, 10);
  relay.stops();
  EXPECT_GE(terminate(), 2);
  test::write(db, topic, 10);
  relay.signal(SIGCONT);
  db.wait_until_idle();
  stop(relay);
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

// As behind a pooler: an open reaches another backend than the reads before it did. Here the
// backend forgets its mark as it opens a batch, so that the next open does not find it.
TEST_F(Terminated, ABackendThatWasExchangedOpensNothing) {
  db.sql(
      "create function public.exchange() returns trigger language plpgsql as $$ begin "
      "perform set_config('outbox_relay.session', '', false); return new; end $$");
  db.sql(
      "create trigger exchange before insert on outbox.batch for each row execute function "
      "public.exchange()");
  auto relay = db.relay();
  relay.says("to=streaming");
  test::write(db, topic, 1);
  db.wait_until_idle();
  test::write(db, topic, 1);
  relay.says("session was replaced");
  db.sql("drop trigger exchange on outbox.batch");
  db.wait_until_idle();
  stop(relay);
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

// --- Ids of elsewhere --------------------------------------------------------------------------

TEST(ForeignIds, AreRefusedWhicheverWayTheRowsCome) {
  TestOutbox db(test::shared_postgres(), nullptr);
  db.sql("insert into outbox.message (topic) values ('t')");
  for (const std::string statement : {
           "insert into outbox.message (topic, txid) values ('t', '5')",
           "set session_replication_role = replica; insert into outbox.message (topic, txid) "
           "values ('t', '5')",
           "copy outbox.message (seq, topic, txid) from program 'printf \"9\\tt\\t5\"'",
           "update outbox.message set topic = 'u'",
           "alter table outbox.message validate constraint own_txid",
       }) {
    EXPECT_THROW(db.sql(statement), pqxx::check_violation) << statement;
  }
}

TEST(ForeignIds, AJournalFromTheFutureIsRefused) {
  TestOutbox db;
  const std::string topic = db.topic("t");
  test::create_counters(db);
  test::write(db, topic, 3);
  {
    auto relay = db.relay();
    relay.says("to=streaming");
    db.wait_until_idle();
    stop(relay);
  }
  db.sql("update outbox.batch set upto = '3:99999999999:'");
  auto relay = db.relay();
  EXPECT_EQ(relay.wait(), 5) << relay.output();
  EXPECT_NE(relay.output().find("from the future"), std::string::npos) << relay.output();
}

TEST(ForeignIds, ADumpRestoredIntoAnotherClusterIsRefused) {
  TestOutbox db;
  const std::string topic = db.topic("t");
  test::create_counters(db);
  test::write(db, topic, 3);
  {
    auto relay = db.relay();
    relay.says("to=streaming");
    db.wait_until_idle();
    stop(relay);
  }
  test::write(db, topic, 3);
  ScratchPostgres elsewhere;
  const auto restored =
      test::run_command({"/bin/bash", "-c",
                         "set -o pipefail; pg_dump --no-owner --no-privileges -d '" + db.dsn() +
                             "' | psql -v ON_ERROR_STOP=1 -q -d '" + elsewhere.dsn() + "'"},
                        db.environment);
  ASSERT_EQ(restored.code, 0) << restored.output;
  auto there = db.environment;
  there["OUTBOX_RELAY_POSTGRES_DSN"] = elsewhere.dsn();
  test::Process relay({test::program_path("outbox-relay"), "run"}, there);
  EXPECT_EQ(relay.wait(), 5) << relay.output();
  EXPECT_NE(relay.output().find("copied from another cluster"), std::string::npos)
      << relay.output();
  EXPECT_NE(relay.output().find("adopt"), std::string::npos) << relay.output();
}

}  // namespace
}  // namespace relay
