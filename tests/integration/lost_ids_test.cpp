// SPDX-License-Identifier: Apache-2.0
// PostgreSQL crashes and uses transaction ids again, sessions are terminated, rows carry ids of elsewhere: nothing that was
// delivered is forgotten, nothing that was forgotten is delivered, and no new message looks delivered.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <thread>

#include "tests/support/asynchronous_writers.h"
#include "tests/support/judge.h"

namespace relay {
namespace {

using test::ScratchPostgres;
using test::World;

void stop(test::Process& relay) {
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

TEST(LostIds, UnderLoadAndCrashesNothingIsGhostedLostOrSkipped) {
  ScratchPostgres postgres({"synchronous_commit=off", "full_page_writes=off"});
  World world(postgres);
  const std::string topic = world.topic("t");
  test::create_counters(world);
  auto relay = world.relay();
  test::AsynchronousWriters writers(world.dsn(), topic, 4);
  const auto batches = [&] { return std::stoll(world.value("select coalesce(max(number), 0) from outbox.batch where delivered_at is not null")); };
  int round = 0;
  for (; round < 4 || (writers.forgotten() == 0 && round < 15); ++round) {
    const auto before = batches();
    test::eventually("the relay delivers", [&] { return batches() > before + 3; });
    postgres.stop(ScratchPostgres::Stop::immediate);
    postgres.start();
  }
  writers.stop();
  world.settled();
  stop(relay);
  std::printf("%d crashes, %lld commits acknowledged, %lld of them forgotten\n", round, static_cast<long long>(writers.acknowledged()),
              static_cast<long long>(writers.forgotten()));
  EXPECT_GT(writers.forgotten(), 0);  // or nothing was shown
  const auto verdict = test::judge(world, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

// A server on which nothing but the relay's open writes transactions to disk.
class ForgetfulServer : public ::testing::Test {
 protected:
  ForgetfulServer() : topic(world.topic("t", 1)) { world.environment["OUTBOX_RELAY_LEASE_TTL"] = "60s"; }

  void insert(const std::string& payload) { world.sql("insert into outbox.message (topic, payload) values ('" + topic + "', '" + payload + "')"); }
  std::int64_t next_id() { return std::stoll(world.value("select pg_snapshot_xmax(pg_current_snapshot())::text")); }
  void crash() {
    postgres.stop(ScratchPostgres::Stop::immediate);
    postgres.start();
  }
  void finish(test::Process& relay) {
    world.settled();
    stop(relay);
    const auto verdict = test::judge(world, {topic});
    EXPECT_TRUE(verdict.exactly_once()) << verdict;
  }

  ScratchPostgres postgres{{"wal_writer_delay=10s", "synchronous_commit=off", "autovacuum=off", "full_page_writes=off"}};
  World world{postgres};
  std::string topic;
};

// The relay polls, and remembers a base beyond the journal's; the ids in between are given out again.
TEST_F(ForgetfulServer, WhatTheRelayRemembersBeyondItsJournalIsForgottenWithTheServer) {
  auto relay = world.relay();
  insert("first");
  world.settled();
  bool reused = false;
  for (int round = 0; round < 5 && !reused; ++round) {
    for (int i = 0; i < 30; ++i) world.sql("select pg_current_xact_id()");
    const auto beyond = next_id();
    const std::string now = world.value("select clock_timestamp()");
    test::eventually("the relay has polled", [&] {
      return world.value("select count(*) from pg_stat_activity where application_name = 'outbox-relay " + world.name() + "' and query like "
                         "'%pg_current_snapshot%' and state = 'idle' and query_start > '" + now + "'") == "1";
    });
    crash();
    insert("round " + std::to_string(round));
    reused = std::stoll(world.value("select max(txid::text::bigint) from outbox.message")) < beyond;
  }
  EXPECT_TRUE(reused);
  finish(relay);
}

// The relay holds a page that it has read and not opened; the server forgets its rows and gives their ids to others.
TEST_F(ForgetfulServer, APageReadAheadOfACrashIsNotSent) {
  bool forgotten = false;
  for (int round = 0; round < 5 && !forgotten; ++round) {
    auto relay = world.relay({{"OUTBOX_STOP_AT", "opening:2"}}, "relay-with-crash-points");
    relay.says("to=streaming");
    insert("first of round " + std::to_string(round));
    world.settled();
    insert("held");
    relay.stops();
    crash();
    forgotten = world.value("select count(*) from outbox.message where payload = 'held'") == "0";
    insert("in its place");
    relay.signal(SIGCONT);
    finish(relay);
  }
  EXPECT_TRUE(forgotten);
}

TEST_F(ForgetfulServer, APreparedTransactionOutlivesRestartsOfTheServer) {
  pqxx::connection c(world.dsn());
  {
    pqxx::nontransaction tx(c);
    for (const std::string gid : {"fast", "immediate"}) {
      tx.exec("begin");
      tx.exec("insert into outbox.message (topic, payload) values ('" + topic + "', 'prepared " + gid + "')");
      tx.exec("prepare transaction '" + gid + "'");
    }
  }
  c.disconnect();
  auto relay = world.relay();
  for (const auto how : {ScratchPostgres::Stop::fast, ScratchPostgres::Stop::immediate}) {
    insert("before");
    world.settled();
    postgres.stop(how);
    postgres.start();
    insert("after");
    world.settled();
    world.sql(how == ScratchPostgres::Stop::fast ? "commit prepared 'fast'" : "commit prepared 'immediate'");
    world.settled();
  }
  finish(relay);
  EXPECT_EQ(world.value("select count(*) from outbox.message"), "6");
}

// Sessions --------------------------------------------------------------------------------------------------------------

class Terminated : public ::testing::Test {
 protected:
  Terminated() : topic(world.topic("t")) { test::create_counters(world); }
  int terminate() {
    return std::stoi(world.value("select count(pg_terminate_backend(a.pid)) from pg_stat_activity a where a.datname = current_database() "
                                 "and a.application_name like 'outbox-relay%'"));
  }
  World world;
  std::string topic;
};

TEST_F(Terminated, AgainAndAgainUnderLoadTheRelayLosesNothing) {
  world.environment["OUTBOX_RELAY_DELIVERY_BATCH_MESSAGES_MAX"] = "10";
  auto relay = world.relay();
  relay.says("to=streaming");
  std::atomic<bool> writing = true;
  std::thread writer([&] {
    test::write(world, topic, 300);
    writing = false;
  });
  int sessions = 0;
  while (writing || sessions < 20) {
    sessions += terminate();
    test::eventually("the relay is back", [&] {
      return world.value("select count(*) from pg_stat_activity where application_name = 'outbox-relay " + world.name() + "'") != "0";
    });
  }
  writer.join();
  world.settled();
  stop(relay);
  const auto verdict = test::judge(world, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

TEST_F(Terminated, WhileAPageIsHeldItIsReadAnew) {
  world.environment["OUTBOX_RELAY_LEASE_TTL"] = "60s";
  auto relay = world.relay({{"OUTBOX_STOP_AT", "opening"}}, "relay-with-crash-points");
  relay.says("to=streaming");
  test::write(world, topic, 10);
  relay.stops();
  EXPECT_GE(terminate(), 2);
  test::write(world, topic, 10);
  relay.signal(SIGCONT);
  world.settled();
  stop(relay);
  const auto verdict = test::judge(world, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

// As behind a pooler: an open reaches another backend than the reads before it did. Here the backend forgets its mark as it opens
// a batch, so that the next open does not find it.
TEST_F(Terminated, ABackendThatWasExchangedOpensNothing) {
  world.sql("create function public.exchange() returns trigger language plpgsql as $$ begin "
            "perform set_config('outbox_relay.session', '', false); return new; end $$");
  world.sql("create trigger exchange before insert on outbox.batch for each row execute function public.exchange()");
  auto relay = world.relay();
  relay.says("to=streaming");
  test::write(world, topic, 1);
  world.settled();
  test::write(world, topic, 1);
  relay.says("session was replaced");
  world.sql("drop trigger exchange on outbox.batch");
  world.settled();
  stop(relay);
  const auto verdict = test::judge(world, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

// Ids of elsewhere ------------------------------------------------------------------------------------------------------

TEST(ForeignIds, AreRefusedWhicheverWayTheRowsCome) {
  World world(test::shared_postgres(), nullptr);
  world.sql("insert into outbox.message (topic) values ('t')");
  for (const std::string statement : {
           "insert into outbox.message (topic, txid) values ('t', '5')",
           "set session_replication_role = replica; insert into outbox.message (topic, txid) values ('t', '5')",
           "copy outbox.message (seq, topic, txid) from program 'printf \"9\\tt\\t5\"'",
           "update outbox.message set topic = 'u'",
           "alter table outbox.message validate constraint own_txid",
       }) {
    EXPECT_THROW(world.sql(statement), pqxx::check_violation) << statement;
  }
}

TEST(ForeignIds, AJournalFromTheFutureIsRefused) {
  World world;
  const std::string topic = world.topic("t");
  test::create_counters(world);
  test::write(world, topic, 3);
  {
    auto relay = world.relay();
    relay.says("to=streaming");
    world.settled();
    stop(relay);
  }
  world.sql("update outbox.batch set upto = '3:99999999999:'");
  auto relay = world.relay();
  EXPECT_EQ(relay.wait(), 5) << relay.output();
  EXPECT_NE(relay.output().find("from the future"), std::string::npos) << relay.output();
}

TEST(ForeignIds, ADumpRestoredIntoAnotherClusterIsRefused) {
  World world;
  const std::string topic = world.topic("t");
  test::create_counters(world);
  test::write(world, topic, 3);
  {
    auto relay = world.relay();
    relay.says("to=streaming");
    world.settled();
    stop(relay);
  }
  test::write(world, topic, 3);
  ScratchPostgres elsewhere;
  const auto restored = test::run_command({"/bin/bash", "-c", "set -o pipefail; pg_dump --no-owner --no-privileges -d '" + world.dsn() +
                                           "' | psql -v ON_ERROR_STOP=1 -q -d '" + elsewhere.dsn() + "'"}, world.environment);
  ASSERT_EQ(restored.code, 0) << restored.output;
  auto there = world.environment;
  there["OUTBOX_RELAY_POSTGRES_DSN"] = elsewhere.dsn();
  test::Process relay({test::program_path("outbox-relay"), "run"}, there);
  EXPECT_EQ(relay.wait(), 5) << relay.output();
  EXPECT_NE(relay.output().find("copied from another cluster"), std::string::npos) << relay.output();
  EXPECT_NE(relay.output().find("adopt"), std::string::npos) << relay.output();
}

}  // namespace
}  // namespace relay
