// SPDX-License-Identifier: Apache-2.0
// How seldom a sick dependency is asked: docs/guarantees.md, G7.
#include "relay/core/breaker.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace relay {
namespace {

constexpr Millis shortest{50};
constexpr Millis longest{1'000};

class BreakerTest : public testing::Test {
 protected:
  Clock::duration wait_after_failure() {
    breaker.trip(Error{Fault::kafka, "away"}, now);
    return breaker.before_probe(now);
  }

  const Clock::time_point now = Clock::now();
  Breaker breaker{7};
};

TEST_F(BreakerTest, WaitsGrowFromTheShortestToASecondAndNoFurther) {
  EXPECT_EQ(wait_after_failure(), shortest);
  Clock::duration most{0};
  for (int probes = 0; probes < 200; ++probes) {
    const auto wait = wait_after_failure();
    EXPECT_GE(wait, shortest);
    EXPECT_LE(wait, longest);
    if (probes > 10) {
      EXPECT_GE(wait, longest / 2);
    }
    most = std::max(most, wait);
  }
  EXPECT_GT(most, longest * 9 / 10);
}

TEST_F(BreakerTest, OnlyATroubleThatIsOverForGoodStartsAnew) {
  for (int probes = 0; probes < 20; ++probes) wait_after_failure();
  breaker.close();
  EXPECT_GE(wait_after_failure(), longest / 2);
  breaker.reset();
  EXPECT_EQ(wait_after_failure(), shortest);
}

TEST_F(BreakerTest, AProbeIsDueWhenItsWaitIsOverAndNotBefore) {
  const auto wait = wait_after_failure();
  EXPECT_GT(breaker.before_probe(now + wait - Millis{1}), Clock::duration::zero());
  EXPECT_EQ(breaker.before_probe(now + wait), Clock::duration::zero());
}

}  // namespace
}  // namespace relay
