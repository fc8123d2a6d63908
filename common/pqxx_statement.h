// SPDX-License-Identifier: Apache-2.0
// Statements with parameters, portable across libpqxx 6.4 to 7.10.
//
// Parameters are passed as text, in the form that all these versions accept. Failure: exceptions of
// libpqxx. Uses the thread of the transaction; keeps no state.
#pragma once

#include <optional>
#include <pqxx/pqxx>
#include <string>
#include <string_view>

#include "common/hex.h"

// libpqxx 7.9 has new names for statements with parameters and for those who listen to notices, and
// deprecates the old ones.
#define OUTBOX_PQXX_SINCE_7_9 \
  (PQXX_VERSION_MAJOR > 7 || (PQXX_VERSION_MAJOR == 7 && PQXX_VERSION_MINOR >= 9))

namespace outbox::common {

template <class... Args>
pqxx::result run(pqxx::transaction_base& tx, const char* sql, const Args&... args) {
#if OUTBOX_PQXX_SINCE_7_9
  return tx.exec(sql, pqxx::params{args...});
#else
  return tx.exec_params(sql, args...);
#endif
}

// libpqxx 6 sends no SAVEPOINT before a statement with parameters, so that abort() of the
// subtransaction would undo nothing.
inline void begin_subtransaction([[maybe_unused]] pqxx::dbtransaction& tx) {
#if PQXX_VERSION_MAJOR < 7
  if (dynamic_cast<pqxx::subtransaction*>(&tx) != nullptr) tx.exec("select");
#endif
}

// NULL for an empty text, in the only form that all these versions accept. REQUIRES: `text`
// outlives the statement.
inline const char* null_if_empty(const std::string& text) {
  return text.empty() ? nullptr : text.c_str();
}

inline bool has_zero_byte(std::string_view text) {
  return text.find('\0') != std::string_view::npos;
}

// Text form of a bytea value.
inline std::string bytea(std::string_view bytes) { return "\\x" + hex(bytes); }

// Builds the text form of a PostgreSQL array of text or bytea.
class ArrayText {
 public:
  void add_null() { element() += "null"; }
  void add(std::string_view text) {
    std::string& out = element();
    out += '"';
    for (const char c : text) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    out += '"';
  }
  void add_bytes(const std::optional<std::string_view>& bytes) {
    if (bytes) {
      add(bytea(*bytes));
    } else {
      add_null();
    }
  }
  std::string text() const { return text_ + '}'; }

 private:
  std::string& element() {
    if (text_.size() > 1) text_ += ',';
    return text_;
  }
  std::string text_ = "{";
};

}  // namespace outbox::common
