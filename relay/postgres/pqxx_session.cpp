// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/pqxx_session.h"

#include <utility>

#include "relay/postgres/connection.h"

namespace relay::postgres {

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

// Kept apart from PqxxSession, because libpqxx before 7.9 knows its address as long as the
// connection lives, and later versions share it.
#if OUTBOX_PQXX_SINCE_7_9
class PqxxSession::Notices : public FirstWarning {
 public:
  static std::shared_ptr<Notices> of(pqxx::connection& c) {
    auto notices = std::make_shared<Notices>();
    c.set_notice_handler([notices](pqxx::zview message) { notices->note(message); });
    return notices;
  }
};
#else
class PqxxSession::Notices : public FirstWarning, public pqxx::errorhandler {
 public:
  explicit Notices(pqxx::connection& c) : pqxx::errorhandler(c) {}
  static std::shared_ptr<Notices> of(pqxx::connection& c) { return std::make_shared<Notices>(c); }
  bool operator()(const char message[]) noexcept override {
    note(message);
    return false;
  }
};
#endif

Result<std::unique_ptr<PqxxSession>> PqxxSession::connect(const std::string& connection,
                                                          std::optional<Millis> limit,
                                                          Pooler pooler) {
  std::unique_ptr<PqxxSession> control(new PqxxSession);
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

std::optional<std::string> PqxxSession::take_warning() {
  if (notices_->first.empty()) return std::nullopt;
  return std::exchange(notices_->first, {});
}

Result<void> PqxxSession::script(const char* doing, const std::vector<std::string>& statements) {
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

Result<void> PqxxSession::transact(const char* doing,
                                   const std::function<Result<void>(const Execute&)>& body) {
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

Error PqxxSession::translate(const char* doing, const std::exception& e) {
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
  error.in_doubt =
      true;  // a statement outside a block may have been committed before the connection broke
  return error;
}

}  // namespace relay::postgres
