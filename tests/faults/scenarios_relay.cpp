// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "tests/faults/hung_open.h"
#include "tests/faults/scenarios.h"
#include "tests/support/usage.h"

namespace relay::faults {
namespace {

constexpr Millis drains_within{30'000};  // a bound for the harness: how long it took is measured

void killed_and_started_again(Round& round) {
  const Millis after = round.let_run(0, 300);
  round.session.kill(round.session.relays.front());
  round.note("killed", after);
  round.session.start_relay();
  round.healed();
}

// The other one takes over; a new one is the standby of the next round.
void killed_and_taken_over(Round& round) {
  const Millis after = round.let_run(0, 300);
  round.session.kill(round.session.holder());
  round.note("killed", after);
  round.healed();
  round.session.start_relay();
}

// The server executes its open when the relay is stopped. The other relay must wait for it, and it
// must have no effect after a takeover.
void stopped_amid_an_open(Round& round, Relay& zombie, std::int64_t epoch) {
  ScenarioSession& s = round.session;
  const std::string count_written =
      "select count(*) from outbox.batch b where b.epoch = " + std::to_string(epoch);
  std::string written;
  {
    const HungOpen hung(s.db);
    test::eventually("an open hangs", [&] { return hung.waits(); });
    zombie.process.signal(SIGSTOP);
    test::eventually("the other takes over, or waits",
                     [&] { return s.epoch() > epoch || hung.waits(2); });
    if (s.epoch() > epoch) written = s.db.value(count_written);
  }
  round.healed();
  relay_must(
      "the other takes over", [&] { return s.epoch() > epoch; }, Millis{30'000});
  s.until_batches(1, Millis{30'000});
  if (!written.empty() && s.db.value(count_written) != written) {
    round.broke(&Counts::fencing, "a batch of the old epoch appeared after the take-over");
  }
}

// The first one wakes up when the other has delivered some batches.
void stopped_past_its_lease(Round& round) {
  const Millis after = round.let_run(0, 300);
  Relay& zombie = round.session.holder();
  const auto epoch = round.session.epoch();
  if (chance(round.random, 0.25)) {
    stopped_amid_an_open(round, zombie, epoch);
    round.note("stopped amid an open");
  } else {
    zombie.process.signal(SIGSTOP);
    round.note("stopped", after);
    round.healed();
    relay_must(
        "the other takes over", [&] { return round.session.epoch() > epoch; }, Millis{30'000});
    round.session.until_batches(1, Millis{30'000});
  }
  round.recovered();
  round.let_run(0, 300);
  zombie.process.signal(SIGCONT);
  round.allowed.doubtful_batches = 2;  // of the zombie, and of the one that recovered it
}

// Longer than transaction.timeout.ms of the relay, after which Kafka looks for such transactions
// every 10 s.
void stopped_past_its_transaction(Round& round) {
  const Millis after = round.let_run(0, 300);
  Relay& relay = round.session.relays.front();
  relay.process.signal(SIGSTOP);
  const Millis stopped = round.let_run(16'000, 27'000);
  round.note("stopped", after, " for " + std::to_string(stopped.count()) + " ms");
  relay.process.signal(SIGCONT);
  round.healed();
}

// A relay that exited by itself fails the round, unless its exit is the expected one.
void ask_to_end(Round& round, Relay& relay, int times) {
  const auto asked = Clock::now();
  for (int i = 0; i < times; ++i) {
    relay.process.signal(SIGTERM);
    if (i + 1 < times) round.let_run(0, 20);
  }
  relay.killed = relay.process.wait(drains_within) == 0;
  round.measured["drain_ms"] =
      static_cast<double>(std::chrono::duration_cast<Millis>(Clock::now() - asked).count());
}

void asked_to_end(Round& round) {
  const Millis after = round.let_run(0, 300);
  Relay& relay = round.session.relays.front();
  const auto hangups = between(round.random, 0, 200);
  for (std::int64_t i = 0; i < hangups; ++i) {
    relay.process.signal(SIGHUP);
    if (chance(round.random, 0.2)) round.let_run(0, 5);
  }
  const auto times = between(round.random, 1, 2);
  ask_to_end(round, relay, static_cast<int>(times));
  round.note(std::to_string(hangups) + " SIGHUPs", after,
             ", SIGTERM " + std::to_string(times) + " times");
  round.session.start_relay();
  round.healed();
}

// The relay cannot open a descriptor while all its connections end. It may exit, but not crash.
// Memory and threads are not limited here: an allocation that fails ends the program, and the
// threads of root have no limit.
void out_of_descriptors(Round& round) {
  ScenarioSession& s = round.session;
  const Millis after = round.let_run(0, 300);
  Relay& relay = s.relays.front();
  const pid_t pid = relay.process.pid();
  rlimit before{};
  if (prlimit(pid, RLIMIT_NOFILE, nullptr, &before) != 0) throw std::runtime_error("prlimit");
  const auto few = static_cast<rlim_t>(between(round.random, 3, test::open_files(pid)));
  const rlimit limit{few, before.rlim_max};
  prlimit(pid, RLIMIT_NOFILE, &limit, nullptr);
  s.servers.kafka_proxy.cut();
  s.db.sql(
      "select pg_terminate_backend(a.pid) from pg_stat_activity a where a.application_name like "
      "'outbox-relay%' and "
      "a.datname = current_database()");
  const Millis lasted = round.let_run(500, 3'000);
  round.note("no more than " + std::to_string(few) + " descriptors", after,
             " for " + std::to_string(lasted.count()) + " ms");
  prlimit(pid, RLIMIT_NOFILE, &before, nullptr);
  if (!relay.process.running()) {
    const int code = relay.process.wait();
    round.note("it ended with " + std::to_string(code));
    relay.killed = code > 0;
    s.start_relay();
  }
  round.healed();
}

// A pipe that is full and has no reader, or a disk that is full.
void log_not_taken(Round& round) {
  ScenarioSession& s = round.session;
  ask_to_end(round, s.relays.front(), 1);
  const bool pipe = chance(round.random, 0.7);
  const std::string fifo =
      std::filesystem::temp_directory_path() / ("outbox-full-pipe." + std::to_string(getpid()));
  std::filesystem::remove(fifo);
  if (mkfifo(fifo.c_str(), 0600) != 0) throw std::runtime_error("mkfifo " + fifo);
  const int keeps_open = open(fifo.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  const std::string page(4'096, '\n');
  while (write(keeps_open, page.data(), page.size()) > 0) {
  }
  test::Process::Environment environment = s.db.environment;
  environment["OUTBOX_LOG"] = pipe ? fifo : "/dev/full";
  s.relays.push_back({test::Process(
      {"/bin/sh", "-c", "exec \"$0\" run >\"$OUTBOX_LOG\" 2>&1", test::program_path(s.program())},
      environment)});
  round.note(pipe ? "started on a full pipe" : "started on a full disk");
  round.healed();
  s.until_batches(3, Millis{30'000});
  round.recovered();
  round.let_run(0, 1'000);
  ask_to_end(round, s.relays.back(), 1);
  close(keeps_open);
  std::filesystem::remove(fifo);
  s.start_relay();
}

// The relay is stopped for every other 100 ms, while another process uses all the time it gets.
void starved(Round& round) {
  const Millis after = round.let_run(0, 300);
  const test::Process busy({"/bin/sh", "-c", "while :; do :; done"}, {});
  Relay& relay = round.session.holder();
  for (int i = 0; i < 15; ++i) {
    relay.process.signal(SIGSTOP);
    round.let_run(100, 100);
    relay.process.signal(SIGCONT);
    round.let_run(100, 100);
  }
  round.note("half of a processor", after, " for 3 s");
  round.healed();
}

// A file that the relays map and read whenever they read the clock.
std::filesystem::path clock_file() {
  return std::filesystem::temp_directory_path() /
         ("outbox-relay-clock." + std::to_string(getpid()));
}

void set_relay_clock(std::int64_t ahead_s) {
  const int file = open(clock_file().c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  const bool written = file >= 0 && pwrite(file, &ahead_s, sizeof ahead_s, 0) ==
                                        static_cast<ssize_t>(sizeof ahead_s);
  if (file >= 0) close(file);
  if (!written) throw std::runtime_error("cannot write " + clock_file().string());
}

void clock_jumps(Round& round) {
  const auto epoch = round.session.epoch();
  const auto jumps = between(round.random, 2, 6);
  round.note("the clock is off by");
  for (std::int64_t i = 0; i < jumps; ++i) {
    const auto ahead = between(round.random, -3'600, 3'600);
    set_relay_clock(ahead);
    round.detail += " " + std::to_string(ahead);
    round.let_run(100, 1'000);
  }
  round.detail += " s";
  const auto take_overs = round.session.epoch() - epoch;
  round.measured["take_overs"] = static_cast<double>(take_overs);
  // The deadlines of librdkafka's transactional calls are on it: set amid such a call, it ends the
  // call, or lengthens it. What follows can cost the lease.
  if (take_overs > 0 && round.session.options.mode == Mode::at_least_once) {
    round.broke(&Counts::stuck, "the lease changed hands because of a clock");
  }
  round.healed();
}

SessionOptions with_steered_clock() {
  SessionOptions o;
  o.relays = 2;
  o.relay = {{"LD_PRELOAD", std::string(OUTBOX_BUILD_DIR) + "/libsteered_clock.so"},
             {"OUTBOX_CLOCK_AHEAD", clock_file()}};
  return o;
}

}  // namespace

std::vector<Scenario> relay_scenarios() {
  std::vector<Scenario> scenarios = {
      {"RE01", killed_and_started_again},
      {"RE04", killed_and_taken_over, {.relays = 2}},
      {"RE05", stopped_past_its_lease, {.relays = 2}},
      {"RE06", stopped_past_its_transaction},
      {"RE07", asked_to_end},
      {"RE09", out_of_descriptors, {.through_kafka_proxy = true}},
      {"RE10", log_not_taken},
      {"RE11", starved, {.relays = 2}},
      {"RE12", clock_jumps, with_steered_clock()},
  };
  scenarios.back().vary = [](SessionOptions&, int) { set_relay_clock(0); };
  return scenarios;
}

}  // namespace relay::faults
