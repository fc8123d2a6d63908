// SPDX-License-Identifier: Apache-2.0
// A worker is killed before and after each of its socket calls. The provider's own log decides.
#include "tests/support/effect_sweep.h"

#include <gtest/gtest.h>

#include <iostream>

namespace relay {
namespace {

class EffectSweepTest : public ::testing::TestWithParam<test::SweptProvider> {};

TEST_P(EffectSweepTest, NothingIsRepeatedOrLostAndNoDoubtIsNobodys) {
  test::EffectSweep sweep(test::shared_postgres(), GetParam());
  const auto found = sweep.run();
  EXPECT_TRUE(found.good()) << found;
  std::cout << GetParam().name << ": " << sweep.calls() << " socket calls, killed "
            << sweep.killed() << " times, " << found << '\n';
}
INSTANTIATE_TEST_SUITE_P(Providers, EffectSweepTest, testing::ValuesIn(test::swept_providers),
                         [](const auto& chosen) { return chosen.param.name; });

}  // namespace
}  // namespace relay
