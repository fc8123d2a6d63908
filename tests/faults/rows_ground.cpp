// SPDX-License-Identifier: Apache-2.0
// What happens to the tables, the transactions and the rights that the relay lives on.
#include "tests/faults/rows.h"

namespace outbox::faults {

std::vector<Row> ground_rows() { return {}; }

}  // namespace outbox::faults
