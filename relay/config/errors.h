// SPDX-License-Identifier: Apache-2.0
// All errors of a configuration, collected so that they are reported at once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "relay/base/error.h"

namespace relay::config {

// Where an error is: a position in a file, or (line 0) an environment variable or the whole file.
struct Position {
  std::string source;
  std::uint32_t line = 0;
  std::uint32_t column = 0;

  bool in_file() const { return line > 0; }
  // "relay.toml:3:8" or "OUTBOX_RELAY_POLL_IDLE"
  std::string text() const;
};

// An error of one value: what follows the value in a sentence ("has no unit"), and how to fix it.
Error usage_error(std::string what, std::string hint);

class Errors {
 public:
  void add(Position position, std::string what, std::string hint);
  bool empty() const { return all_.empty(); }

  // One error for all: those of the file by position, then the others in the order of add(). The
  // last hint becomes the hint of the result, so that text() prints a HINT line after each of them.
  // REQUIRES: !empty().
  Error error() &&;

 private:
  struct Entry {
    Position position;
    std::string what;
    std::string hint;
  };
  std::vector<Entry> all_;
};

}  // namespace relay::config
