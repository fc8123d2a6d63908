// SPDX-License-Identifier: Apache-2.0
// What the commands on effects share: the columns, and the wording for operators.
#pragma once

#include <pqxx/pqxx>
#include <string>

#include "relay/commands/json.h"

namespace relay {

// Columns that the role effect_observer may read, without requests and responses, and their tables.
std::string effect_columns();
inline constexpr int effect_column_count = 22;
inline constexpr const char* from_effects =
    " from effect.effect e left join effect.unsettled u on u.id = e.id "
    "left join effect.attempt a on a.effect = e.id and a.epoch = e.epoch ";

// A row of those columns.
Json effect_json(const pqxx::row& row);

// What the provider answered last, or what is known about the last attempt.
std::string last_answer(const Json& effect);
// What happens next, by the rules of the ledger; empty: nothing.
std::string next_step(const Json& effect);

}  // namespace relay
