// SPDX-License-Identifier: Apache-2.0
// Statements with parameters, for every version of libpqxx.
#pragma once

#include <pqxx/pqxx>
#include <string_view>

namespace outbox {

// libpqxx 7.9 has another name for a statement with parameters.
template <class... Args>
pqxx::result run(pqxx::transaction_base& tx, const char* sql, const Args&... args) {
#if PQXX_VERSION_MAJOR > 7 || (PQXX_VERSION_MAJOR == 7 && PQXX_VERSION_MINOR >= 9)
  return tx.exec(sql, pqxx::params{args...});
#else
  return tx.exec_params(sql, args...);
#endif
}

// libpqxx 6 sends no SAVEPOINT before a statement with parameters: abort() of the subtransaction would then undo nothing.
inline void begin_in_earnest([[maybe_unused]] pqxx::dbtransaction& tx) {
#if PQXX_VERSION_MAJOR < 7
  if (dynamic_cast<pqxx::subtransaction*>(&tx) != nullptr) tx.exec("select");
#endif
}

inline bool has_zero_byte(std::string_view text) { return text.find('\0') != std::string_view::npos; }

}  // namespace outbox
