// SPDX-License-Identifier: Apache-2.0
// Runs rounds of the fault campaign; see docs/reliability.md. Start it by tests/faults/run.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>

#include "tests/faults/baseline.h"
#include "tests/faults/campaign.h"

namespace relay::faults {

const std::vector<Scenario>& all_scenarios() {
  static const std::vector<Scenario> all = [] {
    std::vector<Scenario> scenarios;
    for (const auto& part :
         {relay_scenarios(), sweep_scenarios(), postgres_scenarios(), failover_scenarios(),
          table_scenarios(), kafka_scenarios(), kafka_request_scenarios(), kafka_topic_scenarios(),
          outage_scenarios(), together_scenarios(), effect_scenarios()}) {
      scenarios.insert(scenarios.end(), part.begin(), part.end());
    }
    return scenarios;
  }();
  return all;
}

namespace {

std::string from_environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int compare_with(const std::string& baseline, const CampaignOptions& options) {
  try {
    run_baseline(baseline, options);
    return 0;
  } catch (const std::exception& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
}

struct Arguments {
  std::vector<std::string> scenarios;
  CampaignOptions options;
  std::string mode, record, baseline, evidence = OUTBOX_BUILD_DIR "/faults-evidence";
  int minutes = 0, session = 0;
  bool list = false, has_rounds = false, has_from = false;
};

void add_options(CLI::App& app, Arguments& a) {
  app.add_flag("--list", a.list, "the scenarios that can be run");
  app.add_option("--scenario", a.scenarios, "its id; several are run one after the other");
  app.add_option("--seed", a.options.seed,
                 "decides the workload, the moments of the faults and their mix");
  app.add_option("--rounds", a.options.rounds,
                 "of each scenario; default: 10, or all of a scenario that has an end");
  app.add_option("--first", a.options.first, "number of the first round");
  app.add_option("--from", a.options.from,
                 "point that a sweep in one mode begins with: \"next_point\" of a round");
  app.add_option("--minutes", a.minutes, "begin no round later");
  app.add_option("--mode", a.mode, "exactly-once or at-least-once; default: both in turn");
  app.add_option("--session", a.session, "rounds with one outbox; then another, in the other mode");
  app.add_option("--mutant", a.options.mutant,
                 "a deliberate defect of the relay; the run ends when it is caught");
  app.add_option("--record", a.record,
                 "append a line for each round to FOLDER/rounds-SCENARIO.jsonl");
  app.add_option("--baseline", a.baseline,
                 "another system in the relay's place, in scenario RE01: debezium");
  app.add_option("--evidence", a.evidence, "folder for the logs of rounds that did not pass");
}

// False, with the error printed, if an argument is invalid.
bool complete_options(Arguments& a) {
  CampaignOptions& options = a.options;
  if (a.minutes > 0) options.minutes = std::chrono::minutes(a.minutes);
  if (!a.mode.empty() && !(options.mode = parse_mode(a.mode))) {
    std::cerr << "--mode: " << a.mode << "\nHINT: exactly-once or at-least-once\n";
    return false;
  }
  if (a.session > 0) options.session = a.session;
  if (!a.record.empty()) options.record = a.record;
  options.evidence = a.evidence;
  options.commit = from_environment("OUTBOX_FAULTS_COMMIT");
  options.protocol = from_environment("OUTBOX_FAULTS_PROTOCOL");
  options.kafka_version = from_environment("KAFKA_VERSION");
  options.dirty = from_environment("OUTBOX_FAULTS_DIRTY") == "true";
  return true;
}

// False, with the error printed, if the scenario cannot continue a sweep at --from.
bool continue_sweep(const Scenario& scenario, const CampaignOptions& options) {
  if (!scenario.go_on_from || !options.mode) {
    std::cerr << "--from: only a sweep in one mode goes on from a point\nHINT: add --mode, or "
                 "leave it out for scenario "
              << scenario.id << '\n';
    return false;
  }
  try {
    scenario.go_on_from(*options.mode, options.from);
    return true;
  } catch (const std::exception& e) {
    std::cerr << "--from: " << e.what() << "\nHINT: take the \"next_point\" of the round before\n";
    return false;
  }
}

int run_scenarios(Arguments& a) {
  int code = 0;
  for (const std::string& name : a.scenarios) {
    const auto scenario = std::find_if(all_scenarios().begin(), all_scenarios().end(),
                                       [&](const Scenario& r) { return r.id == name; });
    if (scenario == all_scenarios().end()) {
      std::cerr << "--scenario: there is no scenario " << name << "\nHINT: --list shows them\n";
      return 2;
    }
    if (!a.has_rounds)
      a.options.rounds = a.minutes > 0 || scenario->complete ? 1'000'000 : scenario->rounds;
    if (a.has_from && !continue_sweep(*scenario, a.options)) return 2;
    const Tally tally = run_campaign(*scenario, a.options);
    std::cout << name << ": passed " << tally.passed << ", failed " << tally.failed << ", unknown "
              << tally.unknown << std::endl;
    if (tally.failed + tally.unknown > 0) code = 1;
  }
  return code;
}

int run(int argc, char** argv) {
  CLI::App app(
      "Injects faults under load and checks the guarantees. It starts its own servers and stops "
      "them at its end.");
  Arguments a;
  add_options(app, a);
  CLI11_PARSE(app, argc, argv);
  if (a.list) {
    for (const Scenario& scenario : all_scenarios()) std::cout << scenario.id << '\n';
    return 0;
  }
  a.has_rounds = app.count("--rounds") > 0;
  a.has_from = app.count("--from") > 0;
  if (!complete_options(a)) return 2;
  if (!a.baseline.empty()) return compare_with(a.baseline, a.options);
  return run_scenarios(a);
}

}  // namespace
}  // namespace relay::faults

int main(int argc, char** argv) { return relay::faults::run(argc, argv); }
