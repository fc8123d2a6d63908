// SPDX-License-Identifier: Apache-2.0
// Effects at providers that fail.
//
// OUTBOX_ROUNDS (default 1) rounds of 18 effects each, OUTBOX_SEED (default: random, printed)
// decides about the faults.
#include <gtest/gtest.h>

#include <random>

#include "tests/support/effect_trials.h"
#include "tests/support/from_environment.h"

namespace relay {
namespace {

using test::EffectTrials;

class EffectFaults : public ::testing::TestWithParam<EffectTrials::Kind> {};

TEST_P(EffectFaults, KeepWhatWasDeclared) {
  EffectTrials trials(test::shared_postgres());
  std::mt19937_64 random(test::seed_of_this_run());
  for (int n = 0; n < test::number_from("OUTBOX_ROUNDS", 1); ++n) {
    const auto found = trials.round(GetParam(), n, random);
    EXPECT_TRUE(found.good()) << "round " << n << ": " << found;
  }
}
INSTANTIATE_TEST_SUITE_P(Kinds, EffectFaults, testing::ValuesIn(EffectTrials::kinds),
                         [](const auto& chosen) {
                           std::string name = EffectTrials::name(chosen.param);
                           std::erase_if(name, [](char c) { return c == ' ' || c == ','; });
                           return name;
                         });

}  // namespace
}  // namespace relay
