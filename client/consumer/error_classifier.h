// SPDX-License-Identifier: Apache-2.0
// Classifies an exception of a transaction: message, conflict, timeout, database or connection.
//
// The class alone determines the reaction. Exceptions of libpqxx do not propagate beyond this file.
// Threads: pure functions.
#pragma once

#include <exception>
#include <string>

namespace outbox::consumer {

// Cause of a failed transaction, and the reaction to it.
enum class Fault {
  message,     // the data of a message: park the message
  conflict,    // a concurrent transaction: repeat
  timeout,     // the server ended a statement or transaction: repeat with fewer messages
  database,    // the state or configuration of the server: back off, and repeat
  connection,  // as `database`, on a new connection; the inbox resolves unknown commit outcomes
};

struct Failure {
  Fault fault;
  std::string what;
};

// Classifies an exception thrown in a transaction.
Failure classify(std::exception_ptr thrown);

}  // namespace outbox::consumer
