// SPDX-License-Identifier: Apache-2.0
// A worker is killed before and after each of its socket calls, from its first connection to the
// database to its end: at the database, at the provider, and in between.
#pragma once

#include <array>
#include <string>

#include "tests/support/effect_checker.h"

namespace relay::test {

struct SweptProvider {
  const char* name;
  bool deduplicates;
};
inline constexpr std::array<SweptProvider, 4> swept_providers{
    {{"bank", true}, {"store", true}, {"plain", false}, {"mail", false}}};

// All kills at one kind of provider, and then what became of the effects.
class EffectSweep {
 public:
  EffectSweep(ScratchPostgres& postgres, const SweptProvider& provider);
  ~EffectSweep();

  // Throws if the workers are not killed as they should be: then nothing is shown.
  EffectReport run();
  TestOutbox& db() { return db_; }
  int calls() const { return calls_; }
  int killed() const { return killed_; }

 private:
  PlannedEffect effect(int n) const;
  Process worker(const Process::Environment& more);
  void count_calls();
  void kill_at_each_call(EffectReport& found);
  void settle_the_rest(EffectReport& found);

  TestLedger db_;
  FakeProviders providers_;
  const SweptProvider provider_;
  const std::string kind_;
  const std::string count_file_;
  int calls_ = 0, killed_ = 0;
  std::vector<PlannedEffect> planned_;
};

}  // namespace relay::test
