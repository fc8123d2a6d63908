// SPDX-License-Identifier: Apache-2.0
// Another server takes the place of the primary: a standby, a copy, a backup.
#include <signal.h>

#include <filesystem>

#include "tests/faults/rows.h"
#include "tests/support/database_copy.h"
#include "tests/support/load.h"

namespace outbox::faults {
namespace {

using test::ScratchPostgres;

constexpr Millis notices_within{30'000};

void primary_dies(Round& round) {
  Stretch& stretch = round.stretch;
  round.tell("died", round.let_run(0, 500));
  stretch.servers.postgres->stop(ScratchPostgres::Stop::immediate);
  round.let_run(0, 300);
  stretch.servers.standby->promote();
  stretch.move_to_standby();
  round.healed();
}

// From now on the standby hears nothing of what the primary commits.
void end_replication(const Servers& servers) {
  pqxx::connection connection(servers.standby->dsn());
  pqxx::nontransaction tx(connection);
  tx.exec("alter system set primary_conninfo = ''");
  tx.exec("select pg_reload_conf()");
  test::eventually("the standby hears nothing", [&] { return tx.exec("select from pg_stat_wal_receiver").empty(); });
}

// What a database that went back makes of a round. Nothing is lost of what the promoted server has.
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
  round.stretch.checker.allow_forgotten(ids);
}

// Nobody goes to it: its standby comes first in the list, and is there.
void ask_dead_primary(Round& round) {
  ScratchPostgres& old = *round.stretch.servers.postgres;
  old.start();
  compare_with_old_primary(round, old.dsn(round.stretch.world.database()));
  old.stop(ScratchPostgres::Stop::immediate);
}

void promote_standby(Stretch& stretch) {
  stretch.servers.postgres->stop(ScratchPostgres::Stop::immediate);
  stretch.servers.standby->promote();
  stretch.move_to_standby();
}

void expect_database_went_back(Round& round, const Relay& relay) {
  try {
    relay.process.says("database_went_back", notices_within);
  } catch (const std::runtime_error&) {
    round.broke(&Counts::exits, "the relay did not say that the database went back");
  }
}

// The relay dies too, and the next one amid its first batch, whose number may be that of a batch that was lost.
void relay_dies_twice(Round& round) {
  Stretch& stretch = round.stretch;
  stretch.applications.pause();
  stretch.until_settled(notices_within);
  end_replication(stretch.servers);
  const auto lost = between(round.random, 1, 2);
  for (std::int64_t i = 0; i < lost; ++i) {
    stretch.world.sql("insert into outbox.message (topic, payload) values ('" + stretch.topics[0] + "', 'lost')");
    stretch.until_settled(notices_within);
  }
  stretch.kill(stretch.relays.front());
  promote_standby(stretch);
  round.tell("died with " + std::to_string(lost) + " batches and its relay, whose successor died amid a batch");
  Relay& doomed = stretch.start_relay({{"OUTBOX_CRASH_AT", "opened"}}, stretch.program_with_crash_points());
  doomed.killed = true;
  stretch.applications.go();
  expect_database_went_back(round, doomed);
  doomed.process.wait();
  stretch.start_relay();
  round.healed();
  stretch.until_batches(1, notices_within);
  round.recovered();
  ask_dead_primary(round);
  round.measured["batches_lost"] = static_cast<double>(lost);
}

// Kafka has batches that the promoted server never heard of. The relay must say so.
void primary_dies_with_its_last_commits(Round& round) {
  Stretch& stretch = round.stretch;
  allow_what_was_lost(round);
  round.expected_errors = {"database_went_back"};
  round.let_run(0, 300);
  if (chance(round.random, 0.5)) return relay_dies_twice(round);
  end_replication(stretch.servers);
  const auto before = stretch.delivered_batches();
  stretch.until_batches(3, notices_within);
  round.let_run(0, 200);
  const auto lost = stretch.delivered_batches() - before;
  promote_standby(stretch);
  round.healed();
  round.tell("died with " + std::to_string(lost) + " batches");
  round.measured["batches_lost"] = static_cast<double>(lost);
  expect_database_went_back(round, stretch.relays.front());
  stretch.until_batches(1, notices_within);
  round.recovered();
  ask_dead_primary(round);
}

// The outbox is now on the other server, and relays go there.
void move(Stretch& stretch) {
  stretch.move_to_standby();
  stretch.world.environment["OUTBOX_RELAY_POSTGRES_DSN"] = stretch.world.dsn();
}

// The old primary goes on, with clients that have not heard of its successor, and with its relay.
void both_are_up(Round& round) {
  Stretch& stretch = round.stretch;
  allow_what_was_lost(round);
  round.let_run(0, 300);
  const std::string old_dsn = stretch.world.dsn();
  test::Load unaware([&, topic = stretch.topics[0]] {
    try {
      pqxx::connection connection(old_dsn);
      pqxx::nontransaction tx(connection);
      for (int i = 0; i < 20; ++i) {
        tx.exec_params("insert into outbox.message (topic, payload) values ($1, 'on the old side')", topic);
        tx.exec("select pg_sleep(0.005)");
      }
    } catch (const pqxx::failure&) {  // as any client
    }
  });
  Relay& abandoned = stretch.relays.front();
  abandoned.may_end_with = 5;
  stretch.servers.standby->promote();
  round.tell("both sides went on", round.let_run(0, 500));
  stretch.applications.pause();
  move(stretch);
  stretch.applications.go();
  stretch.start_relay();
  round.healed();
  stretch.until_batches(1, notices_within);
  round.recovered();
  try {
    test::eventually("the abandoned relay ends", [&] { return !abandoned.process.running(); }, notices_within);
  } catch (const std::runtime_error&) {
    round.broke(&Counts::exits, "the relay of the abandoned primary goes on");
    stretch.kill(abandoned);
  }
  unaware.end();
  compare_with_old_primary(round, old_dsn);
  round.expected_errors = {"stopped", "refused", "database_went_back"};
}

// The relay was pointed at the wrong server; it goes on by itself when that has become the right one.
void points_at_the_standby(Round& round) {
  Stretch& stretch = round.stretch;
  stretch.stop(stretch.relays.front());
  stretch.world.environment["OUTBOX_RELAY_POSTGRES_DSN"] = stretch.servers.standby->dsn(stretch.world.database());
  const Relay& relay = stretch.start_relay();
  try {
    relay.process.says("read-only standby", notices_within);
  } catch (const std::runtime_error&) {
    round.broke(&Counts::exits, "the relay did not say that the server is a standby");
  }
  round.tell("promoted", round.let_run(0, 1'500));
  promote_standby(stretch);
  round.healed();
}

void end_relay(Round& round) {
  Relay& relay = round.stretch.relays.front();
  return chance(round.random, 0.7) ? round.stretch.kill(relay) : round.stretch.stop(relay);
}

// What a person does: reads what the command found, and settles the batch in doubt by what Kafka says of it.
void adopt_copy(Round& round) {
  test::World& world = round.stretch.world;
  const auto command = [&](const std::vector<std::string>& arguments, int code) {
    const auto done = world.command(arguments);
    if (done.code != code) round.broke(&Counts::exits, arguments.front() + " ended with " + std::to_string(done.code) + ": " + done.output);
    return done.output;
  };
  test::eventually("the lease that was copied has run out",
                   [&] { return world.value("select l.expires_at < clock_timestamp() from outbox.lease l") == "t"; });
  command({"run"}, 5);
  const bool in_doubt = world.value("select exists (select from outbox.batch b where b.delivered_at is null)") == "t";
  const std::string found = command({"rebase"}, in_doubt ? 2 : 1);
  std::vector<std::string> decision = {"rebase", "--yes"};
  if (in_doubt) {
    const bool delivered = found.find(": Kafka has it") != std::string::npos;
    if (!delivered && found.find(": Kafka does not have it") == std::string::npos) {
      round.broke(&Counts::exits, "rebase does not tell what became of the batch in doubt: " + found);
    }
    decision.emplace_back(delivered ? "--delivered" : "--resend");
    round.tell(std::string("a batch in doubt: ") + decision.back());
  }
  command(decision, 0);
}

void moves_to_a_copy(Round& round, bool upgraded) {
  Stretch& stretch = round.stretch;
  Servers& servers = stretch.servers;
  servers.add_postgres();
  if (!upgraded && chance(round.random, 0.5)) test::burn_ids(*servers.standby, 20'000);
  round.tell(upgraded ? "upgraded" : "dumped and restored", round.let_run(0, 300));
  end_relay(round);
  stretch.applications.pause();
  servers.postgres->stop(ScratchPostgres::Stop::fast);  // with what a transaction that is held open would still commit
  servers.postgres->start();
  stretch.checker.note_batches();
  if (upgraded) {
    test::upgrade(*servers.postgres, *servers.standby);
  } else {
    test::dump_and_restore(*servers.postgres, *servers.standby, stretch.world.database());
  }
  servers.postgres->stop(ScratchPostgres::Stop::fast);
  move(stretch);
  if (chance(round.random, 0.5)) {
    stretch.applications.go();
    round.tell("the applications went on", round.let_run(0, 500), " before somebody decided");
  }
  adopt_copy(round);
  stretch.start_relay();
  stretch.applications.go();
  round.healed();
}

// A backup of the running server, without what was committed after it.
void is_restored_to_the_past(Round& round) {
  Stretch& stretch = round.stretch;
  Servers& servers = stretch.servers;
  allow_what_was_lost(round);
  round.expected_errors = {"database_went_back"};
  servers.standby.reset(new ScratchPostgres(ScratchPostgres::standby_of(*servers.postgres)));
  servers.standby->stop(ScratchPostgres::Stop::fast);
  std::filesystem::remove(servers.standby->folder() / "postgres" / "standby.signal");
  const auto before = stretch.delivered_batches();
  stretch.until_batches(3, notices_within);
  round.let_run(0, 500);
  const auto lost = stretch.delivered_batches() - before;
  end_relay(round);
  stretch.applications.pause();
  compare_with_old_primary(round, stretch.world.dsn());
  servers.postgres->stop(ScratchPostgres::Stop::immediate);
  servers.standby->start();
  move(stretch);
  round.tell("restored to " + std::to_string(lost) + " batches before");
  round.measured["batches_lost"] = static_cast<double>(lost);
  const Relay& relay = stretch.start_relay();
  stretch.applications.go();
  round.healed();
  expect_database_went_back(round, relay);
}

void is_copied(Round& round) {
  const auto how = between(round.random, 0, 2);
  return how == 2 ? is_restored_to_the_past(round) : moves_to_a_copy(round, how == 1);
}

}  // namespace

std::vector<Row> failover_rows() {
  constexpr Millis within{60'000};
  return {
      {"P7", primary_dies, {.to_postgres = Way::either_server}, 1, within, {.standby = true, .synchronous = true}},
      {"P8", primary_dies_with_its_last_commits, {.to_postgres = Way::either_server}, 1, within, {.standby = true}},
      {"P9", both_are_up, {}, 1, within, {.standby = true}},
      {"P15", points_at_the_standby, {}, 1, within, {.standby = true, .synchronous = true}},
      {"P16", is_copied, {}, 1, within},
  };
}

}  // namespace outbox::faults
