// SPDX-License-Identifier: Apache-2.0
// The server dies or is restarted, or the connections of the relay end.
#include <signal.h>

#include "tests/faults/hung_open.h"
#include "tests/faults/scenarios.h"

namespace relay::faults {
namespace {

using test::PostgresProxy;
using test::ScratchPostgres;
using Then = PostgresProxy::Then;

constexpr Millis comes_back_within{60'000};
constexpr Millis caught_within{20'000};

void until_server_answers(ScenarioSession& session) {
  test::eventually(
      "the server answers",
      [&] {
        try {
          return session.db.value("select 1") == "1";
        } catch (const pqxx::failure&) {
          return false;
        }
      },
      comes_back_within);
}

// A condition on pg_stat_activity a.
std::string is_of_relay(const ScenarioSession& session) {
  return "a.application_name = 'outbox-relay " + session.db.name() + "'";
}

// PG01 ------------------------------------------------------------------------------------------

std::int64_t next_transaction_id(const ScenarioSession& session) {
  return std::stoll(session.db.value("select pg_snapshot_xmax(pg_current_snapshot())::text"));
}

// Uses up transaction ids of which nothing is on disk yet, until a snapshot of the relay has seen
// them: the server forgets them in a crash and gives them to others. Returns the id after them.
std::int64_t use_up_ids(ScenarioSession& session) {
  session.applications.pause();
  session.until_settled(Millis{30'000});
  {
    pqxx::connection connection(session.db.dsn());
    pqxx::nontransaction tx(connection);
    tx.exec("set synchronous_commit = off");
    for (int i = 0; i < 40; ++i) tx.exec("select pg_current_xact_id()");
  }
  const auto next = next_transaction_id(session);
  const std::string now = session.db.value("select clock_timestamp()");
  test::eventually(
      "the relay has polled",
      [&] {
        return session.db.value(
                   "select count(*) from pg_stat_activity a where " + is_of_relay(session) +
                   " and a.query like "
                   "'%pg_current_snapshot%' and a.state = 'idle' and a.query_start > '" +
                   now + "'") != "0";
      },
      caught_within);
  return next;
}

void crashes(Round& round) {
  ScenarioSession& session = round.session;
  const Millis after = round.let_run(0, 300);
  // These run when the server dies: their ids are lost or belong to no transaction, and so do their
  // rows.
  std::list<pqxx::connection> connections;
  std::list<pqxx::work> running;
  for (std::int64_t n = between(round.random, 0, 5); n > 0; --n) {
    running.emplace_back(connections.emplace_back(session.db.dsn()));
    running.back().exec_params(
        "insert into outbox.message (topic, payload) values ($1, 'never committed')",
        session.topics[0]);
  }
  const bool reuse = chance(round.random, 0.5);
  const auto next = reuse ? use_up_ids(session) : 0;
  session.servers.postgres->stop(ScratchPostgres::Stop::immediate);
  running.clear();
  connections.clear();
  session.servers.postgres->start();
  if (reuse) {
    round.measured["ids_given_out_again"] =
        static_cast<double>(std::max<std::int64_t>(0, next - next_transaction_id(session)));
    session.applications.go();
  }
  round.note("crashed", after, reuse ? ", with ids that were used up" : "");
  round.healed();
}

// PG02 ------------------------------------------------------------------------------------------

// The postmaster then ends all backends and recovers, as after a crash.
void kill_backend_of_relay(Round& round) {
  ScenarioSession& session = round.session;
  const std::string pid = session.db.value("select a.pid from pg_stat_activity a where " +
                                           is_of_relay(session) + " order by random()");
  ::kill(std::stoi(pid), SIGKILL);
  test::eventually(
      "the server has noticed",
      [&] {
        try {
          return session.db.value("select count(*) from pg_stat_activity a where a.pid = " + pid) ==
                 "0";
        } catch (const pqxx::failure&) {
          return false;
        }
      },
      comes_back_within);
}

// Its children end by themselves when they notice; before that it cannot be started again.
void kill_postmaster(Round& round) {
  ScratchPostgres& server = *round.session.servers.postgres;
  ::kill(server.pid(), SIGKILL);
  test::eventually(
      "the server starts",
      [&] {
        try {
          server.start();
          return true;
        } catch (const std::runtime_error&) {
          return false;
        }
      },
      comes_back_within);
}

void killed(Round& round) {
  test::eventually("the relay is connected", [&] {
    return round.session.db.value("select count(*) from pg_stat_activity a where " +
                                  is_of_relay(round.session)) != "0";
  });
  const Millis after = round.let_run(0, 300);
  const bool all = chance(round.random, 0.5);
  all ? kill_postmaster(round) : kill_backend_of_relay(round);
  round.note(std::string(all ? "the postmaster" : "a backend of the relay") + " killed", after);
  until_server_answers(round.session);
  round.healed();
}

// PG03 ------------------------------------------------------------------------------------------

// A smart shutdown waits for clients that never disconnect: the operator then asks for a fast one.
void restarted(Round& round) {
  ScratchPostgres& server = *round.session.servers.postgres;
  const Millis after = round.let_run(0, 300);
  const bool smart = chance(round.random, 0.5);
  if (smart) {
    ::kill(server.pid(), SIGTERM);
    round.let_run(0, 800);
  }
  server.stop(ScratchPostgres::Stop::fast);
  server.start();
  round.note(std::string(smart ? "smart, then fast" : "fast") + " restart", after);
  round.healed();
}

// PG04 ------------------------------------------------------------------------------------------

// Its rows are written, and not committed.
void terminated_amid_an_open(Round& round) {
  const HungOpen hung(round.session.db);
  test::eventually("an open hangs", [&] { return hung.waits(); });
  round.session.db.sql("select pg_terminate_backend(a.pid) from pg_stat_activity a where " +
                       is_of_relay(round.session) + " and a.wait_event_type = 'Lock'");
}

void terminated(Round& round) {
  ScenarioSession& session = round.session;
  if (chance(round.random, 0.4)) {
    round.let_run(0, 200);
    terminated_amid_an_open(round);
    round.note("terminated amid an open");
    return round.healed();
  }
  const auto times = between(round.random, 2, 6);
  std::int64_t sessions = 0;
  for (std::int64_t i = 0; i < times || sessions == 0; ++i) {
    round.let_run(0, 200);
    // An active backend is more likely to be in a commit. But at least one must be hit.
    const std::string which =
        i >= times || chance(round.random, 0.5) ? "" : " and a.state = 'active'";
    sessions += std::stoll(session.db.value(
        "select count(pg_terminate_backend(a.pid)) from pg_stat_activity a where " +
        is_of_relay(session) + which));
  }
  round.allowed.doubtful_batches = static_cast<int>(times) + 1;
  round.note(std::to_string(sessions) + " sessions terminated, " + std::to_string(times) +
             " times");
  round.healed();
}

// PG05 ------------------------------------------------------------------------------------------

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// The commits of a relay.
struct Commit {
  const char* name;
  bool (*is)(const std::string& text);
  // Causes the relay to send it.
  void (*provoke)(ScenarioSession&);
};

void nothing(ScenarioSession&) {}
// Without a batch to open, the relay marks its last batch and renews its lease in statements of
// their own.
void fall_silent(ScenarioSession& session) { session.applications.pause(); }
void end_its_sessions(ScenarioSession& session) {
  session.db.sql("select pg_terminate_backend(a.pid) from pg_stat_activity a where " +
                 is_of_relay(session));
}
void say_unsendable(ScenarioSession& session, const std::string& topic, const char* headers) {
  session.db.sql("with m as (insert into outbox.message (topic, payload, headers) values ('" +
                 topic + "', 'x', " + headers +
                 ") returning id) insert into app.said (id, tx, topic, n) select m.id, -1, '" +
                 topic + "', 0 from m");
}
// Known before the batch is opened.
void say_bad_headers(ScenarioSession& session) {
  say_unsendable(session, session.topics[0], "'[]'");
}
// A compacted topic refuses a record without a key, and only the broker knows it.
void say_what_kafka_refuses(ScenarioSession& session) {
  const std::string topic = session.db.name() + ".compacted";
  try {
    session.servers.kafka->create_topic(topic, 1, {"cleanup.policy=compact"});
  } catch (const std::runtime_error&) {  // of an earlier round
  }
  say_unsendable(session, topic, "null");
}

const Commit commits[] = {
    {"open", [](const std::string& t) { return has(t, "insert into outbox.batch"); }, nothing},
    {"open that renews the lease",
     [](const std::string& t) {
       return has(t, "insert into outbox.batch") && has(t, "update outbox.lease");
     },
     nothing},
    {"open that marks",
     [](const std::string& t) {
       return has(t, "insert into outbox.batch") && has(t, "set delivered_at");
     },
     nothing},
    {"open that parks",
     [](const std::string& t) {
       return has(t, "insert into outbox.batch") && has(t, "insert into outbox.parked");
     },
     say_bad_headers},
    {"mark",
     [](const std::string& t) {
       return has(t, "set delivered_at") && !has(t, "insert into outbox.batch");
     },
     fall_silent},
    {"lease",
     [](const std::string& t) {
       return has(t, "update outbox.lease") && !has(t, "insert into outbox.batch");
     },
     fall_silent},
    {"take-over", [](const std::string& t) { return has(t, "set epoch = l.epoch + 1"); },
     end_its_sessions},
    {"park",
     [](const std::string& t) {
       return has(t, "insert into outbox.parked") && !has(t, "insert into outbox.batch");
     },
     say_what_kafka_refuses},
};
struct Cut {
  const char* name;
  Then then;
  double probability;
};
constexpr Cut cuts[] = {{"the answer lost", Then::lose_answer, 0.6},
                        {"cut amid", Then::cut_amid, 0.3},
                        {"the request lost", Then::lose_request, 1}};

void cut_at_a_commit(Round& round) {
  ScenarioSession& session = round.session;
  const Commit& commit =
      commits[static_cast<std::size_t>(between(round.random, 0, std::size(commits) - 1))];
  const Cut* cut = cuts;
  while (!chance(round.random, cut->probability)) ++cut;
  round.let_run(0, 100);
  round.note(std::string(commit.name) + ", " + cut->name);
  // An open that also renews the lease cannot be forced: on a busy machine the relay always renews
  // it while it waits for Kafka.
  const auto patience = Clock::now() + std::chrono::seconds(5);
  const auto wanted = [&commit, patience](const std::string& t) {
    return commit.is(t) ||
           (commit.provoke == nothing && Clock::now() > patience && commits[0].is(t));
  };
  const auto held = session.servers.postgres_proxy->hold(wanted, cut->then);
  commit.provoke(session);
  held->caught();
  round.healed();
  session.applications.go();
  if (!commit.is(held->text())) round.note("at another open, for none came");
  if (held->refused()) round.note("an error");
  round.allowed.doubtful_batches =
      2;  // what Kafka refuses is tried again, and so is what the cut left in doubt
  round.allowed.parked =
      std::stoll(session.db.value("select count(*) from app.said s where s.tx = -1"));
}

// PG06 ------------------------------------------------------------------------------------------

// Its statements have a deadline, but the lease is shorter: another relay takes over before, if
// there is one.
void half_open(Round& round) {
  ScenarioSession& session = round.session;
  const bool with_another = chance(round.random, 0.5);
  Relay* another = nullptr;
  if (with_another)
    another = &session.start_relay({{"OUTBOX_RELAY_POSTGRES_DSN", session.db.dsn()}});
  const auto epoch = session.epoch();
  const Millis after = round.let_run(0, 300);
  session.servers.postgres_proxy->swallow(true);
  round.note("half open", after, with_another ? ", with another relay" : "");
  if (!with_another) {
    round.let_run(100, 3'000);
    session.servers.postgres_proxy->swallow(false);
    round.healed();
    return;
  }
  round.healed();
  test::eventually("the other takes over", [&] { return session.epoch() > epoch; });
  session.until_batches(1, Millis{30'000});
  round.recovered();
  round.let_run(0, 300);
  session.servers.postgres_proxy->swallow(false);
  round.let_run(0, 300);
  session.stop(*another);
  round.allowed.doubtful_batches = 2;
  session.until_batches(1, Millis{30'000});
}

// PG10 ------------------------------------------------------------------------------------------

// Writes until there is no space for another segment: some exist in advance.
void use_up_wal(ScenarioSession& session) {
  constexpr int more_than_in_stock = 20;
  try {
    for (int i = 0; i < more_than_in_stock; ++i) {
      session.db.sql("select pg_logical_emit_message(true, 'fills', 'a segment')");
      session.db.sql("select pg_switch_wal()");
    }
  } catch (const pqxx::failure&) {  // the server has ended
  }
}

// Tables cannot grow. If the WAL cannot either, the server exits, and does not start before there
// is space.
void disk_is_full(Round& round) {
  ScenarioSession& session = round.session;
  const ScratchPostgres& server = *session.servers.postgres;
  const Millis after = round.let_run(0, 300);
  session.servers.disk->fill();
  if (chance(round.random, 0.5)) use_up_wal(session);
  const Millis lasted = round.let_run(500, 4'000);
  session.servers.disk->empty();
  bool ended = false;
  test::eventually(
      "the server answers",
      [&] {
        try {
          return session.db.value("select 1") == "1";
        } catch (const pqxx::failure&) {
        }
        try {
          if (::kill(server.pid(), 0) != 0) {
            ended = true;
            server.start();
          }
        } catch (const std::runtime_error&) {  // it is not down yet
        }
        return false;
      },
      comes_back_within);
  round.note(
      "full", after,
      " for " + std::to_string(lasted.count()) + " ms" + (ended ? ", the server ended" : ""));
  round.healed();
}

// PG14 ------------------------------------------------------------------------------------------

// Uses psql, because libpqxx takes the console for a server that is too old.
void command_pooler(const ScenarioSession& session, const std::string& command) {
  const auto done = test::run_command(
      {"/usr/bin/env", "psql", "-X", "-d", session.servers.pooler->dsn("pgbouncer"), "-c", command},
      {});
  if (done.code != 0) throw std::runtime_error("pgbouncer: " + done.output);
}

void pooler_disturbed(Round& round) {
  const ScenarioSession& session = round.session;
  const test::ScratchPgbouncer& pooler = *session.servers.pooler;
  const Millis after = round.let_run(0, 300);
  const char* what = "";
  switch (between(round.random, 0, 3)) {
    case 0:
      what = "killed";
      pooler.kill();
      round.let_run(0, 300);
      pooler.start();
      break;
    case 1:
      what = "restarted";
      pooler.stop();
      pooler.start();
      break;
    case 2:
      what = "paused and resumed";
      command_pooler(session, "PAUSE " + session.db.database());
      round.let_run(0, 2'500);
      command_pooler(session, "RESUME " + session.db.database());
      break;
    default:
      what = "asked to reconnect";
      command_pooler(session, "RECONNECT " + session.db.database());
  }
  round.note(what, after);
  round.healed();
}

}  // namespace

std::vector<Scenario> postgres_scenarios() {
  return {
      {"PG01",
       crashes,
       {.workload = {.asynchronous = 0.7}},
       25,
       Millis{60'000},
       {.postgres = {"wal_writer_delay=10s"}}},
      {"PG02", killed},
      {"PG03", restarted},
      {"PG04", terminated},
      {"PG05", cut_at_a_commit, {.to_postgres = RequestFate::proxy}},
      {"PG06", half_open, {.to_postgres = RequestFate::proxy}},
      {"PG10",
       disk_is_full,
       {},
       25,
       Millis{60'000},
       {.postgres = {"max_wal_size=64MB", "shared_buffers=16MB"},
        .small_disk = ServerOptions::Disk::of_postgres}},
      {"PG14",
       pooler_disturbed,
       {.to_postgres = RequestFate::pooler},
       25,
       Millis{60'000},
       {.pooler = true}},
  };
}

}  // namespace relay::faults
