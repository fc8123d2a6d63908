// SPDX-License-Identifier: Apache-2.0
// The commands of outbox-relay. Each returns the exit code of the process.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "relay/config/config.h"
#include "relay/core/loop.h"
#include "relay/postgres/migrations.h"

namespace outbox {

struct InitOptions {
  std::set<Schema> schemas = {Schema::outbox};
  bool dry_run = false;
  bool print_sql = false;
  int from = 0;  // printed is what leads on from this version
  bool roles = true;
  bool kafka = false;  // the progress topic as well
};
// All schemas in one transaction: they are there, or nothing was changed.
int init(const Config& config, const InitOptions& options);
// init --print-sql: needs no configuration.
int print_sql(const InitOptions& options);
// The schemas of a list like "inbox,effect"; an error says which there are.
Result<std::set<Schema>> schemas_named(const std::string& list);

// The service. `read_again` reads the configuration anew, at SIGHUP. `at_phase` is for tests.
int run(Config config, const std::function<Result<Config>()>& read_again, const std::function<void(Phase)>& at_phase = {});

// Looks at everything that would break a promise; changes nothing.
//   0 nothing would · 1 something would · 3, 4 not reachable · 5 `run` would refuse
int check(const Config& config, bool json);

struct StatusOptions {
  bool json = false;
  bool watch = false;  // every second, until SIGINT or SIGTERM
};
int status(const Config& config, const StatusOptions& options);

// Which messages: exactly one of the three is set.
struct TraceOptions {
  std::optional<std::string> id;
  std::optional<std::string> key;  // the deduplication key
  std::optional<std::int64_t> seq;
  bool json = false;
};
//   0 found · 1 no such message, or one that should be in Kafka and is not · 4 Kafka could not be asked
int trace(const Config& config, const TraceOptions& options);

struct ParkedListOptions {
  std::string topic;        // empty: all
  std::string error_class;  // empty: all
  std::int64_t limit = 100;
  bool json = false;
};
int parked_list(const Config& config, const ParkedListOptions& options);

struct ParkedShowOptions {
  std::string id;
  bool payload = false;  // with key, headers and payload
  bool json = false;
};
int parked_show(const Config& config, const ParkedShowOptions& options);

// Which parked messages, and why. Messages that only wait for another one of their key (key_blocked) are meant where they are
// named by id or class: otherwise they follow that one.
struct ParkedDecision {
  std::vector<std::string> ids;
  std::string topic;
  std::string error_class;
  bool all = false;
  std::string why;
  std::string by;  // empty: the login of the database
  bool dry_run = false;
  bool json = false;
};
//   0 decided · 1 nothing matches
int parked_release(const Config& config, const ParkedDecision& decision);
int parked_discard(const Config& config, const ParkedDecision& decision);

// What is not given stays as it is.
struct ParkedEdit {
  std::string id;
  std::optional<std::string> topic;
  std::optional<std::string> key;           // text
  bool no_key = false;
  std::optional<std::string> payload_file;  // "-": standard input
  bool tombstone = false;
  std::optional<std::string> headers;       // a JSON object of strings
  bool no_headers = false;
  std::string why;
  std::string by;
  bool json = false;
};
int parked_edit(const Config& config, const ParkedEdit& edit);

struct ScheduledListOptions {
  std::string topic;  // empty: all
  std::int64_t limit = 100;
  bool json = false;
};
int scheduled_list(const Config& config, const ScheduledListOptions& options);
//   1 none of them is scheduled
int scheduled_cancel(const Config& config, const std::vector<std::string>& ids, bool json);

struct EffectsListOptions {
  std::string provider;  // empty: all
  std::string state;     // empty: those of which nobody knows; "all"
  std::int64_t limit = 100;
  bool json = false;
};
int effects_list(const Config& config, const EffectsListOptions& options);

struct EffectsShowOptions {
  std::int64_t id = 0;
  bool payload = false;  // with what was asked and answered
  bool json = false;
};
//   1 no such effect
int effects_show(const Config& config, const EffectsShowOptions& options);

struct EffectDecision {
  std::vector<std::int64_t> ids;
  bool done = false;  // exactly one of the three is set
  bool failed = false;
  bool resend = false;
  std::string object;
  std::string why;
  std::string by;  // empty: the login of the database
  bool json = false;
};
//   1 one of them does not exist, or is not in doubt · 5 a right is missing
int effects_resolve(const Config& config, const EffectDecision& decision);

struct ReplayOptions {
  std::string since;  // times as PostgreSQL reads them
  std::string until;  // empty: now
  std::string topic;  // empty: all
  std::optional<std::int64_t> resume;  // number of an interrupted replay, in place of the three
  std::string why;
  std::string by;  // empty: the login of the database
  std::int64_t rows_per_second = 20'000;
  bool dry_run = false;
  bool json = false;
};
// Enqueues delivered messages again, batch by batch.
//   1 there is nothing to replay
int replay(const Config& config, const ReplayOptions& options);

// Does what retention does, while no relay runs.
//   5 a relay is active, and does it itself · 6 the lease was lost on the way
int prune(const Config& config, bool dry_run);

struct AdoptOptions {
  bool yes = false;        // without it, only says what would be done
  bool resend = false;     // the batch in doubt is sent again …
  bool delivered = false;  // … or was delivered
};
// Adopts a database that was copied, restored or upgraded.
//   0 done, or nothing to do · 1 there is something to do, and --yes was not given · 5 a relay is active
int adopt(const Config& config, const AdoptOptions& options);

// Prints the configuration in force, without secrets.
int config_show(const Config& config);
// Prints the annotated default file; needs no configuration.
int config_defaults();
// Says whether the relay could start with `file` and this environment.
int config_check(const std::string& file);

// Versions of the program, its libraries and the schemas that it works with.
int version(bool json);

// Parses the command line and calls one of the others.
int main_command(int argc, char** argv, std::function<void(Phase)> at_phase = {});

}  // namespace outbox
