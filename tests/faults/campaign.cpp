// SPDX-License-Identifier: Apache-2.0
#include "tests/faults/campaign.h"

#include <librdkafka/rdkafka.h>

#include <cstdio>
#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

namespace relay::faults {
namespace {

using Json = nlohmann::ordered_json;

constexpr Millis settles_within{60'000};
constexpr std::int64_t calm_from_ms =
    20;  // of load before a fault, so that the rounds are not all alike
constexpr std::int64_t calm_to_ms = 150;
constexpr int not_passed_in_a_row_max = 5;  // of a scenario that repeats what did not pass

std::int64_t ms_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration_cast<Millis>(to - from).count();
}

// One number of all that identifies a round, so that each has its own random numbers.
std::uint64_t mix(std::uint64_t seed, const std::string& scenario, int round) {
  std::seed_seq parts{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                      static_cast<std::uint32_t>(std::hash<std::string>()(scenario)),
                      static_cast<std::uint32_t>(round)};
  std::array<std::uint32_t, 2> out{};
  parts.generate(out.begin(), out.end());
  return static_cast<std::uint64_t>(out[0]) << 32 | out[1];
}

Json json_of(const Counts& c) {
  return {{"committed", c.committed},
          {"rolled_back", c.rolled_back},
          {"unknown_resolved", c.unknown_resolved},
          {"arrived", c.arrived},
          {"parked", c.parked},
          {"lost", c.lost},
          {"ghosts", c.ghosts},
          {"repeated", c.repeated},
          {"reordered", c.reordered},
          {"stuck", c.stuck},
          {"journal", c.journal},
          {"fencing", c.fencing},
          {"exits", c.exits}};
}

constexpr const char* invariants[] = {"lost",  "ghosts",  "repeated", "reordered",
                                      "stuck", "journal", "fencing",  "exits"};

std::vector<std::string> broken(const Json& counts, Mode mode, const Allowed& allowed) {
  std::vector<std::string> out;
  for (const char* name : invariants) {
    if (counts[name] == 0 || allowed.counts.contains(name)) continue;
    if (mode == Mode::at_least_once && std::string_view(name) == "repeated") continue;
    out.emplace_back(name);
  }
  return out;
}

void keep_evidence(ScenarioSession& session, const std::filesystem::path& folder,
                   const Json& line) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "round.json") << line.dump(2) << '\n';
  int n = 0;
  for (const auto* relays : {&session.gone, &session.relays}) {
    for (const Relay& r : *relays)
      std::ofstream(folder / ("relay-" + std::to_string(++n) + ".log")) << r.process.output();
  }
  try {
    for (const auto& from : {session.servers.kafka->folder(), session.servers.postgres->folder()}) {
      for (const auto& file : std::filesystem::directory_iterator(from)) {
        if (file.path().extension() == ".log")
          std::filesystem::copy(file.path(), folder,
                                std::filesystem::copy_options::overwrite_existing);
      }
    }
    for (const auto& [file, query] :
         {std::pair{"journal.txt", "select to_jsonb(b) from outbox.batch b order by b.number"},
          {"messages.txt",
           "select jsonb_build_object('id', m.id, 'seq', m.seq, 'txid', m.txid::text, 'topic', "
           "m.topic, "
           "'batch', outbox.batch_of(m.txid, m.seq)) from outbox.message m order by m.seq"},
          {"parked.txt", "select to_jsonb(p) - 'payload' from outbox.parked p"}}) {
      std::ofstream out(folder / file);
      for (const auto& row : session.db.sql(query)) out << row[0].c_str() << '\n';
    }
    std::ofstream records(folder / "records.txt");
    for (const auto& r : test::read_log(session.db.kafka().brokers(), session.topics,
                                        test::Isolation::read_committed)
                             .records) {
      records << r.topic << '[' << r.partition << "] " << r.offset << ' '
              << r.header("dedup-key").value_or("none") << '\n';
    }
  } catch (const std::exception& e) {
    std::ofstream(folder / "missing.txt") << e.what() << '\n';
  }
}

class Campaign {
 public:
  Campaign(const Scenario& scenario, const CampaignOptions& options)
      : scenario_(scenario), options_(options) {}

  Tally run() {
    const auto until =
        options_.minutes ? Clock::now() + *options_.minutes : Clock::time_point::max();
    for (int n = options_.first; n < options_.first + options_.rounds && Clock::now() < until;
         ++n) {
      const std::string verdict = round(n);
      ++(verdict == "passed"   ? tally_.passed
         : verdict == "failed" ? tally_.failed
                               : tally_.unknown);
      not_passed_in_a_row_ = verdict == "passed" ? 0 : not_passed_in_a_row_ + 1;
      if (verdict == "failed" && !options_.mutant.empty()) break;
      const bool done = not_passed_in_a_row_ == 0 && complete(mode_);
      if (verdict != "passed" || ++rounds_of_session_ >= rounds_in_one() || done)
        end_session(verdict == "passed");
      if (scenario_.complete &&
          (not_passed_in_a_row_ > not_passed_in_a_row_max || (done && complete(next_mode()))))
        break;
    }
    end_session(true);
    if (options_.record && !options_.mutant.empty()) record_mutant();
    return tally_;
  }

 private:
  Mode next_mode() const {
    if (options_.mode) return *options_.mode;
    if (scenario_.complete)
      return complete(Mode::exactly_once) ? Mode::at_least_once : Mode::exactly_once;
    return sessions_ % 2 == 0 ? Mode::exactly_once : Mode::at_least_once;
  }

  void begin_session(int number) {
    mode_ = next_mode();
    ++sessions_;
    if (!servers_) {
      servers_ = std::make_unique<Servers>(scenario_.servers);
    } else if (scenario_.servers.standby) {
      servers_->renew_postgres();
    }
    SessionOptions o = scenario_.session;
    if (scenario_.vary) scenario_.vary(o, sessions_ - 1);
    o.mode = mode_;
    o.mutant = options_.mutant;
    session_ =
        std::make_unique<ScenarioSession>(*servers_, mix(options_.seed, scenario_.id, number), o);
    rounds_of_session_ = 0;
  }

  // What a session shows at its end counts for its last round, so the session is checked before
  // that round is recorded.
  void end_session(bool servers_too_good_to_leave) {
    session_.reset();
    alone_.reset();
    if (!servers_too_good_to_leave ||
        (scenario_.rounds_of_session == 1 && !scenario_.servers.standby))
      servers_.reset();
  }

  bool complete(Mode mode) const { return scenario_.complete && scenario_.complete(mode); }

  // A standby is promoted once.
  int rounds_in_one() const {
    return scenario_.servers.standby ? 1 : options_.session.value_or(scenario_.rounds_of_session);
  }
  bool is_last(int n) const {
    return rounds_of_session_ + 1 >= rounds_in_one() || n + 1 >= options_.first + options_.rounds;
  }

  std::string round(int n) {
    Json line = head(n);
    Random random(mix(options_.seed, scenario_.id, n));
    std::string why;
    const auto began = Clock::now();
    try {
      if (scenario_.alone) {
        check_alone(n, random, line, why);
      } else {
        if (!session_) begin_session(n);
        line["mode"] = to_string(mode_);
        Round round{*session_, random, n, not_passed_in_a_row_ > 0};
        check_delivery(round, line, why);
      }
    } catch (const std::exception& e) {
      line["verdict"] = "unknown";
      why = e.what();
    }
    line["why"] = why;
    if (line["verdict"] != "passed" && session_)
      keep_evidence(*session_, options_.evidence / line["id"].get<std::string>(), line);
    finish_line(line, began);
    return line["verdict"];
  }

  void check_delivery(Round& round, Json& line, std::string& why) {
    const auto began = Clock::now();
    session_->applications.go();
    round.let_run(calm_from_ms, calm_to_ms);
    const auto struck = Clock::now();
    auto injected = struck;
    try {
      scenario_.inject(round);
      injected = Clock::now();
      if (round.recovered_at == Clock::time_point{}) {
        session_->until_batches(1, scenario_.recovers_within);
        round.recovered_at = Clock::now();
      }
    } catch (const Stuck& e) {
      round.broke(&Counts::stuck, e.what());
      return broke_off(round, line, why);
    } catch (const std::exception& e) {
      if (round.broken.empty()) throw;
      round.broken.front().second += "; " + std::string(e.what());
      return broke_off(round, line, why);
    }
    round.let_run(calm_from_ms, calm_to_ms);
    session_->applications.pause();
    const bool last = is_last(round.number) || complete(mode_);
    if (last) session_->applications.stop();  // so that the check sees all of it
    Counts counts = session_->checker.check(session_->applications.take_answers(), round.allowed,
                                            settles_within);
    counts.rolled_back = session_->applications.take_rolled_back();
    look_at_the_rest(round, counts, why);
    if (last) session_->finish(counts, why);
    const std::string examples = session_->checker.take_examples();
    line["load_ms"] = ms_between(began, struck);
    line["fault_ms"] = ms_between(struck, injected);
    line["recovered_ms"] = ms_between(round.healed_at, round.recovered_at);
    line["settled_ms"] = session_->checker.settled_in().count();
    line["servers"] = {{"postgres", postgres_version()},
                       {"kafka", options_.kafka_version},
                       {"librdkafka", rd_kafka_version_str()}};
    conclude(round, counts, line);
    if (!broken_.empty()) add_clause(why, examples);
  }

  void look_at_the_rest(const Round& round, Counts& counts, std::string& why) {
    session_->look_at_relays(round.expected_errors, counts, why);
    for (const auto& [count, what] : round.broken) {
      ++(counts.*count);
      add_clause(why, what);
    }
  }

  void conclude(const Round& round, const Counts& counts, Json& line) {
    line["detail"] = round.detail;
    line["counts"] = json_of(counts);
    if (!round.measured.empty()) line["measured"] = round.measured;
    broken_ = broken(line["counts"], mode_, round.allowed);
    line["verdict"] = broken_.empty() ? "passed" : "failed";
  }

  // A guarantee was broken, and the round could not go on.
  void broke_off(const Round& round, Json& line, std::string& why) {
    Counts counts;
    look_at_the_rest(round, counts, why);
    conclude(round, counts, line);
    if (broken_.empty()) line["verdict"] = "unknown";  // what broke, the scenario allows
  }

  void check_alone(int n, Random& random, Json& line, std::string& why) {
    if (!alone_) {
      alone_ = scenario_.alone(mix(options_.seed, scenario_.id, n));
      rounds_of_session_ = 0;
    }
    AloneRound round{random, n, options_.kafka_version};
    const auto began = Clock::now();
    line["counts"] = json_of(alone_->run(round));
    line["fault_ms"] = ms_between(began, Clock::now());
    if (round.healed_at != Clock::time_point{})
      line["recovered_ms"] = ms_between(round.healed_at, round.recovered_at);
    line["detail"] = round.detail;
    if (!round.measured.empty()) line["measured"] = round.measured;
    line["servers"] = round.servers;
    broken_ = broken(line["counts"], Mode::exactly_once, {});
    line["verdict"] = broken_.empty() ? "passed" : "failed";
    why = round.why;
  }

  std::string postgres_version() {
    const std::string text = session_->db.value("show server_version");
    return text.substr(0, text.find(' '));
  }

  Json head(int n) const {
    const std::string salt = utc_now();
    const auto unique = std::hash<std::string>()(salt + options_.commit) & 0xffffff;
    std::array<char, 8> tail{};
    std::snprintf(tail.data(), tail.size(), "%06zx", unique);
    return {{"schema", 2},
            {"kind", "round"},
            {"id", scenario_.id + "-" + std::to_string(options_.seed) + "-" + std::to_string(n) +
                       "-" + tail.data()},
            {"at", salt},
            {"commit", options_.commit},
            {"dirty", options_.dirty},
            {"protocol", options_.protocol},
            {"scenario", scenario_.id},
            {"mode", ""},
            {"seed", options_.seed},
            {"round", n},
            {"verdict", "unknown"},
            {"why", ""},
            {"load_ms", nullptr},
            {"fault_ms", nullptr},
            {"recovered_ms", nullptr},
            {"settled_ms", nullptr},
            {"detail", ""},
            {"counts", json_of({})},
            {"servers", {{"postgres", ""}, {"kafka", ""}, {"librdkafka", ""}}}};
  }

  void finish_line(const Json& line, Clock::time_point began) {
    const auto& c = line["counts"];
    std::cout << line["id"].get<std::string>() << ' ' << line["mode"].get<std::string>() << ' '
              << line["verdict"].get<std::string>() << " committed " << c["committed"]
              << " repeated " << c["repeated"] << " recovered " << line["recovered_ms"] << " ms, "
              << ms_between(began, Clock::now()) << " ms in all; "
              << line["detail"].get<std::string>() << (line["why"] == "" ? "" : " | ")
              << line["why"].get<std::string>() << std::endl;
    if (options_.record && options_.mutant.empty())
      append_line(*options_.record, file(), line.dump());
  }

  std::string file() const { return "rounds-" + scenario_.id + ".jsonl"; }

  // One line for all rounds: whether the defect was caught.
  void record_mutant() const {
    const Json line = {{"schema", 2},
                       {"kind", "mutant"},
                       {"at", utc_now()},
                       {"commit", options_.commit},
                       {"protocol", options_.protocol},
                       {"mutant", options_.mutant},
                       {"scenario", scenario_.id},
                       {"seed", options_.seed},
                       {"rounds", tally_.passed + tally_.failed + tally_.unknown},
                       {"caught_by", broken_},
                       {"verdict", tally_.failed > 0 ? "caught" : "missed"}};
    append_line(*options_.record, file(), line.dump());
  }

  const Scenario& scenario_;
  const CampaignOptions& options_;
  Tally tally_;
  int sessions_ = 0;
  int rounds_of_session_ = 0;
  int not_passed_in_a_row_ = 0;
  Mode mode_ = Mode::exactly_once;
  std::vector<std::string> broken_;
  std::unique_ptr<Servers> servers_;
  std::unique_ptr<ScenarioSession> session_;
  std::unique_ptr<Alone> alone_;
};

}  // namespace

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::string text(32, '\0');
  text.resize(std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts));
  return text;
}

void append_line(const std::filesystem::path& folder, const std::string& file,
                 const std::string& line) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / file, std::ios::app) << line << '\n';
}

Tally run_campaign(const Scenario& scenario, const CampaignOptions& options) {
  return Campaign(scenario, options).run();
}

}  // namespace relay::faults
