// SPDX-License-Identifier: Apache-2.0
// A fault at every socket call of a batch, one after the other.
//
// A point of a sweep is one batch of a quiet outbox. Calls of the whole process are counted from
// the moment at which the batch's messages are committed until the harness sees the batch marked as
// delivered, and the n-th of them is struck. For each size of batch and each kind of fault, n goes
// up from 1 until the batch has passed three times in succession without being struck: calls vary a
// little from one batch to the next, since they are driven by poll(), and what the relay does on
// the side (its lease, the next look for messages) counts as well.
//
// Each point says which one comes next, so that a sweep can be run in pieces. The last one of a
// whole sweep measures one sweep; the points before it measure none. A point that did not pass is
// run again.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <new>
#include <system_error>

#include "tests/crash/fault_at_socket_call.h"
#include "tests/faults/scenarios.h"
#include "tests/support/checker.h"

namespace relay::faults {
namespace {

using test::SocketFault;
using What = SocketFault::What;

constexpr int misses_at_the_end = 3;
constexpr Millis point_within{60'000};

// The other side of the preloaded library.
class SharedFault {
 public:
  SharedFault() {
    const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(SocketFault)) != 0)
      throw std::system_error(errno, std::generic_category(), path_);
    void* const at = mmap(nullptr, sizeof(SocketFault), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED) throw std::system_error(errno, std::generic_category(), path_);
    fault_ = new (at) SocketFault;
  }
  ~SharedFault() {
    munmap(fault_, sizeof(SocketFault));
    std::filesystem::remove(path_);
  }
  SharedFault(const SharedFault&) = delete;
  SharedFault& operator=(const SharedFault&) = delete;

  const std::string& path() const { return path_; }
  SocketFault* operator->() { return fault_; }

 private:
  const std::string path_ =
      std::filesystem::temp_directory_path() / ("outbox-socket-fault." + std::to_string(getpid()));
  SocketFault* fault_;
};

SharedFault& shared_fault() {
  static SharedFault one;
  return one;
}

struct Kind {
  const char* name;
  What what;
  int error = 0;
};

// The position of the sweep of one mode.
struct Position {
  std::size_t size = 0, kind = 0;
  int call = 1;
  int missed = 0;
  bool complete = false;

  // As one number, which grows.
  std::int64_t number() const {
    return ((static_cast<std::int64_t>(size) * kinds_max + static_cast<std::int64_t>(kind)) *
                calls_max +
            call) *
               10 +
           missed;
  }
  static Position of(std::int64_t number) {
    Position p;
    p.missed = static_cast<int>(number % 10);
    p.call = std::max(1, static_cast<int>(number / 10 % calls_max));
    p.kind = static_cast<std::size_t>(number / 10 / calls_max % kinds_max);
    p.size = static_cast<std::size_t>(number / 10 / calls_max / kinds_max);
    return p;
  }
  static constexpr std::int64_t kinds_max = 10, calls_max = 100'000;
};

class Sweep {
 public:
  explicit Sweep(std::vector<Kind> kinds) : kinds_(std::move(kinds)) {}

  bool complete(Mode mode) const {
    const auto found = at_.find(mode);
    return found != at_.end() && found->second.complete;
  }

  void go_on_from(Mode mode, std::int64_t point) {
    const Position at = Position::of(point);
    if (at.size >= sizes_.size() || at.kind >= kinds_.size())
      throw std::runtime_error("the sweep has no point " + std::to_string(point));
    at_[mode] = before_[mode] = at;
  }

  void run_point(Round& round) {
    const Mode mode = round.session.options.mode;
    if (round.again) at_[mode] = before_[mode];
    before_[mode] = at_[mode];
    Position& at = at_[mode];
    const Kind& kind = kinds_[at.kind];
    const bool struck = strike(round, sizes_[at.size], kind, at.call);
    ++at.call;
    at.missed = struck ? 0 : at.missed + 1;
    if (at.missed == misses_at_the_end) at = {at.size, at.kind + 1};
    if (at.kind == kinds_.size()) at = {at.size + 1, 0};
    at.complete = at.size == sizes_.size();
    if (at.complete) round.measured["sweeps"] = 1;
    round.measured["next_point"] = static_cast<double>(at.number());
  }

 private:
  static bool strike(Round& round, int size, const Kind& kind, int call);

  const std::vector<Kind> kinds_;
  const std::vector<int> sizes_{1, 100, 10'000};
  std::map<Mode, Position> at_, before_;
};

// Writes the messages of one transaction. The applications of this scenario write nothing else.
class Writer {
 public:
  Writer(ScenarioSession& session, int size) : connection_(session.db.dsn()), tx_(connection_) {
    const auto id =
        tx_.exec("insert into app.tx select coalesce(max(t.id), 0) + 1 from app.tx t returning id")
            [0][0]
                .as<std::int64_t>();
    tx_.exec_params(
        "with m as materialized (select g, gen_random_uuid() as id from generate_series(1, "
        "$2::int) g) "
        "insert into app.said (id, tx, topic, key, n, payload_sha256) select m.id, $1::bigint, "
        "case when m.g % 2 = 0 then $3::text "
        "else $4::text end, 'k' || m.g % 10, $1::bigint * 100000 + m.g, "
        "encode(sha256(convert_to(repeat(m.id::text, 1 + m.g % 7), 'UTF8')), 'hex') from m",
        id, size, session.topics[0], session.topics[1]);
    tx_.exec_params(
        "insert into outbox.message (id, topic, key, payload) select s.id, s.topic, "
        "convert_to(s.key, 'UTF8'), "
        "convert_to(repeat(s.id::text, 1 + (s.n % 100000 % 7)::int), 'UTF8') from app.said s where "
        "s.tx = $1::bigint order by s.n",
        id);
  }
  void commit() { tx_.commit(); }

 private:
  pqxx::connection connection_;
  pqxx::work tx_;
};

// Expires the lease: waiting for it would take most of the time of a sweep.
void replace(Round& round, Relay& killed) {
  killed.killed = true;
  killed.process.wait();
  round.session.db.sql("update outbox.lease set expires_at = clock_timestamp()");
  round.session.start_relay();
}

bool Sweep::strike(Round& round, int size, const Kind& kind, int call) {
  ScenarioSession& s = round.session;
  SharedFault& fault = shared_fault();
  Relay& relay = s.relays.back();
  relay.process.says("to=streaming");
  const bool kills = kind.what == What::kill_before || kind.what == What::kill_after;
  pqxx::connection watching(s.db.dsn());
  const auto due = test::delivered(watching) + size;
  Writer writer(s, size);
  fault->calls = 0;
  fault->at = call;
  fault->what = kind.what;
  fault->error = kind.error;
  fault->struck = false;
  fault->armed = true;
  writer.commit();
  test::eventually(
      "the batch is delivered, or struck",
      [&] { return fault->struck || test::delivered(watching) >= due; }, point_within);
  fault->armed = false;
  const auto calls = std::int64_t{fault->calls};
  test::delivered(
      watching);  // a call that had been counted when the fault was disarmed is struck by now
  const bool struck = fault->struck;
  round.note(std::to_string(size) + " messages, " + kind.name + " call " + std::to_string(call) +
             ": ");
  if (struck) {
    const bool of_kafka = fault->port != s.servers.postgres->port();
    round.detail += std::string(fault->name.data()) + (of_kafka ? " of Kafka" : " of PostgreSQL");
    if (kills) replace(round, relay);
  } else {
    round.detail += "not struck, there were " + std::to_string(calls);
  }
  round.healed();
  relay_must(
      "the batch is delivered", [&] { return test::delivered(watching) >= due; }, point_within);
  round.recovered();
  return struck;
}

SessionOptions quiet() {
  SessionOptions o;
  o.workload = {.applications = 0, .long_transaction = false};
  o.relay = {{"LD_PRELOAD", std::string(OUTBOX_BUILD_DIR) + "/libfault_at_socket_call.so"},
             {"OUTBOX_SOCKET_FAULT", shared_fault().path()},
             {"OUTBOX_RELAY_POLL_IDLE", "200ms"}};  // fewer calls that belong to no batch
  return o;
}

Scenario sweep_scenario(const char* id, std::vector<Kind> kinds) {
  const auto sweep = std::make_shared<Sweep>(std::move(kinds));
  Scenario scenario{id, [sweep](Round& round) { sweep->run_point(round); }, quiet()};
  scenario.rounds_of_session = 6;  // 10,000 messages in each round make a long outbox
  scenario.complete = [sweep](Mode mode) { return sweep->complete(mode); };
  scenario.go_on_from = [sweep](Mode mode, std::int64_t point) { sweep->go_on_from(mode, point); };
  return scenario;
}

}  // namespace

std::vector<Scenario> sweep_scenarios() {
  return {
      sweep_scenario("RE02",
                     {{"killed before", What::kill_before}, {"killed after", What::kill_after}}),
      sweep_scenario("RE03", {{"reset at", What::fail_before, ECONNRESET},
                              {"broken pipe at", What::fail_before, EPIPE},
                              {"time-out after", What::fail_after, ETIMEDOUT}}),
  };
}

}  // namespace relay::faults
