// SPDX-License-Identifier: Apache-2.0
#include "common/backoff.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

using std::chrono::milliseconds;

TEST(BackoffTest, DoublesUpToItsLimitAndNoFurther) {
  outbox::common::Backoff backoff(milliseconds(10), milliseconds(50));
  for (const int expected : {10, 20, 40, 50, 50}) EXPECT_EQ(backoff.next(), milliseconds(expected));
  EXPECT_EQ(backoff.attempts(), 5);
}

TEST(BackoffTest, BeginsAgainAfterAReset) {
  outbox::common::Backoff backoff(milliseconds(10), milliseconds(50));
  backoff.next();
  backoff.next();
  backoff.reset();
  EXPECT_EQ(backoff.attempts(), 0);
  EXPECT_EQ(backoff.next(), milliseconds(10));
}

TEST(BackoffTest, AFirstWaitAboveTheLimitIsTakenOnce) {
  outbox::common::Backoff backoff(milliseconds(100), milliseconds(50));
  EXPECT_EQ(backoff.next(), milliseconds(100));
  EXPECT_EQ(backoff.next(), milliseconds(50));
}

TEST(BackoffTest, JitterStaysInTheUpperHalfOfEachWait) {
  outbox::common::Backoff backoff = outbox::common::Backoff::with_jitter(
      milliseconds(100), milliseconds(800), milliseconds(0), 7);
  for (milliseconds full{100}; full < milliseconds(800); full *= 2) {
    const auto wait = backoff.next();
    EXPECT_GE(wait, full / 2);
    EXPECT_LE(wait, full);
  }
  bool differs = false;
  const auto first = backoff.next();
  for (int i = 0; i < 100; ++i) differs = differs || backoff.next() != first;
  EXPECT_TRUE(differs);
}

TEST(BackoffTest, JitterNeverGoesBelowTheShortestWait) {
  outbox::common::Backoff backoff =
      outbox::common::Backoff::with_jitter(milliseconds(50), milliseconds(80), milliseconds(50), 7);
  for (int i = 0; i < 100; ++i) EXPECT_GE(backoff.next(), milliseconds(50));
}

}  // namespace
}  // namespace relay
