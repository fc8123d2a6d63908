// SPDX-License-Identifier: Apache-2.0
// What a scenario works with: one outbox under load with its relays, and the record of one round.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "tests/faults/checker.h"
#include "tests/faults/workload.h"
#include "tests/support/kafka_proxy.h"
#include "tests/support/postgres_proxy.h"
#include "tests/support/small_disk.h"
#include "tests/support/test_outbox.h"

namespace relay::faults {

// What a scenario needs besides one server of each kind.
struct ServerOptions {
  bool standby = false;  // a second PostgreSQL server, which follows the first; as it is promoted
                         // once, both are new in each session
  bool synchronous = false;             // nothing is visible before the standby has it
  bool pooler = false;                  // pgbouncer in transaction mode, before the first
  std::vector<std::string> postgres{};  // settings of both
  int brokers = 1;
  std::vector<std::string> kafka{};  // properties of the brokers
  enum class Disk { none, of_postgres, of_kafka };
  Disk small_disk = Disk::none;  // whose data is on a disk that can be full
};

// What all sessions of a campaign share. Each server has a second address that leads through its
// proxy, but for several brokers.
struct Servers {
  explicit Servers(const ServerOptions& options);
  // New PostgreSQL servers in place of those there are. REQUIRES: no session uses them.
  void renew_postgres();
  // An empty server in the standby's place.
  void add_postgres() { standby = std::make_unique<test::ScratchPostgres>(postgres_settings()); }

  const ServerOptions options;
  std::unique_ptr<test::SmallDisk> disk;
  test::KafkaProxy kafka_proxy;
  std::unique_ptr<test::ScratchPostgres> postgres;
  std::unique_ptr<test::PostgresProxy> postgres_proxy;
  std::unique_ptr<test::ScratchPostgres> standby;
  std::unique_ptr<test::ScratchPgbouncer> pooler;
  std::unique_ptr<test::ScratchKafka> kafka;

 private:
  std::vector<std::string> postgres_settings() const;
};

// A relay with what is known of its end.
struct Relay {
  test::Process process;
  std::size_t read_to = 0;            // of its output, by the checker
  bool killed = false;                // by us
  std::optional<int> may_end_with{};  // by itself: the fault makes it so
};

// How the relay connects to PostgreSQL. own_user: as a user that has no rights but a relay's;
// either_server: by a list of hosts, of which libpq takes the one that can be written to.
enum class RequestFate { direct, proxy, pooler, own_user, either_server };

struct SessionOptions {
  Mode mode = Mode::exactly_once;
  int relays = 1;
  bool through_kafka_proxy = false;
  RequestFate to_postgres = RequestFate::direct;
  std::string mutant{};
  WorkloadOptions workload{};
  test::Process::Environment relay{};  // more configuration
};

// The relay does not do what it must, although no fault is active.
struct Stuck : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// Waits like test::eventually, but throws Stuck when it gives up.
void relay_must(const std::string& what, const std::function<bool()>& condition, Millis within);

// One outbox, its applications, its relays and its checker, for some rounds.
class ScenarioSession {
 public:
  ScenarioSession(Servers& servers, std::uint64_t seed, const SessionOptions& options);

  // The program under test: the relay, or the mutants.
  std::string program() const {
    return options.mutant.empty() ? "outbox-relay" : "outbox-relay-mutants";
  }
  // The same, but it obeys OUTBOX_CRASH_AT and OUTBOX_STOP_AT.
  std::string program_with_crash_points() const {
    return options.mutant.empty() ? "relay-with-crash-points" : program();
  }
  Relay& start_relay(const test::Process::Environment& more = {}) {
    return start_relay(more, program());
  }
  Relay& start_relay(const test::Process::Environment& more, const std::string& program);
  // The relay that holds the lease. Waits for one to hold it.
  Relay& holder();
  void kill(Relay& relay);
  // Stops it by SIGTERM; returns when it has ended.
  static void stop(Relay& relay);
  // Of the lease.
  std::int64_t epoch() const { return std::stoll(db.value("select l.epoch from outbox.lease l")); }
  // Batches that were confirmed so far.
  std::int64_t delivered_batches();
  // Waits until so many batches more are confirmed than at the time of the call; throws Stuck.
  // REQUIRES: no fault is active.
  void until_batches(std::int64_t more, Millis within);
  // Waits until everything that is committed is delivered, and marked. REQUIRES: the applications
  // are paused.
  void until_settled(Millis within) { db.wait_until_idle(within); }
  // The outbox is on the standby now, which was promoted. REQUIRES: the applications are paused, or
  // their server is gone.
  void move_to_standby();
  // Adds what is wrong with how relays ended and with what they said since the last call. Those
  // that ended are then gone.
  void look_at_relays(const std::vector<std::string>& expected_errors, Counts& counts,
                      std::string& why);
  // Reads the whole log again, and ends the relays. REQUIRES: the applications are stopped, and all
  // they wrote is checked.
  void finish(Counts& counts, std::string& why);

  Servers& servers;
  const SessionOptions options;
  test::TestOutbox db;
  const std::vector<std::string> topics;
  Applications applications;
  Checker checker;
  std::list<Relay> relays;
  std::list<Relay> gone;  // for what they said
};

// Adds to a list of clauses.
void add_clause(std::string& text, const std::string& what);

// Waits for a moment that is drawn at random between these. Returns how long it waited.
Millis let_run(Random& random, std::int64_t from_ms, std::int64_t to_ms);

// The fault of one round: how it went, as the scenario notes it.
struct Round {
  ScenarioSession& session;
  Random& random;
  int number = 0;
  bool again = false;  // the round before did not pass

  std::string detail{};              // the fault, and when it was injected
  Clock::time_point healed_at{};     // when the fault ended
  Clock::time_point recovered_at{};  // when a batch was confirmed after that; if a scenario does
                                     // not set it, it is waited for
  Allowed allowed{};
  std::vector<std::string> expected_errors{};  // events of level error that the fault causes
  std::map<std::string, double> measured{};
  std::vector<std::pair<std::int64_t Counts::*, std::string>>
      broken{};  // violations that only the scenario can detect

  // Lets the load run for a moment that is drawn at random: where the fault strikes is what is
  // tested.
  Millis let_run(std::int64_t from_ms, std::int64_t to_ms) const {
    return faults::let_run(random, from_ms, to_ms);
  }
  void healed() { healed_at = Clock::now(); }
  void recovered() { recovered_at = Clock::now(); }
  // The relay violated an invariant; the round fails with this count.
  void broke(std::int64_t Counts::*count, const std::string& how) {
    broken.emplace_back(count, how);
  }
  void note(const std::string& what) { add_clause(detail, what); }
  // For example "killed after 38 ms".
  void note(const std::string& what, Millis after, const std::string& more = {}) {
    note(what + " after " + std::to_string(after.count()) + " ms" + more);
  }
};

}  // namespace relay::faults
