// SPDX-License-Identifier: Apache-2.0
// Parameters become literals where they are parameters, and nowhere else.
#include <gtest/gtest.h>

#include "relay/postgres/pooler.h"

namespace relay::postgres {
namespace {

TEST(WithLiterals, EachPlaceholderBecomesItsOwnParameter) {
  const std::vector<Parameter> ten = {"1", "2", "3", "4", "5", "6", "7", "8", "9", "ten"};
  EXPECT_EQ(with_literals("select $1, $10, $1::text", ten), "select '1', 'ten', '1'::text");
  EXPECT_EQ(with_literals("a=$2", {"x", std::nullopt}), "a=null");
  EXPECT_EQ(with_literals("$1", {"it's"}), "'it''s'");
  EXPECT_EQ(with_literals("$1", {"it's \\ $1"}), " E'it''s \\\\ $1'");
  EXPECT_EQ(with_literals("", {}), "");
}

TEST(WithLiterals, WhatIsNoPlaceholderStaysAsItIs) {
  for (const std::string sql :
       {"select '$1', '''$1', \"$1\"", "select e'\\'$1', E'$1\\\\' /* $1 /* $1 */ $1 */",
        "select a$1, \u00e4$1", "do $$ $1 $$", "do $x$ $1 $$ $1 $x$", "a $ b"}) {
    EXPECT_EQ(with_literals(sql, {}), sql);
    EXPECT_EQ(with_literals(sql + ", $1", {"x"}), sql + ", 'x'");
  }
  EXPECT_EQ(with_literals("-- $1\n$1", {"x"}), "-- $1\n'x'");
  EXPECT_EQ(with_literals("'a' || $1 || 'b' || e'\\\\' || $1", {"x"}),
            "'a' || 'x' || 'b' || e'\\\\' || 'x'");
}

TEST(WithLiterals, WhatIsNotClosedReachesToTheEnd) {
  for (const std::string sql :
       {"select '$1", "select e'$1\\", "select $$ $1", "/* $1", "-- $1", "\"$1", "e'", "$"}) {
    EXPECT_EQ(with_literals(sql, {}), sql);
  }
}

}  // namespace
}  // namespace relay::postgres
