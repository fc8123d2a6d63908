// SPDX-License-Identifier: Apache-2.0
// The migrations that are embedded into the program.
#include "relay/postgres/migrations.h"

#include <gtest/gtest.h>

#include <string>

namespace outbox {
namespace {

TEST(Migrations, OfEachSchemaCreateRolesThenEachVersionThenGrant) {
  for (const Schema schema : all_schemas) {
    const auto& all = migrations(schema);
    ASSERT_GE(all.size(), 3U) << name_of(schema);
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(all[i].schema, schema);
      const bool grants = i + 1 == all.size();
      EXPECT_EQ(all[i].number, grants ? grants_number : static_cast<int>(i)) << name_of(schema) << "/" << all[i].name;
    }
    EXPECT_EQ(schema_version(schema), static_cast<int>(all.size()) - 2);
  }
}

}  // namespace
}  // namespace outbox
