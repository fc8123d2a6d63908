// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/session.h"

#include <poll.h>

#include <algorithm>
#include <map>

namespace outbox::postgres {
namespace {

void append_quoted(std::string& out, const std::string& keyword, const std::string& value) {
  out += keyword + "='";
  for (const char c : value) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  out += "' ";
}

constexpr std::size_t backends_max = 4;  // the pooler does not close so many at once

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

}  // namespace

Result<std::string> connection_string(const Secret& dsn, const Secret& password, const std::string& application) {
  std::map<std::string, std::string> values = {
      {"connect_timeout", "5"},      {"keepalives_idle", "10"},      {"keepalives_interval", "5"},
      {"keepalives_count", "3"},     {"tcp_user_timeout", "20000"},  {"application_name", application},
  };
  char* message = nullptr;
  const Owned<PQconninfoOption, PQconninfoFree> given(PQconninfoParse(dsn.reveal().c_str(), &message));
  if (!given) {
    // libpq's message can quote the string, and the string can hold a password.
    PQfreemem(message);
    return Error{Fault::usage, "postgres.dsn is no valid connection string",
                 "write it as \"host=… dbname=… user=…\" or as postgresql://user@host/database"};
  }
  for (const PQconninfoOption* o = given.get(); o->keyword != nullptr; ++o) {
    if (o->val != nullptr) values[o->keyword] = o->val;
  }
  values["client_encoding"] = "UTF8";  // what statements are written in, and their answers are compared in
  if (!password.reveal().empty()) values["password"] = password.reveal();
  std::string out;
  for (const auto& [keyword, value] : values) append_quoted(out, keyword, value);
  return out;
}

Error error_of(const std::string& doing, const std::string& message, const std::string& sqlstate, bool connection_lost) {
  Error e{Fault::postgres, "PostgreSQL, " + doing + ": " + trimmed(message)};
  e.connection_lost = connection_lost;
  const std::string_view state = sqlstate;
  if (is_replaced(message)) {
    e.what = "PostgreSQL, " + doing + ": the server is another or was restarted, or the pooler closed all connections that read before";
    e.hint = "if it comes often, raise server_lifetime and server_idle_timeout of pgbouncer";
    e.connection_lost = true;
  } else if (state == "42501") {
    e.fault = Fault::refused;
    e.hint = "grant the role outbox_relay to the relay's user, or run `outbox-relay init` to renew the grants";
  } else if (state == "42P01" || state == "3F000" || state == "42703" || state == "42883") {
    e.fault = Fault::refused;
    e.hint = "run `outbox-relay init` in this database";
  } else if (state == "26000" || state == "42P05") {
    e.hint = "if there is a pooler in transaction mode, set postgres.pooler = \"transaction\"";
  } else if (state.starts_with("28")) {
    e.hint = "check the user, the password file and pg_hba.conf";
  } else if (state.starts_with("3D")) {
    e.hint = "the database in postgres.dsn does not exist";
  } else if (state == "25006" || message.find("mode during recovery") != std::string::npos) {
    e.hint = "this server is a read-only standby; point postgres.dsn at the primary, or add target_session_attrs=read-write";
  }
  return e;
}

// Session --------------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<Session>> Session::connect(const std::string& connection, Pooler pooler) {
  PgConn conn(PQconnectdb(connection.c_str()));
  if (!conn || PQstatus(conn.get()) != CONNECTION_OK) {
    return error_of("connecting", conn ? PQerrorMessage(conn.get()) : "out of memory", "", true);
  }
  std::unique_ptr<Session> session(new Session(std::move(conn), pooler));
  PQsetNoticeReceiver(session->conn_.get(), &Session::on_notice, session.get());
  if (auto r = session->begin(); !r) return r.error();
  if (PQsetnonblocking(session->conn_.get(), 1) != 0) return session->lost("going non-blocking");
  return session;
}

Result<void> Session::begin() {
  const Deadline deadline(Millis{10'000});
  const bool pooled = pooler_ == Pooler::transaction;
  const std::string mark = "select pg_catalog.set_config('outbox_relay.session', '" + marker_ + "', false)";
  auto first = query(pooled ? "select 1" : session_settings() + "; " + mark, deadline);
  if (!first) return first.error();
  if (pooled && (backends_.empty() || backends_.front().started_us.empty())) {
    return Error{Fault::refused, "the relay's user may not see in pg_stat_activity when its own backend started",
                 "is there an ALTER ROLE … SET role? Through a pooler, the relay must act as the user that logs in"};
  }
  return {};
}

bool Session::send(const std::string& sql) {
  if (pooler_ == Pooler::none) return PQsendQuery(conn_.get(), sql.c_str()) == 1;
  return PQsendQuery(conn_.get(), (transaction_settings() + serving_backend_sql(backends_, marker_) + sql).c_str()) == 1;
}

PgResult Session::next() {
  PgResult result(PQgetResult(conn_.get()));
  if (pooler_ == Pooler::transaction && PQntuples(result.get()) == 1 && std::string_view(PQfname(result.get(), 0)) == backend_column) {
    const Backend served{PQgetvalue(result.get(), 0, 0), PQgetvalue(result.get(), 0, 1)};
    std::erase(backends_, served);
    backends_.insert(backends_.begin(), served);
    if (backends_.size() > backends_max) backends_.pop_back();
  }
  return result;
}

void Session::on_notice(void* self, const PGresult* notice) {
  auto* const session = static_cast<Session*>(self);
  const char* const severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
  if (!session->warning_ && severity != nullptr && std::string_view(severity) == "WARNING") {
    session->warning_ = trimmed(PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY));
  }
}

std::optional<std::string> Session::take_warning() { return std::exchange(warning_, std::nullopt); }

Error Session::lost(const char* doing) const {
  Error e = error_of(doing, PQerrorMessage(conn_.get()), "", true);
  e.in_doubt = true;
  return e;
}

Result<PgResult> Session::query(const std::string& sql, Deadline deadline) {
  if (!send(sql)) return lost("sending a query");
  return finish("query", deadline);
}

Result<PgResult> Session::execute(const char* name, const std::string& sql, const std::vector<Parameter>& parameters, Deadline deadline) {
  if (pooler_ == Pooler::transaction) return send(with_literals(sql, parameters)) ? finish(name, deadline) : lost(name);
  if (std::find(prepared_.begin(), prepared_.end(), name) == prepared_.end()) {
    if (PQsendPrepare(conn_.get(), name, sql.c_str(), 0, nullptr) != 1) return lost(name);
    if (auto r = finish(name, deadline); !r) return r;
    prepared_.emplace_back(name);
  }
  std::vector<const char*> values;
  values.reserve(parameters.size());
  for (const auto& p : parameters) values.push_back(p ? p->c_str() : nullptr);
  const int sent = PQsendQueryPrepared(conn_.get(), name, static_cast<int>(values.size()), values.data(), nullptr, nullptr, 0);
  if (sent != 1) return lost(name);
  return finish(name, deadline);
}

Result<PgResult> Session::finish(const char* doing, Deadline deadline) {
  PgResult last;
  while (true) {
    const int unsent = PQflush(conn_.get());
    if (unsent < 0) return lost(doing);
    while (unsent == 0 && PQisBusy(conn_.get()) == 0) {
      PgResult next = this->next();
      if (!next) {
        if (!last || PQstatus(conn_.get()) != CONNECTION_OK) return lost(doing);
        const auto status = PQresultStatus(last.get());
        if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) return last;
        const char* const state = PQresultErrorField(last.get(), PG_DIAG_SQLSTATE);
        return error_of(doing, PQresultErrorMessage(last.get()), state != nullptr ? state : "", false);
      }
      // After an error nothing more of the query is run: its result is the one that counts.
      if (!last || PQresultStatus(last.get()) != PGRES_FATAL_ERROR) last = std::move(next);
    }
    if (deadline.passed()) {
      Error e{Fault::postgres, std::string("PostgreSQL, ") + doing + ": no answer in time"};
      e.in_doubt = e.connection_lost = true;
      return e;
    }
    pollfd p{fd(), static_cast<short>(unsent > 0 ? POLLIN | POLLOUT : POLLIN), 0};
    if (::poll(&p, 1, std::max(1, deadline.left_ms())) > 0 && (p.revents & ~POLLOUT) != 0 &&
        PQconsumeInput(conn_.get()) != 1) {
      return lost(doing);
    }
  }
}

// Control --------------------------------------------------------------------------------------------------------------

namespace {

// The first warning that a connection got.
struct FirstWarning {
  void note(std::string_view message) noexcept {
    try {
      if (message.starts_with("WARNING") && first.empty()) first = trimmed(std::string(message));
    } catch (const std::exception&) {
      first.assign("W");  // short enough not to allocate
    }
  }
  std::string first;
};

}  // namespace

// Kept apart from Control, because libpqxx before 7.9 knows its address as long as the connection lives, and later versions share it.
#if OUTBOX_PQXX_SINCE_7_9
class Control::Notices : public FirstWarning {
 public:
  static std::shared_ptr<Notices> of(pqxx::connection& c) {
    auto notices = std::make_shared<Notices>();
    c.set_notice_handler([notices](pqxx::zview message) { notices->note(message); });
    return notices;
  }
};
#else
class Control::Notices : public FirstWarning, public pqxx::errorhandler {
 public:
  explicit Notices(pqxx::connection& c) : pqxx::errorhandler(c) {}
  static std::shared_ptr<Notices> of(pqxx::connection& c) { return std::make_shared<Notices>(c); }
  bool operator()(const char message[]) noexcept override {
    note(message);
    return false;
  }
};
#endif

Result<std::unique_ptr<Control>> Control::connect(const std::string& connection, std::optional<Millis> limit, Pooler pooler) {
  std::unique_ptr<Control> control(new Control);
  control->pooler_ = pooler;
  try {
    control->conn_ = std::make_unique<pqxx::connection>(connection);
#if PQXX_VERSION_MAJOR < 7
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    control->conn_->inhibit_reactivation(true);  // a silent reconnect would lose the settings below
#pragma GCC diagnostic pop
#endif
    control->notices_ = Notices::of(*control->conn_);
    if (limit) control->watchdog_ = std::make_unique<Watchdog>(control->conn_->sock(), *limit);
    if (pooler == Pooler::transaction) return control;
    const Watchdog::Call bounded(control->watchdog_.get());
    pqxx::nontransaction tx(*control->conn_);
    tx.exec(session_settings());
  } catch (const std::exception& e) {
    Error error = translate("connecting", e);
    error.connection_lost = true;
    return error;
  }
  return control;
}

std::optional<std::string> Control::take_warning() {
  if (notices_->first.empty()) return std::nullopt;
  return std::exchange(notices_->first, {});
}

Result<void> Control::script(const char* doing, const std::vector<std::string>& statements) {
  try {
    pqxx::work tx(*conn_);
    if (pooler_ == Pooler::transaction) tx.exec(transaction_settings());
    for (const auto& s : statements) tx.exec(s);
    tx.commit();
    return {};
  } catch (const std::exception& e) {
    return translate(doing, e);
  }
}

Result<void> Control::transact(const char* doing, const std::function<Result<void>(const Execute&)>& body) {
  try {
    pqxx::work tx(*conn_);
    if (pooler_ == Pooler::transaction) tx.exec(transaction_settings());
    if (auto r = body([&](const std::string& sql) { return tx.exec(sql); }); !r) return r.error();
    tx.commit();
    return {};
  } catch (const std::exception& e) {
    return translate(doing, e);
  }
}

// libpqxx 6 leaves the code out where it throws a class of its own.
static std::string sqlstate_of(const pqxx::sql_error& e) {
  if (!e.sqlstate().empty()) return e.sqlstate();
  if (dynamic_cast<const pqxx::insufficient_privilege*>(&e) != nullptr) return "42501";
  if (dynamic_cast<const pqxx::undefined_table*>(&e) != nullptr) return "42P01";
  if (dynamic_cast<const pqxx::undefined_column*>(&e) != nullptr) return "42703";
  if (dynamic_cast<const pqxx::undefined_function*>(&e) != nullptr) return "42883";
  return {};
}

Error Control::translate(const char* doing, const std::exception& e) {
  if (dynamic_cast<const pqxx::in_doubt_error*>(&e) != nullptr) {
    Error error = error_of(doing, e.what(), "", true);
    error.in_doubt = true;
    return error;
  }
  if (const auto* sql = dynamic_cast<const pqxx::sql_error*>(&e)) {
    const std::string state = sqlstate_of(*sql);
    return error_of(doing, e.what(), state, state.starts_with("57P") || state.starts_with("08"));
  }
  Error error = error_of(doing, e.what(), "", true);
  error.in_doubt = true;  // a statement outside a block may have been committed before the connection broke
  return error;
}

}  // namespace outbox::postgres
