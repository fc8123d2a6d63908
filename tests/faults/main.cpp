// SPDX-License-Identifier: Apache-2.0
// Runs rounds of the fault campaign; see docs/reliability.md. Start it by tests/faults/run.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>

#include "tests/faults/baseline.h"
#include "tests/faults/campaign.h"

namespace outbox::faults {

const std::vector<Row>& all_rows() {
  static const std::vector<Row> all = [] {
    std::vector<Row> rows;
    for (const auto& part : {relay_rows(), sweep_rows(), postgres_rows(), failover_rows(), ground_rows(), kafka_rows(), kafka_request_rows(),
                             kafka_topic_rows(), outage_rows(), together_rows(), effect_rows()}) {
      rows.insert(rows.end(), part.begin(), part.end());
    }
    return rows;
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

int run(int argc, char** argv) {
  CLI::App app("Injects faults under load and checks what is promised. Servers are its own, and end with it.");
  std::vector<std::string> names;
  CampaignOptions options;
  std::string mode, record, baseline, evidence = OUTBOX_BUILD_DIR "/faults-evidence";
  int minutes = 0, stretch = 0;
  bool list = false;
  app.add_flag("--list", list, "the rows that can be run");
  app.add_option("--row", names, "of the fault matrix; several are run one after the other");
  app.add_option("--seed", options.seed, "decides the workload, the moments of the faults and their mix");
  auto* const rounds = app.add_option("--rounds", options.rounds, "of each row; default: 10, or all of a row that has an end");
  app.add_option("--first", options.first, "number of the first round");
  auto* const from = app.add_option("--from", options.from, "point that a sweep in one mode begins with: \"next_point\" of a round");
  app.add_option("--minutes", minutes, "begin no round later");
  app.add_option("--mode", mode, "exactly-once or at-least-once; default: both in turn");
  app.add_option("--stretch", stretch, "rounds with one outbox; then another, in the other mode");
  app.add_option("--sabotage", options.sabotage, "a deliberate defect; ends when it is caught");
  app.add_option("--record", record, "append a line for each round to FOLDER/rounds-ROW.jsonl");
  app.add_option("--baseline", baseline, "another system in the relay's place, in row R1: debezium");
  app.add_option("--evidence", evidence, "folder for the logs of rounds that did not pass");
  CLI11_PARSE(app, argc, argv);
  if (list) {
    for (const Row& row : all_rows()) std::cout << row.id << '\n';
    return 0;
  }
  if (minutes > 0) options.minutes = std::chrono::minutes(minutes);
  if (!mode.empty() && !(options.mode = parse_mode(mode))) {
    std::cerr << "--mode: " << mode << "\nHINT: exactly-once or at-least-once\n";
    return 2;
  }
  if (stretch > 0) options.stretch = stretch;
  if (!record.empty()) options.record = record;
  options.evidence = evidence;
  options.commit = from_environment("OUTBOX_FAULTS_COMMIT");
  options.protocol = from_environment("OUTBOX_FAULTS_PROTOCOL");
  options.kafka_version = from_environment("KAFKA_VERSION");
  options.dirty = from_environment("OUTBOX_FAULTS_DIRTY") == "true";
  if (!baseline.empty()) return compare_with(baseline, options);
  int code = 0;
  for (const std::string& name : names) {
    const auto row = std::find_if(all_rows().begin(), all_rows().end(), [&](const Row& r) { return r.id == name; });
    if (row == all_rows().end()) {
      std::cerr << "--row: there is no row " << name << "\nHINT: --list shows them\n";
      return 2;
    }
    if (rounds->count() == 0) options.rounds = minutes > 0 || row->complete ? 1'000'000 : row->rounds;
    if (from->count() > 0 && (!row->go_on_from || !options.mode)) {
      std::cerr << "--from: only a sweep in one mode goes on from a point\nHINT: add --mode, or leave it out for row " << name << '\n';
      return 2;
    }
    try {
      if (from->count() > 0) row->go_on_from(*options.mode, options.from);
    } catch (const std::exception& e) {
      std::cerr << "--from: " << e.what() << "\nHINT: take the \"next_point\" of the round before\n";
      return 2;
    }
    const Tally tally = run_campaign(*row, options);
    std::cout << name << ": passed " << tally.passed << ", failed " << tally.failed << ", unknown " << tally.unknown << std::endl;
    if (tally.failed + tally.unknown > 0) code = 1;
  }
  return code;
}

}  // namespace
}  // namespace outbox::faults

int main(int argc, char** argv) { return outbox::faults::run(argc, argv); }
