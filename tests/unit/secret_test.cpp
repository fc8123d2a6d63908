// SPDX-License-Identifier: Apache-2.0
#include "relay/base/secret_format.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <type_traits>
#include <utility>

namespace relay {
namespace {

template <class T>
concept Comparable = requires(const T& a, const T& b) {
  a == b;
};
template <class T>
concept ComparableWithText = requires(const T& a, const std::string& b) {
  a == b;
};

static_assert(!Comparable<Secret>);
static_assert(!ComparableWithText<Secret>);
static_assert(!std::is_convertible_v<Secret, std::string>);
static_assert(!std::is_convertible_v<std::string, Secret>);
static_assert(std::is_nothrow_move_constructible_v<Secret>);

TEST(Secret, PrintsStarsHoweverItIsPrinted) {
  const Secret secret("hunter2");
  std::ostringstream out;
  out << secret;
  EXPECT_EQ(out.str(), "***");
  EXPECT_EQ(fmt::format("{}", secret), "***");
  EXPECT_EQ(fmt::format("{:>5}", secret), "  ***");
  EXPECT_EQ(to_string(secret), "***");
  EXPECT_EQ(testing::PrintToString(secret), "***");
}

TEST(Secret, PrintsStarsAlsoWhenEmptySoThatItsLengthStaysHidden) {
  EXPECT_EQ(to_string(Secret{}), "***");
}

TEST(Secret, GivesItsValueOnRequest) {
  EXPECT_EQ(Secret("hunter2").reveal(), "hunter2");
  EXPECT_FALSE(Secret("hunter2").empty());
  EXPECT_TRUE(Secret{}.empty());
}

TEST(Secret, SurvivesCopyMoveAndAssignment) {
  Secret first("hunter2");
  Secret copy = first;
  EXPECT_EQ(copy.reveal(), "hunter2");
  const Secret moved = std::move(first);
  EXPECT_EQ(moved.reveal(), "hunter2");
  copy = Secret("other");
  EXPECT_EQ(copy.reveal(), "other");
  EXPECT_EQ(moved.reveal(), "hunter2");
}

TEST(Secret, HandsOverItsBufferWhenMovedSoThatNoCopyStaysBehind) {
  Secret first("short");
  const char* const bytes = first.reveal().data();
  const Secret second = std::move(first);
  EXPECT_EQ(second.reveal().data(), bytes);
}

TEST(Secret, WipeOverwritesEveryAllocatedByte) {
  std::string text(40, 's');
  text.resize(20);  // the other 20 bytes lie beyond the end, and in memory still
  const char* const bytes = text.data();
  wipe(text);
  EXPECT_TRUE(text.empty());
  text.reserve(40);
  ASSERT_EQ(text.data(), bytes);
  EXPECT_EQ(std::count(bytes, bytes + 40, 's'), 0);
}

}  // namespace
}  // namespace relay
