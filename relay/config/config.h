// SPDX-License-Identifier: Apache-2.0
// The configuration of one relay: typed, complete and validated. load() returns it or an error.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "relay/base/clock.h"
#include "relay/base/error.h"
#include "relay/base/log.h"
#include "relay/base/secret.h"
#include "relay/core/mode.h"

namespace relay {

// One member per option, nested by section. relay/config/options.cpp documents the meaning, range
// and default of each. A default-constructed Config is zero and empty: begin with
// config::defaults().
struct Config {
  struct Relay {
    std::string name;
    Mode mode = Mode::exactly_once;
  } relay;

  struct Postgres {
    Secret dsn;       // may contain a password when it came from the environment
    Secret password;  // content of password_file; empty: none
    std::string pooler;
    bool allow_unverified_server = false;
  } postgres;

  // The database of the inbox and the effect ledger, which `trace` and `effects` read.
  struct Consumer {
    Secret dsn;       // defaults to postgres.dsn
    Secret password;  // content of password_file; empty: none
  } consumer;

  struct Kafka {
    std::vector<std::string> brokers;
    Secret password;             // content of password_file, for sasl.password; empty: none
    std::string progress_topic;  // never empty after load()
    // Properties for librdkafka besides those that the relay sets, sorted by name; no secrets.
    std::vector<std::pair<std::string, std::string>> properties;
    // Passwords and keys from the environment.
    std::vector<std::pair<std::string, Secret>> secret_properties;
  } kafka;

  struct Topics {
    std::vector<std::string> allow;  // names, prefixes ending in *, or "*"
    Millis missing_after{0};
  } topics;

  struct Delivery {
    KeyOrder order = KeyOrder::key;
    OnLostProgress on_lost_progress = OnLostProgress::resend;
    std::int64_t batch_messages_max = 0;
    std::int64_t batch_bytes_max = 0;
    std::int64_t message_bytes_max = 0;
  } delivery;

  struct Poll {
    Millis idle{0};
  } poll;

  struct Lease {
    Millis ttl{0};
  } lease;

  struct Retention {
    Millis keep{0};
    std::int64_t prune_rows_per_second = 0;
  } retention;

  struct Log {
    log::Format format = log::Format::text;
    log::Level level = log::Level::info;
  } log;

  std::string file;  // the file that was read; empty: the environment alone
};

namespace config {

// The variables whose names begin with OUTBOX_RELAY_. A map, not a lookup function, so that
// mistyped names are detected.
using Environment = std::map<std::string, std::string>;
Environment process_environment();

// Every option at its default; required options are empty.
Config defaults();

// The files that are looked for without --config.
inline constexpr std::array<std::string_view, 2> default_files = {"/etc/outbox-relay/relay.toml",
                                                                  "./relay.toml"};

// The first of them that exists; nullopt: none does.
std::optional<std::string> default_file();

// Which required options must be set: all, or only those of [postgres], for commands that use the
// database alone.
enum class Required { all, postgres };

// Reads `file` (or default_file(), if there is one), then the environment, which takes precedence;
// kafka.properties are merged name by name. A variable that is set but empty counts as not set.
//
// One error (Fault::usage) contains all errors of both, in the order of the file, each as
// `file:line:column: what` or `VARIABLE: what` and a line `HINT: fix`. No text contains a secret.
// If the file cannot be parsed, only that and the errors of the environment are reported.
Result<Config> load(const std::optional<std::string>& file, const Environment& environment,
                    Required required = Required::all);

}  // namespace config
}  // namespace relay
