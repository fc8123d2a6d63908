// SPDX-License-Identifier: Apache-2.0
#include "relay/core/suspects.h"

#include <gtest/gtest.h>

namespace outbox {
namespace {

Page page_of(std::int64_t messages) {
  Page page;
  for (std::int64_t seq = 1; seq <= messages; ++seq) {
    Message m;
    m.seq = seq;
    page.messages.push_back(m);
  }
  return page;
}

std::vector<Rejection> refused(std::int64_t from, std::int64_t to) {
  std::vector<Rejection> all;
  for (std::int64_t seq = from; seq <= to; ++seq) all.push_back({seq, "refused", {}});
  return all;
}

TEST(Suspects, AMessageThatWasAloneInItsRecordBatchIsToBlame) {
  const Suspects suspects;
  EXPECT_TRUE(suspects.convicts(refused(5, 5)));
  EXPECT_FALSE(suspects.convicts(refused(5, 6)));
}

TEST(Suspects, EveryTrialIsNarrowerThanTheOneBeforeWhateverIsRefused) {
  Suspects suspects;
  std::size_t before = 20'000;
  int trials = 0;
  while (!suspects.convicts(refused(1, 20'000))) {
    suspects.narrow(refused(1, 20'000));
    EXPECT_GT(suspects.record_batch_max(), 0u);
    EXPECT_LT(suspects.record_batch_max(), before);
    before = suspects.record_batch_max();
    ++trials;
  }
  EXPECT_LE(trials, 10);
}

TEST(Suspects, OneCulpritAmongThousandsTakesThreeTrials) {
  Suspects suspects;
  suspects.narrow(refused(1, 10'000));
  suspects.narrow(refused(1, static_cast<std::int64_t>(suspects.record_batch_max())));
  suspects.narrow(refused(1, static_cast<std::int64_t>(suspects.record_batch_max())));
  EXPECT_EQ(suspects.record_batch_max(), 1u);
}

TEST(Suspects, ATrialLeavesOutWhatIsParkedAndWhatIsNotSuspected) {
  Suspects suspects;
  EXPECT_TRUE(suspects.left_out(page_of(6), {1}).empty());
  suspects.narrow(refused(3, 5));
  EXPECT_EQ(suspects.left_out(page_of(6), {3}), (std::vector<std::size_t>{0, 1, 3, 5}));
  EXPECT_TRUE(suspects.left_out(page_of(6), {2, 3, 4}).empty());  // no suspect is left
  suspects.acquit();
  EXPECT_TRUE(suspects.left_out(page_of(6), {}).empty());
  EXPECT_NE(suspects.record_batch_max(), 0u);  // the rest is sent as the trial was
}

}  // namespace
}  // namespace outbox
