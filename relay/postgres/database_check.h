// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "relay/base/check_result.h"
#include "relay/core/ports.h"
#include "relay/postgres/options.h"
#include "relay/postgres/pqxx_session.h"

namespace relay::postgres {

// What `check` says of the database: all that check_database() refuses, and settings that would
// break a guarantee without being refused. Changes nothing. `here` is filled as far as the startup
// checks found out.
std::vector<CheckResult> inspect_database(PqxxSession& control, const Options& options,
                                          Identity& here);

}  // namespace relay::postgres
