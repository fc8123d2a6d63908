// SPDX-License-Identifier: Apache-2.0
#include "relay/core/poison_bisector.h"

#include <gtest/gtest.h>

namespace relay {
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
  for (std::int64_t seq = from; seq <= to; ++seq) {
    all.push_back({static_cast<std::size_t>(seq - 1), seq, "refused", {}});
  }
  return all;
}

PageMask mask(const std::vector<std::size_t>& indexes) {
  PageMask mask;
  for (const std::size_t i : indexes) mask.add(i);
  return mask;
}

std::vector<std::size_t> indexes_of(const PageMask& mask) {
  std::vector<std::size_t> indexes;
  mask.for_each([&](std::size_t i) { indexes.push_back(i); });
  return indexes;
}

TEST(PoisonBisectorTest, AMessageThatWasAloneInItsRecordBatchIsTheCause) {
  const PoisonBisector poison;
  EXPECT_TRUE(poison.isolates(refused(5, 5)));
  EXPECT_FALSE(poison.isolates(refused(5, 6)));
}

TEST(PoisonBisectorTest, EveryProbeIsNarrowerThanTheOneBeforeWhateverIsRefused) {
  PoisonBisector poison;
  std::size_t before = 20'000;
  int probes = 0;
  while (!poison.isolates(refused(1, 20'000))) {
    poison.split(refused(1, 20'000));
    EXPECT_GT(poison.record_batch_max(), 0u);
    EXPECT_LT(poison.record_batch_max(), before);
    before = poison.record_batch_max();
    ++probes;
  }
  EXPECT_LE(probes, 10);
}

TEST(PoisonBisectorTest, OneCauseAmongThousandsTakesThreeProbes) {
  PoisonBisector poison;
  poison.split(refused(1, 10'000));
  poison.split(refused(1, static_cast<std::int64_t>(poison.record_batch_max())));
  poison.split(refused(1, static_cast<std::int64_t>(poison.record_batch_max())));
  EXPECT_EQ(poison.record_batch_max(), 1u);
}

TEST(PoisonBisectorTest, WithoutSuspectedMessagesAllIsSentButWhatIsParked) {
  const PoisonBisector poison;
  const auto attempt = poison.next(page_of(6), mask({1}));
  EXPECT_FALSE(attempt.probe);
  EXPECT_EQ(indexes_of(attempt.masked), (std::vector<std::size_t>{1}));
}

TEST(PoisonBisectorTest, AProbeMasksWhatIsParkedAndWhatIsNotSuspected) {
  PoisonBisector poison;
  poison.split(refused(3, 5));
  auto attempt = poison.next(page_of(6), mask({3}));
  EXPECT_TRUE(attempt.probe);
  EXPECT_EQ(indexes_of(attempt.masked), (std::vector<std::size_t>{0, 1, 3, 5}));
  poison.passed();
  attempt = poison.next(page_of(6), mask({3}));
  EXPECT_FALSE(attempt.probe);
  EXPECT_EQ(indexes_of(attempt.masked), (std::vector<std::size_t>{3}));
  EXPECT_NE(poison.record_batch_max(), 0u);  // the rest is sent as the probe was
}

TEST(PoisonBisectorTest, NothingIsProbedThatIsAllOrNothingOfThePage) {
  PoisonBisector poison;
  poison.split(refused(3, 5));
  EXPECT_FALSE(poison.next(page_of(6), mask({2, 3, 4})).probe);  // no suspected message is left
  poison.split(refused(1, 6));
  EXPECT_FALSE(poison.next(page_of(6), {}).probe);  // all are: the batch itself is the probe
}

}  // namespace
}  // namespace relay
