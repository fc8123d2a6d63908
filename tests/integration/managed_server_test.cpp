// SPDX-License-Identifier: Apache-2.0
// A managed server that forbids the functions by which a copied cluster or an abandoned primary is recognised: refused, unless the
// user accepted that, and then everything works without them.
#include <gtest/gtest.h>

#include "tests/support/judge.h"

namespace relay {
namespace {

TEST(ManagedServerTest, ForbiddenGuardsAreRefusedUnlessAccepted) {
  test::World world;
  const std::string topic = world.topic("t");
  world.sql("create role \"" + world.name() + "\" login in role outbox_relay");
  world.environment["OUTBOX_RELAY_POSTGRES_DSN"] = world.postgres().dsn(world.database(), world.name());
  world.sql("revoke execute on function pg_control_system(), pg_walfile_name(pg_lsn) from public");
  world.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'x')");

  auto careful = world.relay();
  EXPECT_EQ(careful.wait(), 5) << careful.output();
  EXPECT_NE(careful.output().find("allow_unverified_server"), std::string::npos) << careful.output();

  world.environment["OUTBOX_RELAY_POSTGRES_ALLOW_UNVERIFIED_SERVER"] = "true";
  auto relay = world.relay();
  world.settled();
  EXPECT_EQ(test::read_log(world.kafka().brokers(), {topic}, test::Isolation::read_committed).records.size(), 1U);
}

}  // namespace
}  // namespace relay
