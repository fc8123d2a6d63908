// SPDX-License-Identifier: Apache-2.0
// The relay with the rights of its role and no others, and with settings that its user has been
// given.
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/support/checker.h"

namespace relay {
namespace {

using test::TestOutbox;

class Privileges : public ::testing::Test {
 protected:
  Privileges() : role("\"" + db.name() + "\""), topic(db.topic("t")) {
    db.sql("create role " + role + " login in role outbox_relay");
    db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = db.postgres().dsn(db.database(), db.name());
  }

  void deliver() {
    db.sql("insert into outbox.message (topic, key, payload) values ('" + topic +
           "', 'k', 'k 2'), ('no topic', 'k', 'k 3')");
    const std::string log = db.deliver({{"OUTBOX_RELAY_RETENTION_KEEP", "1m"}});
    EXPECT_EQ(log.find("maintenance_failed"), std::string::npos) << log;
  }

  TestOutbox db;
  const std::string role;
  const std::string topic;
};

TEST_F(Privileges, TheRoleOfTheRelaySufficesForAllItDoes) {
  db.sql("select outbox.enqueue('" + topic +
         "', 'k', 'k 1', deliver_at => now() - interval '1 hour')");
  deliver();
  db.sql("update outbox.batch set opened_at = opened_at - interval '1 hour'");
  deliver();  // and prunes
  auto relay = db.relay({{"OUTBOX_RELAY_RETENTION_KEEP", "1m"}});
  relay.says("to=streaming");
  test::eventually("what is old is pruned",
                   [&] { return db.value("select min(seq) > 1 from outbox.message") == "t"; });
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(db.value("select count(*) from outbox.scheduled"), "0");
  EXPECT_EQ(db.value("select count(*) from outbox.parked"), "2");
  EXPECT_EQ(
      test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records.size(),
      3u);
}

TEST_F(Privileges, ARightThatUpkeepNeedsIsMissedAtTheStart) {
  db.sql("revoke insert (created_at) on outbox.message from outbox_relay");
  auto relay = db.relay();
  EXPECT_EQ(relay.wait(), 5) << relay.output();
  EXPECT_NE(relay.output().find("lacks rights: INSERT (created_at) on outbox.message"),
            std::string::npos)
      << relay.output();
}

// As on managed servers.
TEST_F(Privileges, AServerThatHidesItsIdentityNeedsLeave) {
  db.sql("revoke execute on function pg_control_system() from public");
  {
    auto relay = db.relay();
    EXPECT_EQ(relay.wait(), 5) << relay.output();
    EXPECT_NE(relay.output().find("allow_unverified_server"), std::string::npos) << relay.output();
  }
  db.environment["OUTBOX_RELAY_POSTGRES_ALLOW_UNVERIFIED_SERVER"] = "true";
  deliver();
  EXPECT_EQ(db.value("select count(*) from outbox.batch where delivered_at is not null"), "1");
}

// `on` would be a step down. Nobody replicates here, so nothing waits.
TEST_F(Privileges, AHigherCommitLevelOfTheUserStaysAndALowerOneDoesNot) {
  for (const auto& [given, used] :
       {std::pair{"remote_apply", "remote_apply"}, {"on", "on"}, {"off", "on"}, {"local", "on"}}) {
    db.sql("alter role " + role + " set synchronous_commit = " + given);
    db.sql(
        "create or replace function public.note() returns trigger language plpgsql as $$ begin "
        "insert into public.noted values "
        "(current_setting('synchronous_commit')); return new; end $$");
    db.sql("drop table if exists public.noted");
    db.sql("create table public.noted (level text)");
    db.sql("grant insert on public.noted to public");
    db.sql(
        "create or replace trigger note before insert on outbox.batch for each row execute "
        "function public.note()");
    deliver();
    EXPECT_EQ(db.value("select string_agg(distinct level, ',') from public.noted"), used) << given;
  }
}

}  // namespace
}  // namespace relay
