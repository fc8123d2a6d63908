// SPDX-License-Identifier: Apache-2.0
// Gathering for `trace`: what the database and Kafka know about a message.
#pragma once

#include <optional>
#include <pqxx/pqxx>
#include <string>

#include "relay/commands/context.h"
#include "relay/commands/json.h"

namespace relay {

// Which messages: exactly one of the three is set.
struct TraceSelection {
  std::optional<std::string> id;
  std::optional<std::string> key;  // the deduplication key
  std::optional<std::int64_t> seq;
};

// The committed messages that are selected, a row each.
Result<pqxx::result> find_messages(postgres::PqxxSession& control, const TraceSelection& selection);

// What was found out about one message.
struct TracedMessage {
  Json json;           // all fields but explanation, consumed and effects
  int code = 0;        // the exit code: not 0 if Kafka does not have a delivered message, or failed
  std::string holder;  // the relay that holds the lease; empty: none
  bool due = false;    // of a scheduled message
};

// Looks for what became of a row of find_messages(). Reads a delivered message back from Kafka.
Result<TracedMessage> look_up_message(const Config& config, postgres::PqxxSession& control,
                                      const pqxx::row& row);

}  // namespace relay
