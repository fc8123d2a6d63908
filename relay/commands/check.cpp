// SPDX-License-Identifier: Apache-2.0
// check: everything that would break a promise.
#include <algorithm>
#include <cstdio>

#include "relay/base/escape.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"
#include "relay/core/recovery.h"
#include "relay/kafka/inspect.h"
#include "relay/kafka/progress.h"
#include "relay/postgres/inspect.h"
#include "relay/postgres/startup_checks.h"

namespace outbox {
namespace {

constexpr Millis kafka_deadline{30'000};

struct Examination {
  std::vector<Finding> findings;
  bool postgres_reached = true;
  bool kafka_reached = true;

  void add(Severity severity, const std::string& about, const Error& e) { findings.push_back({severity, about, e.what, e.hint}); }
  void add(std::vector<Finding> more) { findings.insert(findings.end(), more.begin(), more.end()); }
  int count(Severity severity) const {
    return static_cast<int>(std::count_if(findings.begin(), findings.end(), [&](const Finding& f) { return f.severity == severity; }));
  }
};

bool any_unreachable(const std::vector<Finding>& findings) {
  return std::any_of(findings.begin(), findings.end(), [](const Finding& f) { return f.severity == Severity::unreachable; });
}

void add_postgres(Error e, Examination& out) {
  if (e.hint.empty()) e.hint = "is postgres.dsn right, and does the server run?";
  out.add(e.fault == Fault::postgres ? Severity::unreachable : Severity::refused, "PostgreSQL", e);
}

Identity examine_postgres(const Config& config, Examination& out) {
  Identity here;
  const auto options = postgres_options(config);
  auto control = open_control(config);
  if (control) {
    out.add(postgres::inspect_database(**control, options, here));
    auto session = open_session(config);
    const auto pooler = session ? postgres::check_pooler(**control, **session, options) : Result<void>(session.error());
    if (!pooler && !any_unreachable(out.findings)) add_postgres(pooler.error(), out);
  } else {
    add_postgres(control.error(), out);
  }
  out.postgres_reached = !any_unreachable(out.findings);
  return here;
}

void examine_kafka(const Config& config, const Identity& here, Examination& out) {
  const auto options = kafka_options(config);
  const Deadline deadline(kafka_deadline);
  auto findings = kafka::inspect_cluster(
      options, {config.relay.mode, config.retention.keep, config.delivery.message_bytes_max}, deadline);
  out.kafka_reached = !any_unreachable(findings);
  out.add(std::move(findings));
  if (!out.kafka_reached) return;
  // As the relay reads it before it fences anybody.
  const auto progress = kafka::read_progress(options, false, deadline);
  if (!progress) {
    out.kafka_reached = progress.error().fault != Fault::kafka;
    out.add(out.kafka_reached ? Severity::refused : Severity::unreachable, "Kafka", progress.error());
  } else if (const auto error = foreign(here, *progress)) {
    out.add(Severity::refused, "Kafka", *error);
  }
}

const char* to_string(Severity severity) {
  switch (severity) {
    case Severity::note: return "note";
    case Severity::finding: return "finding";
    case Severity::unreachable: return "unreachable";
    case Severity::refused: return "refused";
  }
  return "unknown";
}

int exit_code_of(const Examination& e) {
  if (e.count(Severity::refused) > 0) return exit_code(Fault::refused);
  if (!e.postgres_reached) return exit_code(Fault::postgres);
  if (!e.kafka_reached) return exit_code(Fault::kafka);
  return e.count(Severity::finding) > 0 ? exit_code(Fault::absent) : 0;
}

void print_lines(const Examination& e) {
  for (const Finding& f : e.findings) {
    std::printf("%-12s%s: %s\n", to_string(f.severity), escape(f.about).c_str(), escape(f.what, Escape::lines).c_str());
    if (!f.hint.empty()) std::printf("%-12sHINT: %s\n", "", f.hint.c_str());
  }
  const int findings = e.count(Severity::finding);
  const int notes = e.count(Severity::note);
  if (e.count(Severity::refused) > 0) std::printf("`outbox-relay run` would refuse to start\n");
  else if (!e.postgres_reached || !e.kafka_reached) std::printf("not everything could be looked at\n");
  else if (findings == 0) std::printf("nothing was found that would break a promise; notes: %d\n", notes);
  else std::printf("findings: %d, notes: %d\n", findings, notes);
}

void print_answer(const Examination& e) {
  Json j = json_answer();
  j["would_run"] = e.count(Severity::refused) == 0;
  j["postgres_reached"] = e.postgres_reached;
  j["kafka_reached"] = e.kafka_reached;
  j["findings"] = Json::array();
  for (const Finding& f : e.findings) {
    j["findings"].push_back({{"severity", to_string(f.severity)}, {"about", f.about}, {"what", f.what}, {"hint", f.hint}});
  }
  print_json(j);
}

}  // namespace

int check(const Config& config, bool json) {
  Examination examination;
  const Identity here = examine_postgres(config, examination);
  examine_kafka(config, here, examination);
  std::stable_sort(examination.findings.begin(), examination.findings.end(),
                   [](const Finding& a, const Finding& b) { return a.severity > b.severity; });
  if (json) print_answer(examination);
  else print_lines(examination);
  return exit_code_of(examination);
}

}  // namespace outbox
