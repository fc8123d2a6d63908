// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "outbox/effect.h"
#include "tests/support/world.h"

namespace relay::test {

// One effect ledger: a database of its own with the schema effect, and nothing else, in it.
class EffectWorld : public World {
 public:
  explicit EffectWorld(ScratchPostgres& postgres = shared_postgres()) : World(postgres, nullptr, "effect") {}

  // The same function, with `wrong` in place of `right`: a deliberate defect. Throws when it does not contain `right`.
  void mutant(const std::string& function, const std::string& right, const std::string& wrong);

  void register_provider(const std::string& name, const ProviderSettings& settings);
  // Plans `count` effects whose keys are prefix-1, prefix-2, …
  void plan(const std::string& provider, const std::string& prefix, int count);
};

}  // namespace relay::test
