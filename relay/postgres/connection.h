// SPDX-License-Identifier: Apache-2.0
// What both kinds of session have in common: how they connect, and what the server's errors mean.
#pragma once

#include <libpq-fe.h>

#include <string>

#include "common/owned.h"
#include "relay/base/error.h"
#include "relay/base/secret.h"

namespace relay::postgres {

using PgConn = outbox::common::Owned<PGconn, PQfinish>;
using PgResult = outbox::common::Owned<PGresult, PQclear>;

// Returns the connection string of `dsn` with password, application name, keepalives and time-outs
// added where the user set none. Never print it.
Result<std::string> connection_string(const Secret& dsn, const Secret& password,
                                      const std::string& application);

// `error` of connecting with them, with a hint that names where the password came from if the login
// was refused.
Error with_password_source(Error error, const Secret& dsn, const Secret& password);

// An error for what the server or libpq said; `sqlstate` decides whose fault it is.
Error error_of(const std::string& doing, const std::string& message, const std::string& sqlstate,
               bool connection_lost);

// Without the line feed with which libpq ends its messages.
std::string trimmed(std::string text);

}  // namespace relay::postgres
