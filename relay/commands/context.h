// SPDX-License-Identifier: Apache-2.0
// What every command begins with: the configuration, turned into what PostgreSQL and Kafka need.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "relay/base/clock.h"
#include "relay/config/config.h"
#include "relay/kafka/handle.h"
#include "relay/postgres/options.h"
#include "relay/postgres/pqxx_session.h"
#include "relay/postgres/stream_session.h"

namespace outbox {

postgres::Options postgres_options(const Config& config);
kafka::Options kafka_options(const Config& config);

// A statement of a command may take as long as the session's statement_timeout, which a server that hangs does not keep.
constexpr Millis command_statement_max{11 * 60'000};

// A session for a command that looks at the database, or changes it by hand. What takes longer than `limit` costs the session.
Result<std::unique_ptr<postgres::PqxxSession>> open_control(const Config& config, std::optional<Millis> limit = command_statement_max);

// A session like the one that reads and opens batches.
Result<std::unique_ptr<postgres::StreamSession>> open_session(const Config& config);

// A session for the inbox and the effect ledger of the consumers.
Result<std::unique_ptr<postgres::PqxxSession>> open_consumer_control(const Config& config);

// Ids of messages as PostgreSQL reads an array of them.
//   usage   one of them is no id.
Result<std::string> id_array(const std::vector<std::string>& ids);

// Prints the error to standard error and returns the exit code that belongs to it.
int report(const Error& error);

// This process, as outbox.lease.holder: host name, process id, and a random part, because both can be reused.
std::string holder_name();

}  // namespace outbox
