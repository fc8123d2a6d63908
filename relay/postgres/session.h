// SPDX-License-Identifier: Apache-2.0
// The relay's two kinds of PostgreSQL session: a libpq one for the hot path (reading pages, opening batches) and a libpqxx one
// for everything else. Both carry the same settings, whatever ALTER ROLE or ALTER DATABASE say.
#pragma once

#include <libpq-fe.h>

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <pqxx/pqxx>
#include <string>
#include <vector>

#include "relay/base/clock.h"
#include "relay/base/error.h"
#include "relay/base/owned.h"
#include "relay/base/secret.h"
#include "relay/base/uuid.h"
#include "relay/postgres/pooler.h"
#include "relay/postgres/watchdog.h"

// libpqxx 7.9 has new names for statements with parameters and for those who listen to notices, and deprecates the old ones.
#define OUTBOX_PQXX_SINCE_7_9 (PQXX_VERSION_MAJOR > 7 || (PQXX_VERSION_MAJOR == 7 && PQXX_VERSION_MINOR >= 9))

namespace outbox::postgres {

using PgConn = Owned<PGconn, PQfinish>;
using PgResult = Owned<PGresult, PQclear>;

// The connection string of `dsn` with password, application name, keepalives and time-outs added where the user set none.
// Never print it.
Result<std::string> connection_string(const Secret& dsn, const Secret& password, const std::string& application);

// An error for what the server or libpq said; `sqlstate` decides whose fault it is.
Error error_of(const std::string& doing, const std::string& message, const std::string& sqlstate, bool connection_lost);

// One libpq session. Not thread safe.
class Session {
 public:
  static Result<std::unique_ptr<Session>> connect(const std::string& connection, Pooler pooler = Pooler::none);

  int fd() const { return PQsocket(conn_.get()); }
  // Names the backend behind this session: set there, as outbox_relay.session, it is gone with it. A process id would come
  // again after a restart of the server, and the one that libpq knows may be a pooler's invention. Through a pooler, it names all
  // backends that this session was given, as long as the server they belong to has not crashed: see serving_backend_sql().
  const std::string& marker() const { return marker_; }
  PGconn* raw() const { return conn_.get(); }

  // Sends a simple query; its results are those of next(), with some in front through a pooler. False: the connection is broken.
  bool send(const std::string& sql);
  PgResult next();

  // Runs a simple query to its end and returns the last result. An answer that does not come in time makes the session
  // unusable, and the error in doubt.
  Result<PgResult> query(const std::string& sql, Deadline deadline);

  // Runs a statement, prepared on this session under `name` when it is first used, unless there is a pooler.
  Result<PgResult> execute(const char* name, const std::string& sql, const std::vector<Parameter>& parameters, Deadline deadline);

  // The first warning since the last call, if any. A cancelled wait for the synchronous standby shows only here.
  std::optional<std::string> take_warning();

 private:
  Session(PgConn conn, Pooler pooler) : conn_(std::move(conn)), pooler_(pooler) {}
  Result<void> begin();
  Result<PgResult> finish(const char* doing, Deadline deadline);
  Error lost(const char* doing) const;
  static void on_notice(void* self, const PGresult* notice);

  PgConn conn_;
  const Pooler pooler_;
  std::vector<Backend> backends_;  // through a pooler: that served last, all of one life of the server; the last one first
  const std::string marker_ = Uuid::random().text();
  std::optional<std::string> warning_;
  std::vector<std::string> prepared_;
};

// One libpqxx session for the cold paths. Not thread safe.
class Control {
 public:
  // With a limit, a statement that takes longer costs the connection, and its outcome is in doubt.
  static Result<std::unique_ptr<Control>> connect(const std::string& connection, std::optional<Millis> limit = std::nullopt,
                                                  Pooler pooler = Pooler::none);

  // Runs one statement outside a transaction block; `doing` names it in errors.
  template <class... Args>
  Result<pqxx::result> run(const char* doing, const std::string& sql, const Args&... args) {
    return guarded(doing, [&] {
      pqxx::nontransaction tx(*conn_);
      if (pooler_ == Pooler::transaction) return tx.exec(transaction_settings() + with_literals(sql, {text_of(args)...}));
#if OUTBOX_PQXX_SINCE_7_9
      return tx.exec(sql, pqxx::params{args...});
#else
      return tx.exec_params(sql, args...);
#endif
    });
  }
  // Runs a script of several statements in one transaction.
  Result<void> script(const char* doing, const std::vector<std::string>& statements);

  // Runs `body` in one transaction, at READ COMMITTED like each of the session. An error that `body` returns rolls back.
  using Execute = std::function<pqxx::result(const std::string&)>;
  Result<void> transact(const char* doing, const std::function<Result<void>(const Execute&)>& body);

  // The first warning since the last call, if any.
  std::optional<std::string> take_warning();

 private:
  class Notices;
  Control() = default;

  template <class F>
  Result<pqxx::result> guarded(const char* doing, F&& f) {
    try {
      const Watchdog::Call bounded(watchdog_.get());
      return f();
    } catch (const std::exception& e) {
      return translate(doing, e);
    }
  }
  static Error translate(const char* doing, const std::exception& e);

  Pooler pooler_ = Pooler::none;
  std::unique_ptr<pqxx::connection> conn_;
  std::shared_ptr<Notices> notices_;
  std::unique_ptr<Watchdog> watchdog_;  // null: no limit
};

}  // namespace outbox::postgres
