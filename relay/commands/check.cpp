// SPDX-License-Identifier: Apache-2.0
// check: reports everything that could break a guarantee.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "relay/base/escape.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"
#include "relay/core/recovery.h"
#include "relay/kafka/cluster_check.h"
#include "relay/kafka/progress.h"
#include "relay/postgres/database_check.h"
#include "relay/postgres/startup_checks.h"

namespace relay {
namespace {

constexpr Millis kafka_deadline{30'000};

struct Examination {
  std::vector<CheckResult> results;
  bool postgres_reached = true;
  bool kafka_reached = true;
  bool any_batch = false;  // in the journal

  void add(Severity severity, const std::string& about, const Error& e) {
    results.push_back({severity, about, e.what, e.hint});
  }
  void add(std::vector<CheckResult> more) {
    results.insert(results.end(), more.begin(), more.end());
  }
  int count(Severity severity) const {
    return static_cast<int>(
        std::count_if(results.begin(), results.end(),
                      [&](const CheckResult& f) { return f.severity == severity; }));
  }
};

bool any_unreachable(const std::vector<CheckResult>& results) {
  return std::any_of(results.begin(), results.end(),
                     [](const CheckResult& f) { return f.severity == Severity::unreachable; });
}

void add_postgres(Error e, Examination& out) {
  if (e.hint.empty()) e.hint = "check postgres.dsn, and that the server runs";
  out.add(e.fault == Fault::postgres ? Severity::unreachable : Severity::refused, "PostgreSQL", e);
}

Identity examine_postgres(const Config& config, Examination& out) {
  Identity here;
  const auto options = postgres_options(config);
  auto control = open_control(config);
  if (control) {
    out.add(postgres::inspect_database(**control, options, here));
    const auto batch = (*control)->run("reading the journal", "select from outbox.batch limit 1");
    out.any_batch = batch && !batch->empty();
    auto session = open_session(config);
    const auto pooler = session ? postgres::check_pooler(**control, **session, options)
                                : Result<void>(session.error());
    if (!pooler && !any_unreachable(out.results)) add_postgres(pooler.error(), out);
  } else {
    add_postgres(control.error(), out);
  }
  out.postgres_reached = !any_unreachable(out.results);
  return here;
}

void examine_kafka(const Config& config, const Identity& here, Examination& out) {
  const auto options = kafka_options(config);
  const Deadline deadline(kafka_deadline);
  auto results = kafka::inspect_cluster(
      options, {config.relay.mode, config.retention.keep, config.delivery.message_bytes_max},
      deadline);
  out.kafka_reached = !any_unreachable(results);
  out.add(std::move(results));
  if (!out.kafka_reached) return;
  // As the relay reads it before it fences another producer.
  const auto progress = kafka::read_progress(options, false, deadline);
  if (!progress) {
    out.kafka_reached = progress.error().fault != Fault::kafka;
    out.add(out.kafka_reached ? Severity::refused : Severity::unreachable, "Kafka",
            progress.error());
  } else if (const auto error = foreign(here, *progress, out.any_batch)) {
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
  for (const CheckResult& f : e.results) {
    std::printf("%-12s%s: %s\n", to_string(f.severity), escape(f.about).c_str(),
                escape(f.what, Escape::lines).c_str());
    if (!f.hint.empty()) std::printf("%-12sHINT: %s\n", "", f.hint.c_str());
  }
  const int findings = e.count(Severity::finding);
  const int notes = e.count(Severity::note);
  if (e.count(Severity::refused) > 0) std::printf("`outbox-relay run` would refuse to start\n");
  else if (!e.postgres_reached || !e.kafka_reached)
    std::printf("not everything could be checked\n");
  else if (findings == 0)
    std::printf("nothing was found that could break a guarantee; notes: %d\n", notes);
  else std::printf("findings: %d, notes: %d\n", findings, notes);
}

void print_answer(const Examination& e) {
  Json j = json_answer();
  j["would_run"] = e.count(Severity::refused) == 0;
  j["postgres_reached"] = e.postgres_reached;
  j["kafka_reached"] = e.kafka_reached;
  j["findings"] = Json::array();
  for (const CheckResult& f : e.results) {
    j["findings"].push_back(Json::object({{"severity", to_string(f.severity)},
                                          {"about", f.about},
                                          {"what", f.what},
                                          {"hint", f.hint}}));
  }
  print_json(j);
}

int check(const Config& config, bool json) {
  Examination examination;
  const Identity here = examine_postgres(config, examination);
  examine_kafka(config, here, examination);
  std::stable_sort(
      examination.results.begin(), examination.results.end(),
      [](const CheckResult& a, const CheckResult& b) { return a.severity > b.severity; });
  if (json) print_answer(examination);
  else print_lines(examination);
  return exit_code_of(examination);
}

constexpr std::string_view check_reference = R"(
The exit code is 5 if `run` would refuse, else 3 or 4 if a server is not reachable, else 1 if there
is a finding, else 0. Notes do not count.

JSON: `would_run`, `postgres_reached`, `kafka_reached`, and `findings`, each with `severity`
(`refused`, `unreachable`, `finding`, `note`), `about` (`PostgreSQL`, `Kafka`, `broker ID` or `topic
NAME`), `what` and `hint`.

It checks:

* of PostgreSQL: all that `run` refuses (schema, privileges, row-level security, sequence, another
  cluster or relay name, a database that was set back); `fsync` or `full_page_writes` off; unlogged
  tables; a missing constraint `own_txid`; checks that are off because of
  `postgres.allow_unverified_server`;
* of the brokers: automatic creation of topics; unclean leader election; in exactly-once mode,
  partition verification that is missing or off, missing transactions, and a transaction log
  (`__transaction_state`) that cannot be created or written to;
* of the topics in `topics.allow`: missing or not authorized; `LogAppendTime`; retention shorter
  than `retention.keep`; `max.message.bytes` below `delivery.message_bytes_max`;
  `min.insync.replicas` of 1, or one replica (in a cluster of one broker these are notes); unclean
  leader election; compaction (a note);
* of the progress topic: missing, several partitions, not compacted, `delete` in its policy, records
  of another relay or cluster, too few replicas.

Whether the relay may write to a topic is only visible when it writes: `run` detects it, and parks
the messages.

A prefix such as `shop.*` stands for the existing topics that match it, at most 500.
)";

}  // namespace

Command check_command() {
  const auto json = std::make_shared<bool>(false);
  return {
      .name = "check",
      .summary =
          "Checks everything that could break a guarantee: configuration, connections, privileges, "
          "topics, "
          "settings of brokers and database.",
      .details =
          "It changes nothing and does not disturb a running relay. Run it with the configuration "
          "of the relay, "
          "before the first start and after every change of a server. What the login may not read "
          "is "
          "reported as a note: a login with the right DescribeConfigs on the cluster reads all.",
      .options = {json_option(json.get())},
      .exit_codes = {{0, "no finding"},
                     {1, "a finding"},
                     usage_code,
                     {3, "PostgreSQL is not reachable"},
                     {4, "Kafka is not reachable"},
                     {5, "`run` would refuse"}},
      .reference = check_reference,
      .examples = {{"check --config relay.toml", "Checks the servers that this file names."}},
      .run = with_config([json](const Config& config) { return check(config, *json); }),
  };
}

}  // namespace relay
