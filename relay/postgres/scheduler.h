// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "relay/postgres/options.h"
#include "relay/postgres/pqxx_session.h"

namespace relay::postgres {

// Moves scheduled messages that are due into outbox.message, at most `rows`; returns how many.
// `epoch` and options.holder must hold the lease, or none is moved.
Result<std::int64_t> move_due(PqxxSession& control, const Options& options, std::int64_t epoch,
                              std::int64_t rows);

}  // namespace relay::postgres
