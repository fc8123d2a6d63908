// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <pqxx/pqxx>
#include <string>
#include <vector>

#include "common/pqxx_statement.h"
#include "relay/base/clock.h"
#include "relay/base/error.h"
#include "relay/postgres/pooler.h"
#include "relay/postgres/watchdog.h"

namespace relay::postgres {

// The control session: one libpqxx connection, for all statements beside the hot path. Carries the
// same settings as StreamSession, whatever ALTER ROLE or ALTER DATABASE say. Calls block; a
// Watchdog bounds them. Not thread safe.
class PqxxSession {
 public:
  // With a limit, a statement that takes longer costs the connection, and its outcome is in doubt.
  static Result<std::unique_ptr<PqxxSession>> connect(const std::string& connection,
                                                      std::optional<Millis> limit = std::nullopt,
                                                      Pooler pooler = Pooler::none);

  // Runs one statement outside a transaction block; `doing` names it in errors.
  template <class... Args>
  Result<pqxx::result> run(const char* doing, const std::string& sql, const Args&... args) {
    return translated(doing, [&] {
      pqxx::nontransaction tx(*conn_);
      if (pooler_ == Pooler::transaction)
        return tx.exec(transaction_settings() + with_literals(sql, {text_of(args)...}));
      return outbox::common::run(tx, sql.c_str(), args...);
    });
  }
  // Runs a script of several statements in one transaction.
  Result<void> script(const char* doing, const std::vector<std::string>& statements);

  // Runs `body` in one transaction, at READ COMMITTED like each of the session. An error that
  // `body` returns rolls back.
  using Execute = std::function<pqxx::result(const std::string&)>;
  Result<void> transact(const char* doing, const std::function<Result<void>(const Execute&)>& body);

  // The first warning since the last call, if any.
  std::optional<std::string> take_warning();

 private:
  class Notices;
  PqxxSession() = default;

  template <class F>
  Result<pqxx::result> translated(const char* doing, F&& f) {
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

}  // namespace relay::postgres
