// SPDX-License-Identifier: Apache-2.0
#include "tests/faults/round.h"

#include <signal.h>

#include <array>
#include <cctype>
#include <filesystem>
#include <sstream>
#include <stdexcept>
#include <string_view>

namespace relay::faults {
namespace {

constexpr Millis starts_within{30'000};
constexpr Millis ends_within{30'000};
constexpr std::int64_t disk_bytes = 1 << 30;
constexpr const char* count_delivered =
    "select count(*) from outbox.batch b where b.delivered_at is not null";

std::vector<std::string> make_topics(test::TestOutbox& db) {
  return {db.topic("a", 3), db.topic("b", 2)};
}

test::Process::Environment environment_of(const SessionOptions& o, Servers& servers,
                                          test::TestOutbox& db) {
  const std::string direct = db.dsn();
  test::Process::Environment all = o.relay;
  all.emplace("OUTBOX_RELAY_RELAY_MODE", to_string(o.mode));
  if (o.through_kafka_proxy)
    all.emplace("OUTBOX_RELAY_KAFKA_BROKERS", servers.kafka_proxy.address());
  if (!o.mutant.empty()) all.emplace("OUTBOX_MUTANT", o.mutant);
  if (o.to_postgres == RequestFate::proxy)
    all.emplace("OUTBOX_RELAY_POSTGRES_DSN", servers.postgres_proxy->dsn(direct));
  if (o.to_postgres == RequestFate::either_server) {
    const auto port = [](const test::ScratchPostgres& s) { return std::to_string(s.port()); };
    all.emplace("OUTBOX_RELAY_POSTGRES_DSN",
                direct + " host=127.0.0.1,127.0.0.1 port=" + port(*servers.standby) + "," +
                    port(*servers.postgres) + " target_session_attrs=read-write");
  }
  if (o.to_postgres == RequestFate::own_user)
    all.emplace("OUTBOX_RELAY_POSTGRES_DSN", db.login("outbox_relay"));
  if (o.to_postgres == RequestFate::pooler) {
    all.emplace("OUTBOX_RELAY_POSTGRES_DSN", servers.pooler->dsn(db.database()));
    all.emplace("OUTBOX_RELAY_POSTGRES_POOLER", "transaction");
  }
  return all;
}

// The path of the server's data does not change for its users.
void move_data(test::ScratchPostgres& server, const std::filesystem::path& to) {
  server.stop(test::ScratchPostgres::Stop::fast);
  const std::filesystem::path data = server.folder() / "postgres";
  const auto copied = test::run_command({"/bin/cp", "-a", data.string(), to.string()}, {});
  if (copied.code != 0)
    throw std::runtime_error("cannot move the data of a server: " + copied.output);
  std::filesystem::remove_all(data);
  std::filesystem::create_directory_symlink(to / "postgres", data);
  server.start();
}

// What no process may print when it ends.
constexpr std::array<std::string_view, 8> last_words = {
    "Assertion", "Sanitizer",   "terminate called", "CHECK failed",
    "free(): ",  "double free", "corrupted",        "tcache"};

// The first lines of what is not the log's, such as an assertion of a library; every line of the
// log begins with its time.
std::string own_words(const std::string& output) {
  constexpr int lines_max = 5;
  std::string words;
  int lines = 0;
  std::istringstream text(output);
  for (std::string line; lines < lines_max && std::getline(text, line);) {
    if (line.empty() || std::isdigit(static_cast<unsigned char>(line.front())) != 0) continue;
    words += (lines++ == 0 ? ": " : " / ") + line;
  }
  return words;
}

// The event of a line of the log, as "2026-01-01T00:00:00.000Z error NAME fields"; empty if its
// level is another.
std::string_view error_event(std::string_view line) {
  const auto level = line.find(' ');
  if (level == std::string_view::npos || !line.substr(level + 1).starts_with("error ")) return {};
  const auto name = line.find_first_not_of(' ', level + 6);
  if (name == std::string_view::npos) return {};
  return line.substr(name, line.find(' ', name) - name);
}

}  // namespace

Servers::Servers(const ServerOptions& chosen) : options(chosen) {
  if (options.small_disk != ServerOptions::Disk::none)
    disk = std::make_unique<test::SmallDisk>(disk_bytes);
  std::vector<std::string> properties = options.kafka;
  if (options.small_disk == ServerOptions::Disk::of_kafka)
    properties.push_back("log.dirs=" + (disk->path() / "kafka").string());
  properties.push_back(options.brokers == 1 ? "advertised=" + kafka_proxy.address()
                                            : "brokers=" + std::to_string(options.brokers));
  kafka = std::make_unique<test::ScratchKafka>(properties);
  if (options.brokers == 1) kafka_proxy.forward_to(kafka->proxied());
  renew_postgres();
}

std::vector<std::string> Servers::postgres_settings() const {
  std::vector<std::string> settings = options.postgres;
  settings.emplace_back("max_prepared_transactions=50");
  return settings;
}

void Servers::renew_postgres() {
  pooler.reset();
  postgres_proxy.reset();
  standby.reset();
  postgres.reset();
  postgres = std::make_unique<test::ScratchPostgres>(postgres_settings());
  if (options.small_disk == ServerOptions::Disk::of_postgres) move_data(*postgres, disk->path());
  postgres_proxy = std::make_unique<test::PostgresProxy>(postgres->port());
  if (options.pooler)
    pooler = std::make_unique<test::ScratchPgbouncer>(
        *postgres, std::vector<std::string>{"default_pool_size=5"});
  if (options.standby)
    standby.reset(new test::ScratchPostgres(test::ScratchPostgres::standby_of(*postgres)));
  if (options.synchronous) postgres->replicate_synchronously();
}

ScenarioSession::ScenarioSession(Servers& all, std::uint64_t seed, const SessionOptions& chosen)
    : servers(all),
      options(chosen),
      db(*all.postgres, all.kafka.get()),
      topics(make_topics(db)),
      applications(db, topics, seed, chosen.workload),
      checker(db, topics, chosen.mode) {
  for (const auto& [name, value] : environment_of(options, servers, db))
    db.environment[name] = value;
  for (int i = 0; i < options.relays; ++i) start_relay();
  if (const auto order = options.relay.find("OUTBOX_RELAY_DELIVERY_ORDER");
      order != options.relay.end() && order->second == "message") {
    checker.let_parked_be_overtaken();
  }
  if (options.workload.applications == 0) return;
  applications.go();
  until_batches(3, starts_within);
}

Relay& ScenarioSession::start_relay(const test::Process::Environment& more,
                                    const std::string& program) {
  relays.push_back({db.relay(more, program)});
  return relays.back();
}

Relay& ScenarioSession::holder() {
  Relay* found = nullptr;
  test::eventually(
      "a relay holds the lease",
      [&] {
        const std::string who = db.value(
            "select coalesce(l.holder, '') from outbox.lease l where l.expires_at > "
            "clock_timestamp()");
        for (Relay& r : relays) {
          if (!r.killed &&
              who.find(":" + std::to_string(r.process.pid()) + ":") != std::string::npos)
            found = &r;
        }
        return found != nullptr;
      },
      starts_within);
  return *found;
}

void ScenarioSession::kill(Relay& relay) {
  relay.killed = true;
  relay.process.signal(SIGKILL);
  relay.process.wait();
}

void ScenarioSession::stop(Relay& relay) {
  relay.may_end_with = 0;
  relay.process.signal(SIGTERM);
  relay.process.wait();
}

std::int64_t ScenarioSession::delivered_batches() { return std::stoll(db.value(count_delivered)); }

void ScenarioSession::until_batches(std::int64_t more, Millis within) {
  pqxx::connection connection(db.dsn());
  const auto delivered = [&] {
    pqxx::nontransaction tx(connection);
    return tx.exec(count_delivered)[0][0].as<std::int64_t>();
  };
  const auto before = delivered();
  relay_must(
      std::to_string(more) + " batches more are delivered",
      [&] { return delivered() >= before + more; }, within);
}

void ScenarioSession::move_to_standby() {
  db.move_to(*servers.standby);
  applications.move_to(db.dsn());
}

void ScenarioSession::look_at_relays(const std::vector<std::string>& expected_errors,
                                     Counts& counts, std::string& why) {
  const auto bad = [&](const std::string& what) {
    ++counts.exits;
    add_clause(why, what);
  };
  for (auto it = relays.begin(); it != relays.end();) {
    Relay& r = *it;
    const bool ended = !r.process.running();
    const bool well = r.killed || (ended && r.may_end_with == r.process.wait());
    const std::string output = r.process.output();
    if (ended && !well)
      bad("a relay ended by itself, with " + std::to_string(r.process.wait()) + own_words(output));
    for (std::size_t end = 0; (end = output.find('\n', r.read_to)) != std::string::npos;
         r.read_to = end + 1) {
      const std::string_view line = std::string_view(output).substr(r.read_to, end - r.read_to);
      for (const auto words : last_words) {
        if (line.find(words) != std::string_view::npos) bad("a relay said: " + std::string(line));
      }
      const auto event = error_event(line);
      if (!event.empty() && std::find(expected_errors.begin(), expected_errors.end(), event) ==
                                expected_errors.end()) {
        bad("a relay said: " + std::string(line));
      }
    }
    const auto next = std::next(it);
    if (ended) gone.splice(gone.end(), relays, it);
    it = next;
  }
}

void ScenarioSession::finish(Counts& counts, std::string& why) {
  checker.check_whole_log(counts);
  for (Relay& r : relays) r.process.signal(SIGTERM);
  for (Relay& r : relays) {
    if (const int code = r.process.wait(ends_within); code != 0) {
      ++counts.exits;
      add_clause(why, "a relay ended with " + std::to_string(code) + " when it was asked to");
    }
  }
  gone.splice(gone.end(), relays);
}

void relay_must(const std::string& what, const std::function<bool()>& condition, Millis within) {
  try {
    test::eventually(what, condition, within);
  } catch (const pqxx::failure&) {
    throw;
  } catch (const std::runtime_error& e) {
    throw Stuck(e.what());
  }
}

void add_clause(std::string& text, const std::string& what) {
  text += (text.empty() ? "" : "; ") + what;
}

Millis let_run(Random& random, std::int64_t from_ms, std::int64_t to_ms) {
  const Millis moment{between(random, from_ms, to_ms)};
  const Deadline until(moment);
  test::eventually(
      "the moment of the fault", [&] { return until.passed(); }, moment + Millis{60'000});
  return moment;
}

}  // namespace relay::faults
