// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "relay/core/ports.h"
#include "relay/postgres/migrations.h"
#include "relay/postgres/options.h"
#include "relay/postgres/session.h"

namespace outbox::postgres {

// Looks at everything in the database that could break a promise, and says which database it is. Made at each connect.
//   refused    a promise could not be kept here; the text names what and the remedy.
//   postgres   a standby, or unreachable: may pass by itself.
Result<Identity> guard_database(Control& control, const Options& options);

// Looks whether there is what options.pooler says.
//   refused    both sessions share a backend, which they do through an idle pooler in transaction mode, and it says there is none.
//   postgres   the pooler closes each server connection behind a transaction.
Result<void> guard_pooler(Control& control, Session& session, const Options& options);

// Which database this is; 0 in a part that a managed server forbids to ask for, if the user accepted that.
//   refused    it is forbidden, and the user did not.
Result<Identity> identify(Control& control, const Options& options);

// The installed version of `schema`: nullopt when there is none.
Result<std::optional<int>> installed_schema(Control& control, Schema schema);

}  // namespace outbox::postgres
