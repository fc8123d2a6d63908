// SPDX-License-Identifier: Apache-2.0
#include "relay/core/next_action.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

TEST(NextActionTest, ABatchInFlightComesBeforeAllElse) {
  EXPECT_EQ(next_action({.draining = true,
                         .in_flight = true,
                         .page_ready = true,
                         .release_wanted = true,
                         .unmarked = true,
                         .mark_is_due = true}),
            NextAction::await_delivery);
}

TEST(NextActionTest, APageThatIsReadyIsOpened) {
  EXPECT_EQ(next_action({.page_ready = true}), NextAction::open_page);
  EXPECT_EQ(next_action({.page_ready = true, .unmarked = true, .mark_is_due = true}),
            NextAction::open_page);  // which carries the mark
}

TEST(NextActionTest, ReleasesAndPagesTakeTurns) {
  EXPECT_EQ(next_action({.page_ready = true, .release_wanted = true}), NextAction::open_release);
  EXPECT_EQ(next_action({.page_ready = true, .release_wanted = true, .stream_is_next = true}),
            NextAction::open_page);
  EXPECT_EQ(next_action({.release_wanted = true, .stream_is_next = true}),
            NextAction::open_release);
}

TEST(NextActionTest, AReleaseWaitsForThePageThatIsBeingRead) {
  EXPECT_EQ(next_action({.reading = true, .release_wanted = true}), NextAction::wait);
}

TEST(NextActionTest, AMarkIsCommittedAloneWhenItIsDue) {
  EXPECT_EQ(next_action({.unmarked = true}), NextAction::wait);
  EXPECT_EQ(next_action({.unmarked = true, .mark_is_due = true}), NextAction::mark_delivered);
}

TEST(NextActionTest, DrainingOpensNothingAndMarksBeforeItFinishes) {
  EXPECT_EQ(next_action({.draining = true, .page_ready = true, .release_wanted = true}),
            NextAction::finish);
  EXPECT_EQ(next_action({.draining = true, .page_ready = true, .unmarked = true}),
            NextAction::mark_delivered);
}

TEST(NextActionTest, WithNothingToDoItWaits) { EXPECT_EQ(next_action({}), NextAction::wait); }

}  // namespace
}  // namespace relay
