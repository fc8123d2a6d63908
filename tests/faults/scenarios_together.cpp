// SPDX-License-Identifier: Apache-2.0
// Several faults at once, and none for a long time.
#include <signal.h>

#include <algorithm>

#include "tests/faults/scenarios.h"
#include "tests/support/usage.h"

namespace relay::faults {
namespace {

constexpr double is_calm = 0.25;
constexpr Millis soaks_for{300'000};

// What the faults of one mix share: which servers are there.
struct Scene {
  Round& round;
  bool postgres_is_there = true;

  ScenarioSession& session() { return round.session; }
  Relay& some_relay() {
    std::vector<Relay*> alive;
    for (Relay& r : round.session.relays) {
      if (!r.killed) alive.push_back(&r);
    }
    if (alive.empty()) return round.session.start_relay();
    return *alive[static_cast<std::size_t>(
        between(round.random, 0, static_cast<std::int64_t>(alive.size()) - 1))];
  }
};

// A fault that begins, and ends some time later. At most one of each group is active.
struct Fault {
  const char* name;
  int group;
  std::function<std::function<void()>(Scene&)> begin;  // returns what ends it
};

std::function<void()> kill_relay(Scene& s) {
  s.session().kill(s.some_relay());
  return [&s] { s.session().start_relay(); };
}

std::function<void()> stop_relay(Scene& s) {
  Relay& chosen = s.some_relay();
  chosen.process.signal(SIGSTOP);
  return [&chosen] { chosen.process.signal(SIGCONT); };
}

std::function<void()> crash_postgres(Scene& s) {
  s.postgres_is_there = false;
  s.session().servers.postgres->stop(test::ScratchPostgres::Stop::immediate);
  return [&s] {
    s.session().servers.postgres->start();
    s.postgres_is_there = true;
  };
}

std::function<void()> terminate_backends(Scene& s) {
  if (s.postgres_is_there) {
    s.session().db.sql(
        "select pg_terminate_backend(a.pid) from pg_stat_activity a where a.datname = "
        "current_database() and "
        "a.pid <> pg_backend_pid()");
  }
  return [] {};
}

std::function<void()> kill_broker(Scene& s) {
  s.session().servers.kafka->kill();
  return [&s] { s.session().servers.kafka->start(); };
}

std::function<void()> pause_broker(Scene& s) {
  s.session().servers.kafka->pause();
  return [&s] { s.session().servers.kafka->resume(); };
}

std::function<void()> cut_proxy(Scene& s) {
  s.session().servers.kafka_proxy.cut();
  return [] {};
}

const std::vector<Fault>& faults() {
  static const std::vector<Fault> all = {
      {"relay killed", 0, kill_relay},
      {"relay stopped", 1, stop_relay},
      {"PostgreSQL crashed", 2, crash_postgres},
      {"backends terminated", 3, terminate_backends},
      {"broker killed", 4, kill_broker},
      {"broker stopped", 4, pause_broker},
      {"connections to Kafka cut", 5, cut_proxy},
  };
  return all;
}

// Chooses two to four of different groups.
std::vector<const Fault*> some_faults(Random& random) {
  std::vector<const Fault*> all, chosen;
  for (const Fault& f : faults()) all.push_back(&f);
  std::shuffle(all.begin(), all.end(), random);
  const auto wanted = static_cast<std::size_t>(between(random, 2, 4));
  for (const Fault* f : all) {
    const bool taken = std::any_of(chosen.begin(), chosen.end(),
                                   [&](const Fault* c) { return c->group == f->group; });
    if (!taken && chosen.size() < wanted) chosen.push_back(f);
  }
  return chosen;
}

struct Event {
  std::int64_t at_ms;
  std::function<void()> happens;
};

void happen(std::vector<Event> events) {
  std::stable_sort(events.begin(), events.end(),
                   [](const Event& a, const Event& b) { return a.at_ms < b.at_ms; });
  const auto began = Clock::now();
  for (const Event& e : events) {
    test::eventually(
        "the moment of the next fault", [&] { return Clock::now() >= began + Millis{e.at_ms}; },
        Millis{60'000});
    e.happens();
  }
}

void mixed(Round& round) {
  const auto began = Clock::now();
  if (chance(round.random, is_calm)) {
    round.note("calm for " + std::to_string(round.let_run(3'000, 10'000).count()) + " ms");
  } else {
    Scene scene{round};
    const auto chosen = some_faults(round.random);
    std::vector<std::function<void()>> ends(chosen.size());
    std::vector<Event> events;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const auto from = between(round.random, 0, 4'000);
      const auto until = from + between(round.random, 100, 5'000);
      events.push_back({from, [&, i] { ends[i] = chosen[i]->begin(scene); }});
      events.push_back({until, [&, i] { ends[i](); }});
      round.note(std::string(chosen[i]->name) + " from " + std::to_string(from) + " to " +
                 std::to_string(until) + " ms");
    }
    happen(std::move(events));
    round.allowed.doubtful_batches =
        2 * static_cast<int>(chosen.size());  // of who is struck, and of who takes over
  }
  round.healed();
  round.session.until_batches(1, Millis{60'000});
  round.recovered();
  round.measured["minutes"] =
      std::chrono::duration<double, std::ratio<60>>(Clock::now() - began).count();
}

void everything_killed(Round& round) {
  ScenarioSession& s = round.session;
  const Millis after = round.let_run(0, 300);
  for (Relay& r : s.relays) s.kill(r);
  s.servers.kafka->kill();
  s.servers.postgres->stop(test::ScratchPostgres::Stop::immediate);
  std::vector<std::pair<const char*, std::function<void()>>> starts = {
      {"PostgreSQL", [&] { s.servers.postgres->start(); }},
      {"Kafka", [&] { s.servers.kafka->start(); }},
      {"a relay", [&] { s.start_relay(); }},
      {"a relay", [&] { s.start_relay(); }}};
  std::shuffle(starts.begin(), starts.end(), round.random);
  round.note("all killed", after, ", started: ");
  for (const auto& [name, start] : starts) {
    start();
    round.detail += std::string(&start == &starts.front().second ? "" : ", ") + name;
  }
  round.healed();
}

void soak(Round& round) {
  ScenarioSession& s = round.session;
  const pid_t pid = s.holder().process.pid();
  const auto began = Clock::now();
  const double cpu = test::cpu_seconds(pid);
  const std::string count_messages =
      "select coalesce(sum(b.messages), 0) from outbox.batch b where b.delivered_at is not null";
  const auto batches = s.delivered_batches();
  const double messages = std::stod(s.db.value(count_messages));
  round.let_run(soaks_for.count(), soaks_for.count());
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  const double busy = test::cpu_seconds(pid) - cpu;
  const double delivered = std::stod(s.db.value(count_messages)) - messages;
  round.measured = {
      {"minutes", seconds / 60},
      {"messages_per_second", delivered / seconds},
      {"relay_cpu_us_per_message", 1e6 * busy / delivered},
      {"relay_rss_kb", static_cast<double>(test::status_number(pid, "VmRSS"))},
      {"relay_threads", static_cast<double>(test::status_number(pid, "Threads"))},
      {"relay_fds", static_cast<double>(test::open_files(pid))},
      {"relay_cpu_percent", 100 * busy / seconds},
      {"batches_per_second", static_cast<double>(s.delivered_batches() - batches) / seconds},
      {"dead_tuples",
       std::stod(s.db.value(
           "select sum(t.n_dead_tup) from pg_stat_user_tables t where t.schemaname = 'outbox'"))}};
  round.healed();
}

// Each setting of delivery.order in turn.
void vary_order(SessionOptions& options, int session) {
  options.relay["OUTBOX_RELAY_DELIVERY_ORDER"] = session / 2 % 2 == 0 ? "key" : "message";
}

}  // namespace

std::vector<Scenario> together_scenarios() {
  std::vector<Scenario> scenarios = {
      {"TI01", mixed, {.relays = 2, .through_kafka_proxy = true}},
      {"TI02", everything_killed, {.relays = 2}},
      {"TI03", mixed, {.relays = 2, .through_kafka_proxy = true, .workload = {.poison = 0.001}}, 8},
      {"TI04", soak, {.workload = {.think = Millis{100}, .bulk = 50}}, 15},
  };
  scenarios[2].vary = vary_order;
  return scenarios;
}

}  // namespace relay::faults
