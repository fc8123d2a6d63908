// SPDX-License-Identifier: Apache-2.0
#include "relay/core/page_mask.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

std::vector<std::size_t> indexes_of(const PageMask& mask) {
  std::vector<std::size_t> indexes;
  mask.for_each([&](std::size_t i) { indexes.push_back(i); });
  return indexes;
}

TEST(PageMaskTest, AnEmptyOneContainsNothing) {
  const PageMask mask;
  EXPECT_TRUE(mask.empty());
  EXPECT_FALSE(mask.contains(0));
  EXPECT_FALSE(mask.contains(20'000));
  EXPECT_EQ(indexes_of(mask), std::vector<std::size_t>{});
}

TEST(PageMaskTest, ContainsWhatWasAddedAndNothingBeside) {
  PageMask mask;
  for (const std::size_t i : {64U, 0U, 63U, 19'999U}) mask.add(i);
  EXPECT_EQ(indexes_of(mask), (std::vector<std::size_t>{0, 63, 64, 19'999}));
  for (const std::size_t i : {1U, 62U, 65U, 19'998U, 20'000U}) EXPECT_FALSE(mask.contains(i));
  EXPECT_EQ(mask.count(), 4U);
}

TEST(PageMaskTest, CountsAnIndexOnce) {
  PageMask mask;
  mask.add(5);
  mask.add(5);
  EXPECT_EQ(mask.count(), 1U);
}

}  // namespace
}  // namespace relay
