// SPDX-License-Identifier: Apache-2.0
// What statements look like through a pooler in transaction mode, where each transaction may run on
// another backend.
//
// A statement and all that it relies on are then one simple query, which the server runs as one
// transaction: the settings, made for this transaction only, and the statement with its parameters
// as literals. It ends by itself, also when it fails, so no ROLLBACK is owed to a backend that
// somebody else gets next.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace relay::postgres {

enum class Pooler { none, transaction };

using Parameter = std::optional<std::string>;  // nullopt: NULL

// The SET statements that every session of the relay begins with; `transaction`: that every
// transaction begins with.
std::string session_settings();
std::string transaction_settings();

// `sql` with each $n replaced by the n-th parameter as a literal, which means the same whatever
// standard_conforming_strings is. Leaves alone what stands in strings, quoted names and comments.
// REQUIRES: no $n without a parameter; UTF-8.
std::string with_literals(const std::string& sql, const std::vector<Parameter>& parameters);

// A parameter as text.
inline Parameter text_of(const Parameter& p) { return p; }
inline Parameter text_of(const std::string& s) { return s; }
inline Parameter text_of(const char* s) { return s == nullptr ? Parameter() : Parameter(s); }
inline Parameter text_of(bool b) { return std::string(b ? "t" : "f"); }
template <std::integral T>
Parameter text_of(T n) {
  return std::to_string(n);
}

// The backend that ran a transaction. No other ever has the same two, on this server or elsewhere.
struct Backend {
  std::string pid;
  std::string started_us;
  bool operator==(const Backend&) const = default;
};

// The name of the first column of what serving_backend_sql() returns: pid and start.
extern const char* const backend_column;

// Asks which backend runs this transaction, and names it `backend_tag`, in outbox_relay.session,
// until the transaction ends. Raises an error that is_replaced() knows unless one of `before` is
// still there: while a process of a server lives, the server has not crashed.
std::string serving_backend_sql(const std::vector<Backend>& before, const std::string& backend_tag);
bool is_replaced(const std::string& message);

}  // namespace relay::postgres
