// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "relay/core/ports.h"
#include "relay/postgres/migrations.h"
#include "relay/postgres/options.h"
#include "relay/postgres/pqxx_session.h"
#include "relay/postgres/stream_session.h"

namespace relay::postgres {

// Looks at everything in the database that could break a guarantee, and says which database it is.
// At each connect.
//   refused    a guarantee could not be kept here; the text names what and the remedy.
//   postgres   a standby, or unreachable: may pass by itself.
Result<Identity> check_database(PqxxSession& control, const Options& options);

// Looks whether there is what options.pooler says.
//   refused    both sessions share a backend, which they do through an idle pooler in transaction
//   mode, and it says there is none. postgres   the pooler closes each server connection behind a
//   transaction.
Result<void> check_pooler(PqxxSession& control, StreamSession& session, const Options& options);

// Which database this is; 0 in a part that a managed server forbids to ask for, if the user
// accepted that.
//   refused    it is forbidden, and the user did not.
Result<Identity> identify(PqxxSession& control, const Options& options);

// The installed version of `schema`: nullopt when there is none.
Result<std::optional<int>> installed_schema(PqxxSession& control, Schema schema);

}  // namespace relay::postgres
