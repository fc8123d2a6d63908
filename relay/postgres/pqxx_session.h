// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <pqxx/pqxx>
#include <string>
#include <vector>

#include "relay/base/clock.h"
#include "relay/base/error.h"
#include "relay/postgres/pooler.h"
#include "relay/postgres/watchdog.h"

// libpqxx 7.9 has new names for statements with parameters and for those who listen to notices, and
// deprecates the old ones.
#define OUTBOX_PQXX_SINCE_7_9 \
  (PQXX_VERSION_MAJOR > 7 || (PQXX_VERSION_MAJOR == 7 && PQXX_VERSION_MINOR >= 9))

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
#if OUTBOX_PQXX_SINCE_7_9
      return tx.exec(sql, pqxx::params{args...});
#else
      return tx.exec_params(sql, args...);
#endif
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
