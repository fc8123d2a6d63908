// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <string>

namespace outbox::consumer {

// Whose fault it is that a transaction failed. This, and nothing else, decides the answer.
enum class Fault {
  message,     // of what was written in it: park the message
  conflict,    // of another transaction at the same time: repeat it
  database,    // of the server's state or set-up: wait, and repeat it
  connection,  // as `database`, on a new connection; a commit under way is in doubt, which the inbox resolves
};

struct Failure {
  Fault fault;
  std::string what;
};

// What was thrown in a transaction, and what that means. Exceptions of libpqxx go no further than this.
Failure classify(std::exception_ptr thrown);

}  // namespace outbox::consumer
