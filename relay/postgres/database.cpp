// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/database.h"

#include <utility>

#include "relay/postgres/connection.h"
#include "relay/postgres/startup_checks.h"

namespace relay::postgres {

Result<Identity> PgDatabase::connect() {
  use(nullptr);
  control_.reset();
  auto connection =
      connection_string(options_.dsn, options_.password, "outbox-relay " + options_.relay);
  if (!connection) return connection.error();
  auto control = PqxxSession::connect(*connection, options_.statement_limit(), options_.pooler);
  if (!control) return with_password_source(control.error(), options_.dsn, options_.password);
  // Before anything is looked at: through a pooler, from here on every read finds out whether the
  // server is another.
  auto hot = StreamSession::connect(*connection, options_.pooler);
  if (!hot) return hot.error();
  if (auto r = check_pooler(**control, **hot, options_); !r) return r.error();
  auto identity = check_database(**control, options_);
  if (!identity) return identity;
  control_ = std::move(*control);
  use(std::move(*hot));
  identity_ = *identity;
  return identity;
}

void PgDatabase::use(std::unique_ptr<StreamSession> hot) {
  hot_ = std::move(hot);
  ++generation_;
}

}  // namespace relay::postgres
