// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/connection.h"

#include <map>

#include "relay/postgres/pooler.h"

namespace relay::postgres {
namespace {

void append_quoted(std::string& out, const std::string& keyword, const std::string& value) {
  out += keyword + "='";
  for (const char c : value) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  out += "' ";
}

}  // namespace

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

Error with_password_source(Error error, const Secret& dsn, const Secret& password) {
  if (error.what.find("password") == std::string::npos) return error;
  const outbox::common::Owned<PQconninfoOption, PQconninfoFree> given(
      PQconninfoParse(dsn.reveal().c_str(), nullptr));
  const auto in_dsn = [&] {
    for (const PQconninfoOption* o = given.get(); o != nullptr && o->keyword != nullptr; ++o) {
      if (std::string_view(o->keyword) == "password" && o->val != nullptr) return true;
    }
    return false;
  };
  if (!password.empty()) {
    error.hint = "the password was read from the file " + password.origin();
  } else if (in_dsn()) {
    error.hint = "the password was that of the dsn";
  } else {
    error.hint =
        "neither password_file nor the dsn has a password, so that libpq looked in PGPASSWORD and "
        "in ~/.pgpass (PGPASSFILE)";
  }
  return error;
}

Result<std::string> connection_string(const Secret& dsn, const Secret& password,
                                      const std::string& application) {
  std::map<std::string, std::string> values = {
      {"connect_timeout", "5"},  {"keepalives_idle", "10"},     {"keepalives_interval", "5"},
      {"keepalives_count", "3"}, {"tcp_user_timeout", "20000"}, {"application_name", application},
  };
  char* message = nullptr;
  const outbox::common::Owned<PQconninfoOption, PQconninfoFree> given(
      PQconninfoParse(dsn.reveal().c_str(), &message));
  if (!given) {
    // libpq's message can quote the string, and the string can hold a password.
    PQfreemem(message);
    return Error{Fault::usage, "postgres.dsn is no valid connection string",
                 "write it as \"host=… dbname=… user=…\" or as postgresql://user@host/database"};
  }
  for (const PQconninfoOption* o = given.get(); o->keyword != nullptr; ++o) {
    if (o->val != nullptr) values[o->keyword] = o->val;
  }
  values["client_encoding"] =
      "UTF8";  // what statements are written in, and their answers are compared in
  if (!password.reveal().empty()) values["password"] = password.reveal();
  std::string out;
  for (const auto& [keyword, value] : values) append_quoted(out, keyword, value);
  return out;
}

Error error_of(const std::string& doing, const std::string& message, const std::string& sqlstate,
               bool connection_lost) {
  Error e{Fault::postgres, "PostgreSQL, " + doing + ": " + trimmed(message)};
  e.connection_lost = connection_lost;
  const std::string_view state = sqlstate;
  if (is_replaced(message)) {
    e.what = "PostgreSQL, " + doing +
             ": the server is another or was restarted, or the pooler closed all connections that "
             "read before";
    e.hint = "if it comes often, raise server_lifetime and server_idle_timeout of pgbouncer";
    e.connection_lost = true;
  } else if (state == "42501") {
    e.fault = Fault::refused;
    e.hint =
        "grant the role outbox_relay to the relay's user, or run `outbox-relay init` to renew the "
        "grants";
  } else if (state == "42P01" || state == "3F000" || state == "42703" || state == "42883") {
    e.fault = Fault::refused;
    e.hint = "run `outbox-relay init` in this database";
  } else if (state == "26000" || state == "42P05") {
    e.hint = "if there is a pooler in transaction mode, set postgres.pooler = \"transaction\"";
  } else if (state.starts_with("3D")) {
    e.hint = "the database in postgres.dsn does not exist";
  } else if (state == "25006" || message.find("mode during recovery") != std::string::npos) {
    e.hint =
        "this server is a read-only standby; point postgres.dsn at the primary, or add "
        "target_session_attrs=read-write";
  }
  return e;
}

}  // namespace relay::postgres
