// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "relay/core/ports.h"
#include "relay/postgres/options.h"
#include "relay/postgres/session.h"

namespace outbox::postgres {

// Looks at everything in the database that could break a promise, and says which database it is. Made at each connect.
//   refused    a promise could not be kept here; the text names what and the remedy.
//   postgres   a standby, or unreachable: may pass by itself.
Result<Identity> guard_database(Control& control, const Options& options);

// The installed version of the schema: nullopt when there is none.
Result<std::optional<int>> installed_schema(Control& control);

}  // namespace outbox::postgres
