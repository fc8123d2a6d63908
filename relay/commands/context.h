// SPDX-License-Identifier: Apache-2.0
// What commands need of PostgreSQL and Kafka, made from the configuration.
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

namespace relay {

postgres::Options postgres_options(const Config& config);
kafka::Options kafka_options(const Config& config);

// Longer than the statement_timeout of the session, which a server that hangs does not enforce.
constexpr Millis command_statement_max{11 * 60'000};

// A session for a command. A statement that takes longer than `limit` loses the session.
Result<std::unique_ptr<postgres::PqxxSession>> open_control(
    const Config& config, std::optional<Millis> limit = command_statement_max);

// A session like the one of the relay that reads and opens batches.
Result<std::unique_ptr<postgres::StreamSession>> open_session(const Config& config);

// A session for the inbox and the effect ledger of the consumers.
Result<std::unique_ptr<postgres::PqxxSession>> open_consumer_control(const Config& config);

// Ids of messages as an array of PostgreSQL.
//   usage   one of them is not an id.
Result<std::string> id_array(const std::vector<std::string>& ids);

// This process, as outbox.lease.holder: host name, process id, and a random part, because both can
// be reused.
std::string holder_name();

}  // namespace relay
