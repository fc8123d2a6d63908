// SPDX-License-Identifier: Apache-2.0
// `init` creates the same schema whichever way it is run, and can be repeated.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>

#include "relay/postgres/migrations.h"
#include "tests/support/judge.h"

namespace outbox {
namespace {

using test::World;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// The schema of a database as pg_dump writes it, owners and rights included, without what changes from run to run.
std::string dumped(const std::string& dsn) {
  const auto done = test::run_command({"/bin/sh", "-c", "pg_dump -s -n outbox \"$0\" | grep -v '^.\\(un\\)\\?restrict '", dsn}, {});
  EXPECT_EQ(done.code, 0) << done.output;
  EXPECT_TRUE(contains(done.output, "CREATE TABLE outbox.message")) << done.output;
  return done.output;
}

class InitTest : public ::testing::Test {
 protected:
  InitTest() : empty(world.postgres().create_database()), empty_dsn(world.postgres().dsn(empty)) {}

  std::string init(std::vector<std::string> options, int code = 0) {
    options.insert(options.begin(), "init");
    const auto done = world.command(options, {{"OUTBOX_RELAY_POSTGRES_DSN", empty_dsn}});
    EXPECT_EQ(done.code, code) << done.output;
    return done.output;
  }
  // Prints the SQL and runs it with psql.
  void run_printed(const std::string& options) {
    const std::string program = test::program_path("outbox-relay");
    const auto done = test::run_command(
        {"/bin/sh", "-c", program + " init --print-sql " + options + " | psql -X -v ON_ERROR_STOP=1 -q \"$0\" 2>&1", empty_dsn}, {});
    EXPECT_EQ(done.code, 0) << done.output;
  }
  bool empty_has_schema() {
    pqxx::connection connection(empty_dsn);
    return pqxx::nontransaction(connection).exec("select to_regnamespace('outbox') is not null")[0][0].as<bool>();
  }

  // The relay delivers a message from the second database.
  void deliver_one() {
    world.environment["OUTBOX_RELAY_POSTGRES_DSN"] = empty_dsn;
    const std::string topic = world.topic("t");
    auto relay = world.relay();
    relay.says("to=streaming");
    pqxx::connection connection(empty_dsn);
    pqxx::nontransaction tx(connection);
    tx.exec("select outbox.enqueue('" + topic + "', 'k'::text, 'x'::text)");
    test::eventually("the message is delivered", [&] {
      return tx.exec("select exists (select from outbox.batch b where b.delivered_at is not null)")[0][0].as<bool>();
    });
    EXPECT_EQ(test::read_log(world.kafka().brokers(), {topic}, test::Isolation::read_committed).records.size(), 1U);
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(), 0) << relay.output();
    EXPECT_EQ(relay.output().find("upkeep_failed"), std::string::npos) << relay.output();
  }
  // The schema as it was after migration `number`.
  void make_old(int number) {
    pqxx::connection connection(empty_dsn);
    pqxx::work tx(connection);
    for (const Migration& m : migrations(Schema::outbox)) {
      if (m.number > number) break;
      tx.exec(m.sql);
      if (m.number == roles_number) tx.exec("create schema outbox authorization outbox_owner; set local role outbox_owner");
      else tx.exec("insert into outbox.schema_version (number, name) values (" + std::to_string(m.number) + ", '" + m.name + "')");
    }
    tx.commit();
  }

  World world;  // its database was made by init
  const std::string current = std::to_string(schema_version(Schema::outbox));
  const std::string same_version = "version " + current + ", was " + current;
  std::string empty;
  std::string empty_dsn;
};

TEST_F(InitTest, PrintedSqlMakesTheSameSchema) {
  run_printed("");
  EXPECT_EQ(dumped(empty_dsn), dumped(world.dsn()));
  EXPECT_TRUE(contains(init({}), same_version));
}

TEST_F(InitTest, PrintedSqlWithoutRolesMakesTheSameSchemaAsInitWithoutRoles) {
  run_printed("--no-roles");
  const std::string printed = dumped(empty_dsn);
  empty_dsn = world.postgres().dsn(world.postgres().create_database());
  init({"--no-roles"});
  EXPECT_EQ(dumped(empty_dsn), printed);
  EXPECT_FALSE(contains(printed, "OWNER TO outbox_owner")) << printed;
}

TEST_F(InitTest, ItCanBeRepeatedAndRenewsGrants) {
  const std::string before = dumped(world.dsn());
  for (int i = 0; i < 2; ++i) {
    const auto done = world.command({"init", "--kafka"});
    EXPECT_EQ(done.code, 0) << done.output;
    EXPECT_TRUE(contains(done.output, same_version) && contains(done.output, ": was there")) << done.output;
  }
  EXPECT_EQ(dumped(world.dsn()), before);
  world.sql("revoke select on outbox.batch from outbox_observer");
  EXPECT_EQ(world.command({"init"}).code, 0);
  EXPECT_EQ(world.value("select has_table_privilege('outbox_observer', 'outbox.batch', 'SELECT')"), "t");
}

TEST_F(InitTest, DryRunChangesNothing) {
  world.environment["OUTBOX_RELAY_KAFKA_PROGRESS_TOPIC"] = world.name() + ".not-made";
  const std::string said = init({"--dry-run", "--kafka"});
  EXPECT_TRUE(contains(said, "version 0 installed, " + current + " wanted")) << said;
  EXPECT_TRUE(contains(said, "would create the progress topic")) << said;
  EXPECT_FALSE(empty_has_schema());
  EXPECT_THROW(test::read_log(world.kafka().brokers(), {world.name() + ".not-made"}, test::Isolation::read_committed), std::runtime_error);
}

TEST_F(InitTest, WithoutRolesTheOwnerOfTheDatabaseRunsEverything) {
  const std::string login = "owner-" + world.name();
  world.sql("create role \"" + login + "\" login");
  world.sql("alter database \"" + empty + "\" owner to \"" + login + "\"");
  empty_dsn = world.postgres().dsn(empty, login);
  const std::string refused = init({}, 5);
  EXPECT_TRUE(contains(refused, "HINT: ") && contains(refused, "--no-roles")) << refused;
  EXPECT_FALSE(empty_has_schema());
  init({"--no-roles"});
  deliver_one();
}

TEST_F(InitTest, EachOlderSchemaIsUpgradedToTheSame) {
  for (int number = 1; number < schema_version(Schema::outbox); ++number) {
    empty_dsn = world.postgres().dsn(world.postgres().create_database());
    make_old(number);
    EXPECT_TRUE(contains(init({}), "version " + current + ", was " + std::to_string(number)));
    EXPECT_EQ(dumped(empty_dsn), dumped(world.dsn()));
  }
}

TEST_F(InitTest, TheRelayWorksWithTheSchemaBeforeItsOwn) {
  make_old(schema_version(Schema::outbox) - 1);
  deliver_one();
}

TEST_F(InitTest, ARelayTakesUpDecisionsWhenTheSchemaIsUpgradedUnderIt) {
  make_old(1);
  world.environment["OUTBOX_RELAY_POSTGRES_DSN"] = empty_dsn;
  auto relay = world.relay();
  relay.says("to=streaming");
  pqxx::connection connection(empty_dsn);
  pqxx::nontransaction tx(connection);
  tx.exec("insert into outbox.message (topic, payload, headers) values ('" + world.topic("t") + "', 'x', '[]')");
  test::eventually("it is parked", [&] { return tx.exec("select from outbox.parked").size() == 1; });
  init({});
  tx.exec("update outbox.parked set resolution = 'discard', decided_by = 'x', decided_at = now()");
  test::eventually("it is discarded", [&] { return tx.exec("select from outbox.parked where released_in is not null").size() == 1; });
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

// What was legal before its name was protected must not stop everything else.
TEST_F(InitTest, AScheduledMessageWithAHeaderThatIsReservedNowIsDelivered) {
  make_old(1);
  {
    pqxx::connection connection(empty_dsn);
    pqxx::nontransaction(connection).exec("insert into outbox.scheduled (deliver_at, topic, payload, headers) values (now(), '" +
                                          world.topic("due") + "', 'x', '{\"outbox-replay\": \"1\", \"other\": \"2\"}')");
    init({});
    const std::string user = "relay-" + world.name();
    pqxx::nontransaction(connection).exec("create role \"" + user + "\" login in role outbox_relay");
    world.environment["OUTBOX_RELAY_POSTGRES_DSN"] = world.postgres().dsn(empty, user);
  }
  auto relay = world.relay();
  test::eventually("it arrives", [&] {
    return test::read_log(world.kafka().brokers(), {world.name() + ".due"}, test::Isolation::read_committed).records.size() == 1;
  });
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

TEST_F(InitTest, ANewerSchemaIsRefused) {
  world.sql("insert into outbox.schema_version (number, name) values (77, 'future')");
  const auto done = world.command({"init"});
  EXPECT_EQ(done.code, 5) << done.output;
  EXPECT_TRUE(contains(done.output, "has version 77") && contains(done.output, "HINT: run a newer outbox-relay")) << done.output;
}

}  // namespace
}  // namespace outbox
