// SPDX-License-Identifier: Apache-2.0
// What the commands on parked messages share.
#pragma once

#include <pqxx/pqxx>
#include <string>

#include "relay/commands/json.h"

namespace relay {

// Columns of outbox.parked p that the role outbox_observer may read: no key, headers or payload.
std::string parked_columns();
inline constexpr int parked_column_count = 14;

// A row of those columns.
Json parked_json(const pqxx::row& row);

}  // namespace relay
