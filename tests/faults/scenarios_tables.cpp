// SPDX-License-Identifier: Apache-2.0
// Changes of the tables, transactions and rights that the relay depends on.
#include "tests/faults/scenarios.h"

namespace relay::faults {
namespace {

constexpr Millis flows_within{20'000};
constexpr Millis ends_within{30'000};

std::int64_t from_lot(Round& round, std::int64_t last) { return between(round.random, 0, last); }

// PG11 ------------------------------------------------------------------------------------------

void lock_for_a_while(Round& round, const std::string& table) {
  pqxx::connection connection(round.session.db.dsn());
  pqxx::work tx(connection);
  tx.exec("lock table " + table + " in access exclusive mode");
  const Millis held = round.let_run(500, 3'000);
  tx.commit();
  round.note(table + " locked for " + std::to_string(held.count()) + " ms");
}

void change(Round& round, const std::vector<std::string>& statements) {
  for (const std::string& s : statements) round.session.db.sql(s);
  round.note(statements.front());
}

// A reader that waits for the table must not read by a snapshot that is older than the table.
void tables_changed(Round& round) {
  static const char* const tables[] = {"outbox.message", "outbox.batch", "outbox.lease",
                                       "outbox.parked", "outbox.scheduled"};
  static const std::vector<std::string> changes[] = {
      {"vacuum full outbox.message"},
      {"vacuum full outbox.batch"},
      {"cluster outbox.message using message_pkey"},
      {"alter table outbox.message alter column topic type text using topic || ''"},
      {"alter table outbox.message add column extra text default md5(random()::text)",
       "alter table outbox.message drop column extra"},
      {"create index concurrently some_index on outbox.message (created_at)",
       "drop index concurrently outbox.some_index"},
      {"reindex table concurrently outbox.message"},
  };
  round.let_run(0, 300);
  for (int times = 0; times < 2; ++times) {
    const auto what = static_cast<std::size_t>(from_lot(round, std::size(changes) + 3));
    if (what < std::size(changes)) {
      change(round, changes[what]);
    } else if (what == std::size(changes)) {
      if (const auto done = round.session.db.command({"init", "--kafka"}); done.code != 0) {
        round.broke(&Counts::exits, "init under load failed: " + done.output);
      }
      round.note("init again");
    } else {
      lock_for_a_while(round,
                       tables[static_cast<std::size_t>(from_lot(round, std::size(tables) - 1))]);
    }
    round.let_run(0, 200);
  }
  round.healed();
}

// PG12 ------------------------------------------------------------------------------------------

// A statement that writes `messages` messages without a key, numbered within the transaction.
std::string say_many(const ScenarioSession& session, std::int64_t messages) {
  return "with m as materialized (select gen_random_uuid() id, '" + session.topics[0] +
         "' topic from generate_series(1, " + std::to_string(messages) +
         ")), s as (insert into app.said (id, tx, topic, n, payload_sha256) select m.id, -1, "
         "m.topic, 0, "
         "encode(sha256('one of many'), 'hex') from m) insert into outbox.message (id, topic, "
         "payload) select m.id, m.topic, 'one of many' from m";
}

// Writes each message in its own subtransaction, which gives it its own transaction id.
std::string say_in_subtransactions(const ScenarioSession& session, int messages) {
  return "do $$ begin for i in 1.." + std::to_string(messages) + " loop begin " +
         say_many(session, 1) +
         "; exception when division_by_zero then null; end; end loop; end $$";
}

// The others flow while it is open.
void expect_flow(Round& round, const std::string& meanwhile) {
  const auto began = Clock::now();
  try {
    round.session.until_batches(5, flows_within);
  } catch (const std::runtime_error&) {
    round.broke(&Counts::exits, "nothing flowed while there was " + meanwhile);
  }
  round.measured["five_batches_ms"] =
      static_cast<double>(std::chrono::duration_cast<Millis>(Clock::now() - began).count());
}

void transaction_stays_open(Round& round) {
  ScenarioSession& session = round.session;
  pqxx::connection connection(session.db.dsn());
  pqxx::nontransaction tx(connection);
  struct Kind {
    const char* name;
    std::string statement;
  };
  const Kind kinds[] = {{"an open transaction", say_many(session, 1)},
                        {"a prepared transaction", say_many(session, 3)},
                        {"10,000 subtransactions", say_in_subtransactions(session, 10'000)},
                        {"100,000 rows", say_many(session, 100'000)}};
  const auto which = static_cast<std::size_t>(round.number) % std::size(kinds);
  const bool prepared = which == 1;
  const bool commit = chance(round.random, 0.8);
  tx.exec("begin");
  tx.exec(kinds[which].statement);
  if (prepared) tx.exec("prepare transaction 'forgotten-1'");
  expect_flow(round, kinds[which].name);
  round.let_run(300, 2'000);
  expect_flow(round, kinds[which].name);
  tx.exec(std::string(commit ? "commit" : "rollback") +
          (prepared ? " prepared 'forgotten-1'" : ""));
  round.note(std::string(kinds[which].name) + (commit ? ", committed" : ", rolled back"));
  round.healed();
}

// PG13 ------------------------------------------------------------------------------------------

std::string user_of_relay(const ScenarioSession& session) {
  return "\"outbox_relay-" + session.db.name() + "\"";
}

void end_sessions_of_relay(const ScenarioSession& session) {
  session.db.sql(
      "select pg_terminate_backend(a.pid) from pg_stat_activity a where a.usename = "
      "'outbox_relay-" +
      session.db.name() + "'");
}

// The relay must exit and report what it lacks, because waiting does not help. Its supervisor
// starts it again.
void relay_refuses(Round& round, const std::string& take, const std::string& give) {
  ScenarioSession& session = round.session;
  Relay& relay = session.relays.front();
  relay.may_end_with = 5;
  session.db.sql(take);
  try {
    test::eventually(
        "the relay ends", [&] { return !relay.process.running(); }, ends_within);
    if (relay.process.output().find("HINT: ") == std::string::npos)
      round.broke(&Counts::exits, "the relay ended without a hint after " + take);
  } catch (const std::runtime_error&) {
    round.broke(&Counts::exits, "the relay goes on after " + take);
    session.kill(relay);
  }
  round.let_run(0, 300);
  session.db.sql(give);
  session.start_relay();
}

// The relay waits, and continues without a restart.
void relay_waits(Round& round, const std::string& take, const std::string& give) {
  ScenarioSession& session = round.session;
  session.db.sql(take);
  end_sessions_of_relay(session);
  round.let_run(200, 2'000);
  session.db.sql(give);
}

void rights_changed(Round& round) {
  const std::string user = user_of_relay(round.session);
  struct Change {
    std::string take, give;
    bool refuses;
  };
  const Change changes[] = {
      {"revoke outbox_relay from " + user, "grant outbox_relay to " + user, true},
      {"revoke insert on outbox.batch from outbox_relay",
       "grant insert on outbox.batch to outbox_relay", true},
      {"revoke select on outbox.message from outbox_relay",
       "grant select on outbox.message to outbox_relay", true},
      {"alter table outbox.message enable row level security",
       "alter table outbox.message disable row level security", true},
      {"alter role " + user + " connection limit 0", "alter role " + user + " connection limit -1",
       false},
      {"alter role " + user + " nologin", "alter role " + user + " login", false},
      {"alter role " + user + " set statement_timeout = '1ms'", "alter role " + user + " reset all",
       false},
      {"alter role " + user + " set synchronous_commit = off", "alter role " + user + " reset all",
       false},
      {"alter role " + user + " set default_transaction_read_only = on",
       "alter role " + user + " reset all", false},
      {"alter role " + user + " set default_transaction_isolation = 'serializable'",
       "alter role " + user + " reset all", false},
  };
  const Change& c = changes[static_cast<std::size_t>(from_lot(round, std::size(changes) - 1))];
  round.let_run(0, 300);
  (c.refuses ? relay_refuses : relay_waits)(round, c.take, c.give);
  round.note(c.take);
  round.healed();
}

}  // namespace

std::vector<Scenario> table_scenarios() {
  return {
      {"PG11", tables_changed, {.workload = {.long_transaction = false}}},
      {"PG12", transaction_stays_open, {}, 4},
      {"PG13", rights_changed, {.to_postgres = RequestFate::own_user}},
  };
}

}  // namespace relay::faults
