// SPDX-License-Identifier: Apache-2.0
// Another server takes the place of the primary: a standby, a copy, a backup.
#include <signal.h>

#include <filesystem>

#include "tests/faults/scenarios.h"
#include "tests/support/database_copy.h"
#include "tests/support/load.h"

namespace relay::faults {
namespace {

using test::ScratchPostgres;

constexpr Millis notices_within{30'000};

void primary_dies(Round& round) {
  ScenarioSession& session = round.session;
  round.note("died", round.let_run(0, 500));
  session.servers.postgres->stop(ScratchPostgres::Stop::immediate);
  round.let_run(0, 300);
  session.servers.standby->promote();
  session.move_to_standby();
  round.healed();
}

// Stops replication: the standby receives no later commit of the primary.
void end_replication(const Servers& servers) {
  pqxx::connection connection(servers.standby->dsn());
  pqxx::nontransaction tx(connection);
  tx.exec("alter system set primary_conninfo = ''");
  tx.exec("select pg_reload_conf()");
  test::eventually("the standby hears nothing",
                   [&] { return tx.exec("select from pg_stat_wal_receiver").empty(); });
}

// What a round may show after the database went back. Nothing that the promoted server has may be
// lost.
void allow_what_was_lost(Round& round) {
  round.allowed.database_goes_back = true;
  round.allowed.doubtful_batches = 1'000;
  round.allowed.counts = {"repeated", "journal"};
}

// What Kafka has and the promoted server lacks must be from the old one.
void compare_with_old_primary(Round& round, const std::string& old_dsn) {
  pqxx::connection connection(old_dsn);
  pqxx::nontransaction tx(connection);
  std::set<std::string> ids;
  for (const auto& row : tx.exec("select m.id from outbox.message m")) ids.insert(row[0].c_str());
  round.session.checker.allow_forgotten(ids);
}

// No client connects to it: its standby comes first in the list, and is available.
void ask_dead_primary(Round& round) {
  ScratchPostgres& old = *round.session.servers.postgres;
  old.start();
  compare_with_old_primary(round, old.dsn(round.session.db.database()));
  old.stop(ScratchPostgres::Stop::immediate);
}

void promote_standby(ScenarioSession& session) {
  session.servers.postgres->stop(ScratchPostgres::Stop::immediate);
  session.servers.standby->promote();
  session.move_to_standby();
}

void expect_database_went_back(Round& round, const Relay& relay) {
  try {
    relay.process.says("database_went_back", notices_within);
  } catch (const std::runtime_error&) {
    round.broke(&Counts::exits, "the relay did not say that the database went back");
  }
}

// The relay dies too, and the next one during its first batch, whose number may be that of a batch
// that was lost.
void relay_dies_twice(Round& round) {
  ScenarioSession& session = round.session;
  session.applications.pause();
  session.until_settled(notices_within);
  end_replication(session.servers);
  const auto lost = between(round.random, 1, 2);
  for (std::int64_t i = 0; i < lost; ++i) {
    session.db.sql("insert into outbox.message (topic, payload) values ('" + session.topics[0] +
                   "', 'lost')");
    session.until_settled(notices_within);
  }
  session.kill(session.relays.front());
  promote_standby(session);
  round.note("died with " + std::to_string(lost) +
             " batches and its relay, whose successor died amid a batch");
  Relay& doomed =
      session.start_relay({{"OUTBOX_CRASH_AT", "opened"}}, session.program_with_crash_points());
  doomed.killed = true;
  session.applications.go();
  expect_database_went_back(round, doomed);
  doomed.process.wait();
  session.start_relay();
  round.healed();
  session.until_batches(1, notices_within);
  round.recovered();
  ask_dead_primary(round);
  round.measured["batches_lost"] = static_cast<double>(lost);
}

// Kafka has batches that the promoted server does not have. The relay must report it.
void primary_dies_with_its_last_commits(Round& round) {
  ScenarioSession& session = round.session;
  allow_what_was_lost(round);
  round.expected_errors = {"database_went_back"};
  round.let_run(0, 300);
  if (chance(round.random, 0.5)) return relay_dies_twice(round);
  end_replication(session.servers);
  const auto before = session.delivered_batches();
  session.until_batches(3, notices_within);
  round.let_run(0, 200);
  const auto lost = session.delivered_batches() - before;
  promote_standby(session);
  round.healed();
  round.note("died with " + std::to_string(lost) + " batches");
  round.measured["batches_lost"] = static_cast<double>(lost);
  expect_database_went_back(round, session.relays.front());
  session.until_batches(1, notices_within);
  round.recovered();
  ask_dead_primary(round);
}

// The outbox is now on the other server, and relays go there.
void move(ScenarioSession& session) {
  session.move_to_standby();
  session.db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = session.db.dsn();
}

// The old primary stays up, with its relay and with clients that do not know about the promotion.
void both_are_up(Round& round) {
  ScenarioSession& session = round.session;
  allow_what_was_lost(round);
  round.let_run(0, 300);
  const std::string old_dsn = session.db.dsn();
  test::Load unaware([&, topic = session.topics[0]] {
    try {
      pqxx::connection connection(old_dsn);
      pqxx::nontransaction tx(connection);
      for (int i = 0; i < 20; ++i) {
        tx.exec_params("insert into outbox.message (topic, payload) values ($1, 'on the old side')",
                       topic);
        tx.exec("select pg_sleep(0.005)");
      }
    } catch (const pqxx::failure&) {  // as any client
    }
  });
  Relay& abandoned = session.relays.front();
  abandoned.may_end_with = 5;
  session.servers.standby->promote();
  round.note("both sides went on", round.let_run(0, 500));
  session.applications.pause();
  move(session);
  session.applications.go();
  session.start_relay();
  round.healed();
  session.until_batches(1, notices_within);
  round.recovered();
  try {
    test::eventually(
        "the abandoned relay ends", [&] { return !abandoned.process.running(); }, notices_within);
  } catch (const std::runtime_error&) {
    round.broke(&Counts::exits, "the relay of the abandoned primary goes on");
    session.kill(abandoned);
  }
  unaware.end();
  compare_with_old_primary(round, old_dsn);
  round.expected_errors = {"stopped", "refused", "database_went_back"};
}

// The relay is configured with the standby. It starts working without a restart when that server is
// promoted.
void points_at_the_standby(Round& round) {
  ScenarioSession& session = round.session;
  session.stop(session.relays.front());
  session.db.environment["OUTBOX_RELAY_POSTGRES_DSN"] =
      session.servers.standby->dsn(session.db.database());
  const Relay& relay = session.start_relay();
  try {
    relay.process.says("read-only standby", notices_within);
  } catch (const std::runtime_error&) {
    round.broke(&Counts::exits, "the relay did not say that the server is a standby");
  }
  round.note("promoted", round.let_run(0, 1'500));
  promote_standby(session);
  round.healed();
}

void end_relay(Round& round) {
  Relay& relay = round.session.relays.front();
  return chance(round.random, 0.7) ? round.session.kill(relay) : round.session.stop(relay);
}

// Acts as an operator does: reads what the command found, and decides the batch in doubt by what
// Kafka contains of it.
void adopt_copy(Round& round) {
  test::TestOutbox& db = round.session.db;
  const auto command = [&](const std::vector<std::string>& arguments, int code) {
    const auto done = db.command(arguments);
    if (done.code != code)
      round.broke(&Counts::exits, arguments.front() + " ended with " + std::to_string(done.code) +
                                      ": " + done.output);
    return done.output;
  };
  test::eventually("the lease that was copied has run out", [&] {
    return db.value("select l.expires_at < clock_timestamp() from outbox.lease l") == "t";
  });
  command({"run"}, 5);
  const bool in_doubt =
      db.value("select exists (select from outbox.batch b where b.delivered_at is null)") == "t";
  const std::string found = command({"adopt"}, in_doubt ? 2 : 1);
  std::vector<std::string> decision = {"adopt", "--yes"};
  if (in_doubt) {
    const auto says = [&](const char* evidence) {
      return found.find(evidence) != std::string::npos;
    };
    const bool delivered = says(": Kafka has it");
    const bool exactly_once = round.session.options.mode == Mode::exactly_once;
    if (!delivered &&
        !says(exactly_once ? ": Kafka does not have it" : ": Kafka may have some of it, or all")) {
      round.broke(&Counts::exits, "adopt does not say what became of the batch in doubt: " + found);
    }
    decision.emplace_back(delivered ? "--delivered" : "--resend");
    round.note(std::string("a batch in doubt: ") + decision.back());
  }
  command(decision, 0);
}

void moves_to_a_copy(Round& round, bool upgraded) {
  ScenarioSession& session = round.session;
  Servers& servers = session.servers;
  servers.add_postgres();
  if (!upgraded && chance(round.random, 0.5)) test::burn_ids(*servers.standby, 20'000);
  round.note(upgraded ? "upgraded" : "dumped and restored", round.let_run(0, 300));
  end_relay(round);
  session.applications.pause();
  servers.postgres->stop(
      ScratchPostgres::Stop::fast);  // and with it the transactions that are still open
  servers.postgres->start();
  session.checker.note_batches();
  if (upgraded) {
    test::upgrade(*servers.postgres, *servers.standby);
  } else {
    test::dump_and_restore(*servers.postgres, *servers.standby, session.db.database());
  }
  servers.postgres->stop(ScratchPostgres::Stop::fast);
  move(session);
  if (chance(round.random, 0.5)) {
    session.applications.go();
    round.note("the applications went on", round.let_run(0, 500), " before somebody decided");
  }
  adopt_copy(round);
  session.start_relay();
  session.applications.go();
  round.healed();
}

// A backup of the running server, without what was committed after it.
void is_restored_to_the_past(Round& round) {
  ScenarioSession& session = round.session;
  Servers& servers = session.servers;
  allow_what_was_lost(round);
  round.expected_errors = {"database_went_back"};
  servers.standby.reset(new ScratchPostgres(ScratchPostgres::standby_of(*servers.postgres)));
  servers.standby->stop(ScratchPostgres::Stop::fast);
  std::filesystem::remove(servers.standby->folder() / "postgres" / "standby.signal");
  const auto before = session.delivered_batches();
  session.until_batches(3, notices_within);
  round.let_run(0, 500);
  const auto lost = session.delivered_batches() - before;
  end_relay(round);
  session.applications.pause();
  compare_with_old_primary(round, session.db.dsn());
  servers.postgres->stop(ScratchPostgres::Stop::immediate);
  servers.standby->start();
  move(session);
  round.note("restored to " + std::to_string(lost) + " batches before");
  round.measured["batches_lost"] = static_cast<double>(lost);
  const Relay& relay = session.start_relay();
  session.applications.go();
  round.healed();
  expect_database_went_back(round, relay);
}

void is_copied(Round& round) {
  const auto how = between(round.random, 0, 2);
  return how == 2 ? is_restored_to_the_past(round) : moves_to_a_copy(round, how == 1);
}

}  // namespace

std::vector<Scenario> failover_scenarios() {
  constexpr Millis within{60'000};
  return {
      {"PG07",
       primary_dies,
       {.to_postgres = RequestFate::either_server},
       1,
       within,
       {.standby = true, .synchronous = true}},
      {"PG08",
       primary_dies_with_its_last_commits,
       {.to_postgres = RequestFate::either_server},
       1,
       within,
       {.standby = true}},
      {"PG09", both_are_up, {}, 1, within, {.standby = true}},
      {"PG15", points_at_the_standby, {}, 1, within, {.standby = true, .synchronous = true}},
      {"PG16", is_copied, {}, 1, within},
  };
}

}  // namespace relay::faults
