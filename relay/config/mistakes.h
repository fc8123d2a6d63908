// SPDX-License-Identifier: Apache-2.0
// All that is wrong with a configuration, so that it can be said at once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "relay/base/error.h"

namespace outbox::config {

// A position in a file, or (line 0) a variable of the environment or the file as a whole.
struct Place {
  std::string source;
  std::uint32_t line = 0;
  std::uint32_t column = 0;

  bool in_file() const { return line > 0; }
  // "relay.toml:3:8" or "OUTBOX_RELAY_POLL_IDLE"
  std::string text() const;
};

class Mistakes {
 public:
  void add(Place place, std::string what, std::string hint);
  bool empty() const { return all_.empty(); }

  // One error for all, in the order of the file, then the rest in the order of add(). The last hint is the error's own,
  // so that text() ends every mistake with its HINT line. REQUIRES: !empty().
  Error error() &&;

 private:
  struct Mistake {
    Place place;
    std::string what;
    std::string hint;
  };
  std::vector<Mistake> all_;
};

}  // namespace outbox::config
