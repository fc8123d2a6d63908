// SPDX-License-Identifier: Apache-2.0
// The configuration of one relay: typed, complete and checked, or not there at all.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "relay/base/clock.h"
#include "relay/base/error.h"
#include "relay/base/log.h"
#include "relay/base/secret.h"
#include "relay/core/mode.h"

namespace outbox {

// One member per option, nested by section; relay/config/options.cpp says what each means, its range and its default.
// A Config made by hand is zero and empty: begin with config::defaults().
struct Config {
  struct Relay {
    std::string name;
    Mode mode = Mode::exactly_once;
  } relay;

  struct Postgres {
    Secret dsn;       // may contain a password when it came from the environment
    Secret password;  // content of password_file; empty: none
    std::string pooler;
    bool allow_unguarded = false;
  } postgres;

  // Where the inbox and the effect ledger are that `trace` and `effects` look at.
  struct Consumer {
    Secret dsn;       // that of postgres, where nothing else is said
    Secret password;  // content of password_file; empty: none
  } consumer;

  struct Kafka {
    std::vector<std::string> brokers;
    Secret password;             // content of password_file, for sasl.password; empty: none
    std::string progress_topic;  // never empty after load()
    // What librdkafka is given besides the protocol's own settings, sorted by name; none of them is a secret …
    std::vector<std::pair<std::string, std::string>> properties;
    // … but these are: passwords and keys from the environment.
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

  std::string file;  // where it was read from; empty: from the environment alone
};

namespace config {

// The variables whose names begin with OUTBOX_RELAY_. A map and not a lookup function, so that a mistyped name is seen.
using Environment = std::map<std::string, std::string>;
Environment process_environment();

// Every option at its default; what is required is empty.
Config defaults();

// The file that is read without --config: /etc/outbox-relay/relay.toml, else ./relay.toml; nullopt: neither exists.
std::optional<std::string> default_file();

// Which of the required options must be there: all, or only those of [postgres], for what concerns a database without an outbox.
enum class Required { all, postgres };

// Reads `file` (or default_file(), if there is one), then the environment, which wins; kafka.properties are merged name
// by name. A variable that is set but empty counts as not set.
//
// One error (Fault::usage) carries every mistake of both, in the order of the file, each as `file:line:column: what` or
// `VARIABLE: what` and a line `HINT: remedy`. No text names a secret. When the file cannot be parsed at all, only that
// and the environment's mistakes are reported.
Result<Config> load(const std::optional<std::string>& file, const Environment& environment, Required required = Required::all);

}  // namespace config
}  // namespace outbox
