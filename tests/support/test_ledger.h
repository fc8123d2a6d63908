// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "outbox/effect.h"
#include "tests/support/test_outbox.h"

namespace relay::test {

// One effect ledger: a database of its own with the schema effect, and nothing else, in it.
class TestLedger : public TestOutbox {
 public:
  explicit TestLedger(ScratchPostgres& postgres = shared_postgres())
      : TestOutbox(postgres, nullptr, "effect") {}

  // The same function, with `wrong` in place of `right`: a deliberate defect. Throws when it does
  // not contain `right`.
  void mutant(const std::string& function, const std::string& right, const std::string& wrong);

  void register_provider(const std::string& name, const outbox::ProviderSettings& settings);
  // Plans `count` effects whose keys are prefix-1, prefix-2, …
  void plan(const std::string& provider, const std::string& prefix, int count);
};

}  // namespace relay::test
