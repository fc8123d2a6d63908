// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace outbox::postgres {

// The first part of every write of the relay: `with fence as (…)`, a row with the epoch if the
// lease is ours, else none, and then the statement writes nothing. `epoch` and `holder` are
// parameters.
//
// The row lock makes a take-over wait for a write under way, and then see it; comparing the epoch
// alone would let the write appear after the take-over. With `renewed_by`, an interval, the lease
// is renewed as well.
std::string fence_sql(const char* epoch, const char* holder, const char* renewed_by = nullptr);

}  // namespace outbox::postgres
