// SPDX-License-Identifier: Apache-2.0
// Kafka or PostgreSQL is unavailable for minutes: the load that this causes, and the time until
// messages flow again.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "tests/faults/scenarios.h"
#include "tests/support/checker.h"
#include "tests/support/from_environment.h"
#include "tests/support/usage.h"

namespace relay::faults {
namespace {

constexpr std::int64_t outage_seconds = 600;
constexpr Millis minute{60'000};
constexpr Millis steady_for{10'000};
constexpr Millis rate_window{1'000};
constexpr Millis look_every{100};
constexpr Millis noticed_within{60'000};
constexpr Millis back_within{60'000};

constexpr double attempts_per_message_max = 1.01;
constexpr double lines_first_minute_max = 10;
constexpr double lines_last_minute_max = 1;
constexpr double cpu_share_max = 0.01;
constexpr double probes_in_flight_max = 1;
constexpr double back_ms_max = 2'000;

double seconds_since(Clock::time_point then) {
  return std::chrono::duration<double>(Clock::now() - then).count();
}

// Connections of the process to this port that are open, or being opened.
int connections_to(pid_t pid, int port) {
  namespace fs = std::filesystem;
  std::set<std::string> sockets;
  for (const auto& entry : fs::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    std::error_code gone;
    const std::string target = fs::read_symlink(entry.path(), gone);
    if (target.starts_with("socket:[")) sockets.insert(target.substr(8, target.size() - 9));
  }
  std::ifstream table("/proc/net/tcp");
  std::string line;
  std::getline(table, line);
  int found = 0;
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    std::vector<std::string> f;
    for (std::string field; fields >> field;) f.push_back(field);
    if (f.size() < 10 || !sockets.contains(f[9])) continue;
    constexpr const char* established = "01";
    constexpr const char* syn_sent = "02";
    const int there = std::stoi(f[2].substr(f[2].find(':') + 1), nullptr, 16);
    if (there == port && (f[3] == established || f[3] == syn_sent)) ++found;
  }
  return found;
}

// The lines of its log after the first `said` bytes.
std::int64_t lines_of(const Relay& relay, std::size_t said) {
  const std::string output = relay.process.output().substr(said);
  return std::count(output.begin(), output.end(), '\n');
}

double steady_rate(Round& round) {
  pqxx::connection connection(round.session.db.dsn());
  const auto before = test::delivered(connection);
  const auto began = Clock::now();
  round.let_run(steady_for.count(), steady_for.count());
  return static_cast<double>(test::delivered(connection) - before) / seconds_since(began);
}

// Measures the relay until the outage has lasted for this time. `said`: size of its log before.
void watch(Round& round, const Relay& relay, std::size_t said, int port, Millis length) {
  const auto began = Clock::now();
  test::eventually(
      "the relay notices",
      [&] { return relay.process.output().find("to=stalled", said) != std::string::npos; },
      noticed_within);
  const double cpu_before = test::cpu_seconds(relay.process.pid());
  const auto noticed = Clock::now();
  int probes = 0;
  std::int64_t lines_in_first = -1;
  std::int64_t lines_before_last = length > minute ? -1 : 0;
  auto look_at = Clock::now();
  test::eventually(
      "the outage is over",
      [&] {
        const auto now = Clock::now();
        if (now < look_at) return false;
        look_at = now + look_every;
        probes = std::max(probes, connections_to(relay.process.pid(), port));
        if (lines_in_first < 0 && now >= began + minute) lines_in_first = lines_of(relay, said);
        if (lines_before_last < 0 && now >= began + length - minute)
          lines_before_last = lines_of(relay, said);
        return now >= began + length;
      },
      length + minute);
  const auto lines = lines_of(relay, said);
  auto& m = round.measured;
  m["outage_s"] = seconds_since(began);
  m["log_lines_first_minute"] = static_cast<double>(lines_in_first < 0 ? lines : lines_in_first);
  m["log_lines_last_minute"] =
      static_cast<double>(lines - std::max<std::int64_t>(lines_before_last, 0));
  m["cpu_share"] = (test::cpu_seconds(relay.process.pid()) - cpu_before) / seconds_since(noticed);
  m["probes_in_flight_max"] = probes;
}

// The time until the messages delivered in one second reach the former rate. `said`: size of the
// relay's log before the outage.
void until_back(Round& round, const Relay& relay, std::size_t said, double rate) {
  pqxx::connection connection(round.session.db.dsn());
  std::deque<std::pair<Clock::time_point, std::int64_t>> seen{
      {Clock::now(), test::delivered(connection)}};
  const auto began = Clock::now();
  const double wanted = 0.9 * rate * std::chrono::duration<double>(rate_window).count();
  auto& streams_again_ms = round.measured["streams_again_ms"];
  relay_must(
      "the old rate is back",
      [&] {
        if (streams_again_ms == 0 &&
            relay.process.output().find("to=streaming", said) != std::string::npos) {
          streams_again_ms = 1'000 * seconds_since(began);
        }
        seen.emplace_back(Clock::now(), test::delivered(connection));
        while (seen.back().first - seen.front().first > rate_window) seen.pop_front();
        return static_cast<double>(seen.back().second - seen.front().second) >= wanted;
      },
      back_within);
  round.measured["back_at_90_percent_ms"] = 1'000 * seconds_since(began);
}

double attempts_per_message(ScenarioSession& session) {
  std::set<std::string> messages;
  const auto log = test::read_log(session.db.kafka().brokers(), session.topics,
                                  test::Isolation::read_uncommitted);
  for (const auto& r : log.records) messages.insert(r.header("dedup-key").value_or(""));
  return static_cast<double>(log.records.size()) / static_cast<double>(messages.size());
}

void check_delivery(Round& round, Millis length) {
  const auto limit = [&](const char* name, double most) {
    if (round.measured[name] > most)
      round.broke(&Counts::stuck,
                  std::string(name) + " is " + std::to_string(round.measured[name]));
  };
  limit("attempts_per_message", attempts_per_message_max);
  limit("log_lines_first_minute", lines_first_minute_max);
  if (length > 2 * minute) limit("log_lines_last_minute", lines_last_minute_max);
  limit("cpu_share", cpu_share_max);
  limit("probes_in_flight_max", probes_in_flight_max);
  // The time to recover depends on the machine as well.
  std::array<double, 1> load{};
  getloadavg(load.data(), 1);
  if (round.measured["back_at_90_percent_ms"] > back_ms_max &&
      load[0] > 2.0 * std::thread::hardware_concurrency()) {
    throw std::runtime_error(
        "the machine is too busy to measure how soon the relay is back: load " +
        std::to_string(load[0]) + ", back after " +
        std::to_string(round.measured["back_at_90_percent_ms"]) + " ms");
  }
  limit("back_at_90_percent_ms", back_ms_max);
}

// Even rounds: Kafka, which refuses connections or, half of the time, accepts them and does not
// answer; odd ones: PostgreSQL.
void away_for_minutes(Round& round) {
  ScenarioSession& session = round.session;
  const bool kafka = round.number % 2 == 0;
  const Millis length{1'000 * test::number_from("OUTBOX_FAULTS_OUTAGE_SECONDS", outage_seconds)};
  session.until_batches(3, Millis{30'000});
  const Relay& relay = session.relays.back();
  const double rate = steady_rate(round);
  const auto said = relay.process.output().size();
  const bool silent = kafka && chance(round.random, 0.5);
  if (silent) session.servers.kafka_proxy.swallow(true);
  else if (kafka) session.servers.kafka->kill();
  else session.servers.postgres->stop(test::ScratchPostgres::Stop::fast);
  watch(round, relay, said,
        kafka ? session.servers.kafka_proxy.port() : session.servers.postgres->port(), length);
  if (silent) {
    session.servers.kafka_proxy.swallow(false);
  } else if (kafka) {
    session.servers.kafka->start();
    test::eventually("every partition has a leader",
                     [&] { return session.servers.kafka->in_sync(); });
  } else {
    session.servers.postgres->start();
  }
  round.healed();
  round.measured["rate_per_s"] = rate;
  until_back(round, relay, said, rate);
  round.recovered();
  round.measured["attempts_per_message"] = attempts_per_message(session);
  std::ostringstream detail;
  for (const auto& [name, value] : round.measured) detail << ", " << name << ' ' << value;
  round.note((silent ? "Kafka is silent" : kafka ? "Kafka" : "PostgreSQL") + detail.str());
  check_delivery(round, length);
}

}  // namespace

std::vector<Scenario> outage_scenarios() {
  return {
      {"KA13",
       away_for_minutes,
       {.through_kafka_proxy = true, .workload = {.applications = 3, .think = Millis{60}}},
       2},
  };
}

}  // namespace relay::faults
