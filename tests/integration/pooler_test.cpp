// SPDX-License-Identifier: Apache-2.0
// Through pgbouncer in transaction mode, shared with other clients, each transaction runs on
// whichever backend is free. The relay's guarantees hold all the same: its settings are made in
// each transaction, and what it has read is forgotten with the server.
#include <gtest/gtest.h>
#include <signal.h>

#include "relay/postgres/journal.h"
#include "tests/support/asynchronous_writers.h"
#include "tests/support/checker.h"

namespace relay {
namespace {

using postgres::Pooler;
using test::Process;
using test::ScratchPgbouncer;
using test::ScratchPostgres;
using test::TestOutbox;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// An outbox whose relay and commands go through the pooler.
struct Pooled {
  explicit Pooled(ScratchPostgres& server,
                  const std::vector<std::string>& settings = {"default_pool_size=5"})
      : pooler(server, settings), db(server) {
    db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = pooler.dsn(db.database());
    db.environment["OUTBOX_RELAY_POSTGRES_POOLER"] = "transaction";
  }

  void expect_exactly_once(const std::vector<std::string>& topics) {
    const auto verdict = test::check_delivery(db, topics);
    EXPECT_TRUE(verdict.exactly_once()) << verdict;
  }

  ScratchPgbouncer pooler;
  TestOutbox db;
};

void stop(Process& relay) {
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

// --- Faults ------------------------------------------------------------------------------------

// Notes in public.opened_by which backend opens each batch.
void note_backends(TestOutbox& db) {
  db.sql("create table public.opened_by (pid integer)");
  db.sql(
      "create function public.note() returns trigger language plpgsql as $$ begin "
      "insert into public.opened_by values (pg_backend_pid()); return new; end $$");
  db.sql(
      "create trigger note after insert on outbox.batch for each row execute function "
      "public.note()");
}

std::vector<std::function<void()>> faults_of(Pooled& pooled, ScratchPostgres& server,
                                             std::optional<Process>& relay) {
  return {
      [&] {  // the backends of the pool
        pooled.db.sql(
            "select pg_terminate_backend(a.pid) from pg_stat_activity a where a.datname = "
            "current_database() and a.pid <> pg_backend_pid()");
      },
      [&] {
        server.stop(ScratchPostgres::Stop::immediate);
        server.start();
      },
      [&] {
        relay->signal(SIGKILL);
        relay->wait();
        relay.reset();
        relay.emplace(pooled.db.relay());
      },
      [&] {
        pooled.pooler.kill();
        pooled.pooler.start();
      },
  };
}

TEST(PoolerTest, UnderLoadAndEveryFaultNothingIsGhostedLostRepeatedOrReordered) {
  ScratchPostgres server({"synchronous_commit=off", "full_page_writes=off"});
  Pooled pooled(server);
  TestOutbox& db = pooled.db;
  const std::string topic = db.topic("t");
  test::create_counters(db);
  note_backends(db);
  std::optional<Process> relay(db.relay());
  test::AsynchronousWriters writers(pooled.pooler.dsn(db.database()), topic, 4);

  const auto faults = faults_of(pooled, server, relay);
  const auto batches = [&] {
    return std::stoll(db.value(
        "select coalesce(max(number), 0) from outbox.batch where delivered_at is not null"));
  };
  std::size_t round = 0;
  for (; round < 2 * faults.size() || (writers.forgotten() == 0 && round < 10 * faults.size());
       ++round) {
    const auto before = batches();
    test::eventually(
        "the relay delivers", [&] { return batches() > before + 5; }, Millis{60'000});
    faults[round % faults.size()]();
  }
  writers.stop();
  db.wait_until_idle();
  stop(*relay);
  std::printf(
      "%zu faults, %lld commits acknowledged, %lld of them forgotten, batches opened by %s "
      "backends\n",
      round, static_cast<long long>(writers.acknowledged()),
      static_cast<long long>(writers.forgotten()),
      db.value("select count(distinct pid) from public.opened_by").c_str());
  EXPECT_GT(writers.forgotten(), 0);  // or nothing was shown
  EXPECT_GT(std::stoi(db.value("select count(distinct pid) from public.opened_by")), 10);
  pooled.expect_exactly_once({topic});
}

// The relay holds a page that it has read and not opened while the server crashes, forgets its
// rows, and gives their ids to others. Its connections to the pooler outlive that.
std::int64_t ghosts_of_a_page_held(const std::string& defect) {
  ScratchPostgres server(
      {"wal_writer_delay=10s", "synchronous_commit=off", "autovacuum=off", "full_page_writes=off"});
  Pooled pooled(server);
  TestOutbox& db = pooled.db;
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "60s";
  const std::string topic = db.topic("t", 1);
  const auto insert = [&](const std::string& payload) {
    db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', '" + payload +
           "')");
  };
  std::int64_t ghosts = 0;
  bool forgotten = false;
  for (int round = 0; round < 5 && !forgotten; ++round) {
    Process::Environment more = {{"OUTBOX_STOP_AT", "opening:2"}};
    if (!defect.empty()) more["OUTBOX_MUTANT"] = defect;
    auto relay =
        db.relay(more, defect.empty() ? "relay-with-crash-points" : "outbox-relay-mutants");
    relay.says("to=streaming");
    insert("first of round " + std::to_string(round));
    db.wait_until_idle();
    insert("held");
    relay.stops();
    server.stop(ScratchPostgres::Stop::immediate);
    server.start();
    forgotten = db.value("select count(*) from outbox.message where payload = 'held'") == "0";
    insert("in its place");
    relay.signal(SIGCONT);
    db.wait_until_idle();
    stop(relay);
    const auto verdict = test::check_delivery(db, {topic});
    ghosts += verdict.ghosts;
    if (!defect.empty()) continue;
    EXPECT_TRUE(contains(relay.output(), "is another or was restarted")) << relay.output();
    EXPECT_TRUE(verdict.exactly_once()) << verdict;
  }
  EXPECT_TRUE(forgotten);
  return ghosts;
}

TEST(PoolerTest, APageReadAheadOfACrashIsNotSent) { EXPECT_EQ(ghosts_of_a_page_held(""), 0); }

TEST(PoolerTest, ARelayThatDoesNotLookForTheBackendThatReadIsCaughtSendingGhosts) {
  EXPECT_GT(ghosts_of_a_page_held("any_backend"), 0);
}

// Nothing crashed, but the relay cannot know that: the pooler has new connections for all that it
// had.
TEST(PoolerTest, WhereEveryConnectionIsAnotherTheRelayStartsAnew) {
  Pooled pooled(test::shared_postgres());
  TestOutbox& db = pooled.db;
  const std::string topic = db.topic("t");
  test::create_counters(db);
  auto relay = db.relay();
  relay.says("to=streaming");
  test::eventually("the relay misses its backends", [&] {
    relay.signal(SIGSTOP);
    relay.stops();
    db.sql(
        "select pg_terminate_backend(a.pid) from pg_stat_activity a where a.datname = "
        "current_database() and a.pid <> pg_backend_pid()");
    test::write(db, topic, 20);
    relay.signal(SIGCONT);
    db.wait_until_idle();
    return contains(relay.output(), "raise server_lifetime");
  });
  stop(relay);
  pooled.expect_exactly_once({topic});
}

TEST(PoolerTest, AStandbyWhoseBackendsWereClosedMeanwhileTakesOver) {
  Pooled pooled(test::shared_postgres());
  TestOutbox& db = pooled.db;
  const std::string topic = db.topic("t");
  test::create_counters(db);
  auto active = db.relay();
  active.says("to=streaming");
  auto standby = db.relay();
  standby.says("starting");
  test::write(db, topic, 10);
  db.wait_until_idle();
  db.sql(
      "select pg_terminate_backend(a.pid) from pg_stat_activity a where a.datname = "
      "current_database() and a.pid <> pg_backend_pid()");
  test::write(db, topic, 10);
  db.wait_until_idle();
  active.signal(SIGKILL);
  standby.says("to=streaming");
  test::write(db, topic, 10);
  db.wait_until_idle();
  stop(standby);
  pooled.expect_exactly_once({topic});
}

// --- Settings ----------------------------------------------------------------------------------

// What ALTER ROLE says has no effect, in whichever backend, neither on the stream nor on the
// control session.
void deliver_with_altered_role(const std::string& defect) {
  Pooled pooled(test::shared_postgres());
  TestOutbox& db = pooled.db;
  const std::string topic = db.topic("t");
  test::create_counters(db);
  db.login("outbox_relay");
  const std::string user = "outbox_relay-" + db.name();
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = pooled.pooler.dsn(db.database(), user);
  for (const std::string setting :
       {"synchronous_commit = off", "default_transaction_isolation = 'repeatable read'",
        "search_path = nowhere", "default_transaction_read_only = on", "row_security = on",
        "standard_conforming_strings = off", "DateStyle = 'German'", "bytea_output = 'escape'",
        "lock_timeout = '1ms'"}) {
    db.sql("alter role \"" + user + "\" set " + setting);
  }
  db.sql("create table public.seen (name text, value text)");
  db.sql("grant insert on public.seen to public");
  db.sql(
      "create function public.note() returns trigger language plpgsql set search_path = pg_catalog "
      "as $$ begin insert into public.seen "
      "select s.name, current_setting(s.name) from unnest(array['synchronous_commit', "
      "'transaction_isolation', 'row_security', "
      "'transaction_read_only', 'lock_timeout']) as s(name); return new; end $$");
  db.sql(
      "create trigger note after insert or update on outbox.batch for each row execute function "
      "public.note()");

  auto relay = db.relay({{"OUTBOX_MUTANT", defect}},
                        defect.empty() ? "outbox-relay" : "outbox-relay-mutants");
  if (!defect.empty()) {
    relay.says("to=stalled");
    EXPECT_TRUE(contains(relay.output(), "read-only")) << relay.output();
    return;
  }
  test::write(db, topic, 20);
  db.wait_until_idle();
  stop(relay);
  EXPECT_EQ(db.value("select string_agg(distinct name || '=' || value, ' ' order by name || '=' || "
                     "value) from public.seen"),
            "lock_timeout=30s row_security=off synchronous_commit=on transaction_isolation=read "
            "committed transaction_read_only=off");
  pooled.expect_exactly_once({topic});
}

TEST(PoolerTest, WhatAlterRoleSaysHasNoEffect) { deliver_with_altered_role(""); }
TEST(PoolerTest, ARelayWithoutItsSettingsIsCaught) {
  deliver_with_altered_role("no_transaction_settings");
}

// The relay leaves nothing behind in backends that others use after it.
TEST(PoolerTest, BackendsKeepNothingOfTheRelay) {
  Pooled pooled(test::shared_postgres(), {"default_pool_size=2"});
  TestOutbox& db = pooled.db;
  const std::string topic = db.topic("t");
  test::create_counters(db);
  auto relay = db.relay();
  test::write(db, topic, 20);
  db.wait_until_idle();
  pqxx::connection other(pooled.pooler.dsn(db.database()));
  for (int i = 0; i < 50; ++i) {
    pqxx::nontransaction tx(other);
    const auto row = tx.exec(
        "select current_setting('search_path'), current_setting('enable_seqscan'), "
        "coalesce(current_setting("
        "'outbox_relay.session', true), ''), (select count(*) from pg_prepared_statements)")[0];
    EXPECT_EQ(row[0].c_str(), std::string("\"$user\", public"));
    EXPECT_EQ(row[1].c_str(), std::string("on"));
    EXPECT_EQ(row[2].c_str(), std::string());
    EXPECT_EQ(row[3].as<int>(), 0);
  }
  stop(relay);
}

// --- Statements --------------------------------------------------------------------------------

TEST(PoolerTest, ParametersArriveAsTheyAreWhateverStandardConformingStringsSays) {
  ScratchPgbouncer pooler(test::shared_postgres());
  const std::vector<std::string> values = {
      "",         "'",       "\\",  "\\'",          "''; drop table x; --",
      "$1 $2 $$", "a\nb\tc", "ä€😀", "{\"a\\\\b\"}", "E'x'"};
  const std::string user = "scs-" + std::to_string(getpid());
  pqxx::connection admin(test::shared_postgres().dsn());
  pqxx::nontransaction(admin).exec("drop role if exists \"" + user + "\"; create role \"" + user +
                                   "\" login");
  for (const char* const conforming : {"on", "off"}) {
    pqxx::nontransaction(admin).exec("alter role \"" + user +
                                     "\" set standard_conforming_strings = " + conforming);
    auto control = postgres::PqxxSession::connect(test::shared_postgres().dsn("postgres", user),
                                                  std::nullopt, Pooler::transaction);
    auto session = postgres::StreamSession::connect(test::shared_postgres().dsn("postgres", user),
                                                    Pooler::transaction);
    ASSERT_TRUE(control && session);
    for (const std::string& value : values) {
      const std::string sql =
          "select '$1', $1::text, $2::bigint, $3::boolean, $4::text is null -- $9";
      auto rows = (*control)->run("asking", sql, value, -7, true, postgres::Parameter());
      ASSERT_TRUE(rows) << rows.error().text();
      EXPECT_EQ((*rows)[0][0].c_str(), std::string("$1"));
      EXPECT_EQ((*rows)[0][1].c_str(), value);
      EXPECT_EQ((*rows)[0][2].as<int>(), -7);
      EXPECT_TRUE((*rows)[0][3].as<bool>() && (*rows)[0][4].as<bool>());
      auto answer =
          (*session)->execute("asking", "select $1::text", {value}, Deadline(Millis{10'000}));
      ASSERT_TRUE(answer) << answer.error().text();
      EXPECT_EQ(PQgetvalue(answer->get(), 0, 0), value);
    }
    EXPECT_FALSE((*control)->take_warning());
    EXPECT_FALSE((*session)->take_warning());
  }
}

TEST(PoolerTest, AStatementThatFailsOwesNothingToItsBackend) {
  ScratchPgbouncer pooler(test::shared_postgres(), {"default_pool_size=1"});
  auto session = postgres::StreamSession::connect(pooler.dsn(), Pooler::transaction);
  ASSERT_TRUE(session) << session.error().text();
  const auto failed = (*session)->query("select 1/0", Deadline(Millis{10'000}));
  ASSERT_FALSE(failed);
  EXPECT_FALSE(failed.error().connection_lost);
  auto control = postgres::PqxxSession::connect(pooler.dsn(), Millis{5'000}, Pooler::transaction);
  ASSERT_TRUE(control && (*control)->run("asking", "select 1"));
  EXPECT_TRUE((*session)->query("select 1", Deadline(Millis{10'000})));
}

// Parked keys and topics travel as literals in both sessions.
TEST(PoolerTest, ParkingAndEveryCommandWork) {
  Pooled pooled(test::shared_postgres());
  TestOutbox& db = pooled.db;
  const std::string topic = db.topic("t");
  db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = topic;
  test::create_counters(db);
  const auto command = [&](const std::vector<std::string>& arguments, int code = 0) {
    const auto done = db.command(arguments);
    EXPECT_EQ(done.code, code) << arguments[0] << ": " << done.output;
    return done.output;
  };
  command({"init", "--kafka"});
  const std::string checked = command({"check", "--json"});
  EXPECT_FALSE(contains(checked, "\"PostgreSQL\"")) << checked;
  test::write(db, topic, 10);
  db.sql(
      R"(insert into outbox.message (topic, key, payload)
         values ('it''s \ "unwritable"', '\x275c', 'x'), ('it''s \ "unwritable"', '\x275c', 'y'))");
  db.deliver();
  db.sql(
      R"(insert into outbox.message (topic, key, payload)
         values ('it''s \ "unwritable"', '\x275c', 'z'))");
  db.deliver();
  EXPECT_EQ(db.value("select count(*) from outbox.parked"), "3");
  const std::string id = db.value("select id from outbox.message order by seq limit 1");
  EXPECT_TRUE(contains(command({"trace", id}), "delivered"));
  command({"status", "--json"});
  command({"parked", "list"});
  command({"parked", "discard", "--topic", R"(it's \ "unwritable")", "--why", R"(it's a \ test)"});
  command({"replay", "--since", "2020-01-01", "--why", "a test"});
  db.deliver();
  EXPECT_EQ(db.value("select count(*) from outbox.parked where resolution = 'discard' and "
                     "released_in is not null"),
            "3");
  command({"prune", "--dry-run"});
  command({"prune"});
  db.environment["OUTBOX_RELAY_RELAY_NAME"] = db.name() + "-next";
  command({"init", "--kafka"});
  EXPECT_TRUE(contains(command({"check"}, 5), "belongs to the relay named"));
  command({"adopt", "--yes"});
  test::write(db, topic, 5);
  db.deliver();
}

// --- Poolers that nobody spoke of --------------------------------------------------------------

TEST(PoolerTest, APoolerInTransactionModeThatTheConfigurationDoesNotNameIsRefused) {
  Pooled pooled(test::shared_postgres());
  TestOutbox& db = pooled.db;
  db.environment.erase("OUTBOX_RELAY_POSTGRES_POOLER");
  auto relay = db.relay();
  EXPECT_EQ(relay.wait(), 5) << relay.output();
  EXPECT_TRUE(contains(relay.output(), "set postgres.pooler")) << relay.output();
  const auto checked = db.command({"check"});
  EXPECT_EQ(checked.code, 5) << checked.output;
  EXPECT_TRUE(contains(checked.output, "set postgres.pooler")) << checked.output;
}

TEST(PoolerTest, APoolerInSessionModeNeedsNoOption) {
  Pooled pooled(test::shared_postgres(), {"default_pool_size=5", "pool_mode=session"});
  TestOutbox& db = pooled.db;
  db.environment.erase("OUTBOX_RELAY_POSTGRES_POOLER");
  const std::string topic = db.topic("t");
  test::create_counters(db);
  test::write(db, topic, 10);
  db.deliver();
  pooled.expect_exactly_once({topic});
}

TEST(PoolerTest, AServerConnectionForOneTransactionOnlyIsAFinding) {
  Pooled pooled(test::shared_postgres(), {"default_pool_size=5", "server_lifetime=0"});
  // The pooler looks at ages now and then only: a connection can serve once more.
  test::eventually("the finding", [&] {
    return contains(pooled.db.command({"check"}).output, "raise server_lifetime");
  });
}

}  // namespace
}  // namespace relay
