// SPDX-License-Identifier: Apache-2.0
// Errors as values: what went wrong, whose fault it is, and what the caller may do about it.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace relay {

// Whose fault it is. This, and nothing else, decides the answer: park the message, quarantine the
// topic, stall, or stop.
enum class Fault {
  message,   // this one message can never be sent as it is: park it
  topic,     // the topic is missing, forbidden or not allowed: park by topic
  kafka,     // the cluster is away or unable: stall and probe
  postgres,  // the database is away or unable: stall and probe
  usage,     // configuration or command line
  refused,   // going on could break a guarantee: stop, and say why
  fenced,    // somebody else holds the lease or the transactional id
  absent,    // what was asked for does not exist
};

const char* to_string(Fault fault);

// The exit code of a command that ends with this fault (see docs/commands.md).
int exit_code(Fault fault);

// An error is complete in itself: `what` names the place, `hint` the remedy.
struct Error {
  Fault fault;
  std::string what;
  std::string hint = {};
  bool in_doubt = false;  // the other side may have done it: read the token back before repeating
  bool connection_lost = false;  // the connection that was used is unusable
  bool may_pass = false;         // refused, by a server that may answer otherwise a moment later

  // "what", then a line "HINT: hint" if there is one.
  std::string text() const;
};

// A value or an error. `Result<void>` carries only the error.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  explicit operator bool() const { return state_.index() == 0; }
  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }
  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}

  explicit operator bool() const { return !error_; }
  const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};

}  // namespace relay
