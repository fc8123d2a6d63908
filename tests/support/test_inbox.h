// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/support/test_outbox.h"

namespace relay::test {

// A consumer's database: with the schema inbox, and nothing else, in it.
class TestInbox : public TestOutbox {
 public:
  explicit TestInbox(ScratchPostgres& postgres = shared_postgres())
      : TestOutbox(postgres, nullptr, "inbox") {}
};

}  // namespace relay::test
