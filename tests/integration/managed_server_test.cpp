// SPDX-License-Identifier: Apache-2.0
// A managed server that forbids the functions by which a copied cluster or an abandoned primary is
// recognised: refused, unless the user accepted that, and then everything works without them.
#include <gtest/gtest.h>

#include "tests/support/checker.h"

namespace relay {
namespace {

TEST(ManagedServerTest, ForbiddenGuardsAreRefusedUnlessAccepted) {
  test::TestOutbox db;
  const std::string topic = db.topic("t");
  db.sql("create role \"" + db.name() + "\" login in role outbox_relay");
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = db.postgres().dsn(db.database(), db.name());
  db.sql("revoke execute on function pg_control_system(), pg_walfile_name(pg_lsn) from public");
  db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'x')");

  auto careful = db.relay();
  EXPECT_EQ(careful.wait(), 5) << careful.output();
  EXPECT_NE(careful.output().find("allow_unverified_server"), std::string::npos)
      << careful.output();

  db.environment["OUTBOX_RELAY_POSTGRES_ALLOW_UNVERIFIED_SERVER"] = "true";
  auto relay = db.relay();
  db.wait_until_idle();
  EXPECT_EQ(
      test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records.size(),
      1U);
}

// Services that are compatible with PostgreSQL answer so where they have no WAL to speak of.
TEST(ManagedServerTest, UnsupportedGuardsAreRefusedUnlessAccepted) {
  for (const std::string sqlstate : {"0A000", "55000"}) {
    test::ScratchPostgres postgres;  // of its own: its system functions are replaced
    test::TestOutbox db(postgres);
    const std::string topic = db.topic("t");
    const std::string raises = " language plpgsql as $$ begin raise exception using errcode = '" +
                               sqlstate + "', message = 'not supported by this service'; end $$";
    db.sql(
        "set allow_system_table_mods = on; "
        "alter function pg_control_system() rename to pg_control_system_of_a_server; "
        "alter function pg_current_wal_lsn() rename to pg_current_wal_lsn_of_a_server; "
        "create function pg_catalog.pg_control_system(out system_identifier bigint)" +
        raises + "; create function pg_catalog.pg_current_wal_lsn() returns pg_lsn" + raises);
    db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'x')");

    auto careful = db.relay();
    EXPECT_EQ(careful.wait(), 5) << careful.output();
    EXPECT_NE(careful.output().find("allow_unverified_server"), std::string::npos)
        << careful.output();
    EXPECT_EQ(db.command({"check"}).code, 5) << sqlstate;

    db.environment["OUTBOX_RELAY_POSTGRES_ALLOW_UNVERIFIED_SERVER"] = "true";
    auto relay = db.relay();
    db.wait_until_idle();
    EXPECT_EQ(test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed)
                  .records.size(),
              1U);
  }
}

}  // namespace
}  // namespace relay
