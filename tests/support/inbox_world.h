// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/support/world.h"

namespace relay::test {

// A consumer's database: with the schema inbox, and nothing else, in it.
class InboxWorld : public World {
 public:
  explicit InboxWorld(ScratchPostgres& postgres = shared_postgres()) : World(postgres, nullptr, "inbox") {}
};

}  // namespace relay::test
