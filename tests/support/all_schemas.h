// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>

#include "tests/support/test_outbox.h"

namespace relay::test {

// A database with all three schemas.
class AllSchemas : public TestOutbox {
 public:
  explicit AllSchemas(ScratchPostgres& postgres = shared_postgres())
      : TestOutbox(postgres, nullptr) {
    for (const char* schema : {"inbox", "effect"}) {
      const auto done = command({"init", "--schema", schema});
      if (done.code != 0) throw std::runtime_error(done.output);
    }
  }
};

}  // namespace relay::test
