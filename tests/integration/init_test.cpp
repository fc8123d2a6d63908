// SPDX-License-Identifier: Apache-2.0
// `init` creates the same schemas whichever way it is run, each with or without the others, and can
// be repeated.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>

#include "relay/postgres/migrations.h"
#include "tests/support/checker.h"
#include "tests/support/schemas_fixture.h"

namespace relay {
namespace {

using test::contains;
using test::TestOutbox;

// Rights are dumped in the order in which they were granted, which is the planner's choice.
std::string with_grants_in_order(const std::string& dump) {
  std::istringstream in(dump);
  std::string out;
  std::set<std::string> grants;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("GRANT ")) {
      grants.insert(line + "\n");
      continue;
    }
    for (const std::string& grant : grants) out += grant;
    grants.clear();
    out += line + "\n";
  }
  return out;
}

// The schema of a database as pg_dump writes it, owners and rights included, without what changes
// from run to run.
std::string dumped(const std::string& dsn, Schema schema = Schema::outbox) {
  const std::string name = name_of(schema);
  const auto done = test::run_command(
      {"/bin/sh", "-c", "pg_dump -s -n \"$1\" \"$0\" | grep -v '^.\\(un\\)\\?restrict '", dsn,
       name},
      {});
  EXPECT_EQ(done.code, 0) << done.output;
  EXPECT_TRUE(contains(done.output, "CREATE TABLE " + name + ".schema_version")) << done.output;
  return with_grants_in_order(done.output);
}

// Installs a schema from other files than the program's; `installed` is the version that is there.
void install(const std::string& dsn, Schema schema, const std::vector<SchemaFile>& files,
             int installed) {
  pqxx::connection connection(dsn);
  pqxx::work tx(connection);
  for (const auto& sql : create_script(schema, files, true)) tx.exec(sql);
  for (const auto& sql : install_script(schema, files, installed, true)) tx.exec(sql);
  tx.commit();
}

class InitTest : public ::testing::Test {
 protected:
  InitTest() : empty(db.postgres().create_database()), empty_dsn(db.postgres().dsn(empty)) {}

  std::string init(std::vector<std::string> options, int code = 0) {
    options.insert(options.begin(), "init");
    const auto done = db.command(options, {{"OUTBOX_RELAY_POSTGRES_DSN", empty_dsn}});
    EXPECT_EQ(done.code, code) << done.output;
    return done.output;
  }
  // Prints the SQL and runs it with psql.
  void run_printed(const std::string& options) {
    const std::string program = test::program_path("outbox-relay");
    const auto done = test::run_command(
        {"/bin/sh", "-c",
         program + " init --print-sql " + options + " | psql -X -v ON_ERROR_STOP=1 -q \"$0\" 2>&1",
         empty_dsn},
        {});
    EXPECT_EQ(done.code, 0) << done.output;
  }
  bool empty_has_schema() {
    pqxx::connection connection(empty_dsn);
    return pqxx::nontransaction(connection)
        .exec("select to_regnamespace('outbox') is not null")[0][0]
        .as<bool>();
  }

  // The relay delivers a message from the second database.
  void deliver_one() {
    db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = empty_dsn;
    const std::string topic = db.topic("t");
    auto relay = db.relay();
    relay.says("to=streaming");
    pqxx::connection connection(empty_dsn);
    pqxx::nontransaction tx(connection);
    tx.exec("select outbox.enqueue('" + topic + "', 'k'::text, 'x'::text)");
    test::eventually("the message is delivered", [&] {
      return tx
          .exec("select exists (select from outbox.batch b where b.delivered_at is not null)")[0][0]
          .as<bool>();
    });
    EXPECT_EQ(test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed)
                  .records.size(),
              1U);
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(), 0) << relay.output();
    EXPECT_EQ(relay.output().find("maintenance_failed"), std::string::npos) << relay.output();
  }

  TestOutbox db;  // its database was made by init
  const std::string current = std::to_string(schema_version(Schema::outbox));
  const std::string same_version = "version " + current + ", was " + current;
  const std::string no_change = "version " + current + " installed, " + current +
                                " wanted; functions and grants would be renewed";
  std::string empty;
  std::string empty_dsn;
};

TEST_F(InitTest, PrintedSqlMakesTheSameSchema) {
  run_printed("");
  EXPECT_EQ(dumped(empty_dsn), dumped(db.dsn()));
  EXPECT_TRUE(contains(init({}), same_version));
}

TEST_F(InitTest, PrintedSqlOfThePresentVersionRenewsFunctionsAndGrants) {
  EXPECT_TRUE(contains(init({"--dry-run"}),
                       "version 0 installed, " + current + " wanted; see --print-sql --from 0"));
  init({});
  EXPECT_TRUE(contains(init({"--dry-run"}), no_change));
  {
    pqxx::connection connection(empty_dsn);
    pqxx::nontransaction tx(connection);
    tx.exec(
        "drop function outbox.status_of_key(text); revoke select on outbox.batch from "
        "outbox_observer");
  }
  EXPECT_NE(dumped(empty_dsn), dumped(db.dsn()));
  run_printed("--from " + current);
  EXPECT_EQ(dumped(empty_dsn), dumped(db.dsn()));
  EXPECT_TRUE(contains(init({}), same_version));
}

TEST_F(InitTest, PrintedSqlBoundsItsWaitsAndTakesTheLockBeforeAnythingElse) {
  const auto printed =
      test::run_command({test::program_path("outbox-relay"), "init", "--print-sql"}, {});
  EXPECT_TRUE(contains(
      printed.output, "\nbegin isolation level read committed;\nset local lock_timeout = '30s';\n" +
                          install_lock_sql() + ";\n"))
      << printed.output;
}

TEST_F(InitTest, PrintedSqlWithoutRolesMakesTheSameSchemaAsInitWithoutRoles) {
  run_printed("--no-roles");
  const std::string printed = dumped(empty_dsn);
  empty_dsn = db.postgres().dsn(db.postgres().create_database());
  init({"--no-roles"});
  EXPECT_EQ(dumped(empty_dsn), printed);
  EXPECT_FALSE(contains(printed, "OWNER TO outbox_owner")) << printed;
}

TEST_F(InitTest, ItCanBeRepeatedAndRenewsGrants) {
  const std::string before = dumped(db.dsn());
  for (int i = 0; i < 2; ++i) {
    const auto done = db.command({"init", "--kafka"});
    EXPECT_EQ(done.code, 0) << done.output;
    EXPECT_TRUE(contains(done.output, same_version) && contains(done.output, ": was there"))
        << done.output;
  }
  EXPECT_EQ(dumped(db.dsn()), before);
  db.sql("revoke select on outbox.batch from outbox_observer");
  EXPECT_EQ(db.command({"init"}).code, 0);
  EXPECT_EQ(db.value("select has_table_privilege('outbox_observer', 'outbox.batch', 'SELECT')"),
            "t");
}

TEST_F(InitTest, DryRunChangesNothing) {
  const std::string progress = "outbox-progress.not-made." + db.name();
  db.environment["OUTBOX_RELAY_KAFKA_PROGRESS_TOPIC"] = progress;
  const std::string said = init({"--dry-run", "--kafka"});
  EXPECT_TRUE(contains(said, "version 0 installed, " + current + " wanted")) << said;
  EXPECT_TRUE(contains(said, "would create the progress topic")) << said;
  EXPECT_FALSE(empty_has_schema());
  EXPECT_THROW(test::read_log(db.kafka().brokers(), {progress}, test::Isolation::read_committed),
               std::runtime_error);
}

TEST_F(InitTest, WithoutRolesTheOwnerOfTheDatabaseRunsEverything) {
  const std::string login = "owner-" + db.name();
  db.sql("create role \"" + login + "\" login");
  db.sql("alter database \"" + empty + "\" owner to \"" + login + "\"");
  empty_dsn = db.postgres().dsn(empty, login);
  const std::string refused = init({}, 5);
  EXPECT_TRUE(contains(refused, "HINT: ") && contains(refused, "--no-roles")) << refused;
  EXPECT_FALSE(empty_has_schema());
  init({"--no-roles"});
  deliver_one();
}

TEST_F(InitTest, TheRelayWorksWithTheSchemaAfterItsOwn) {
  init({});
  {
    pqxx::connection connection(empty_dsn);
    pqxx::nontransaction(connection)
        .exec("insert into outbox.schema_version (number, name) values (" + current +
              " + 1, 'next')");
  }
  deliver_one();
}

TEST_F(InitTest, ARelayMovesScheduledMessagesWithAndWithoutTheRightToLockThem) {
  init({});
  pqxx::connection connection(empty_dsn);
  pqxx::nontransaction tx(connection);
  tx.exec("revoke update (deliver_at) on outbox.scheduled from outbox_relay");
  const std::string user = "relay-" + db.name();
  tx.exec("create role \"" + user + "\" login in role outbox_relay");
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = db.postgres().dsn(empty, user);
  auto relay = db.relay();
  relay.says("to=streaming");
  const std::string schedule =
      "select outbox.enqueue('" + db.topic("t") + "', 'k', 'x', deliver_at => now())";
  for (int moved = 1; moved <= 2; ++moved) {
    tx.exec(schedule);
    test::eventually("it is moved", [&] {
      return tx.exec("select from outbox.message").size() == static_cast<std::size_t>(moved);
    });
    if (moved == 1) init({});
  }
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(relay.output().find("maintenance_failed"), std::string::npos) << relay.output();
}

using SchemasTest = test::SchemasFixture;

TEST_F(SchemasTest, AConsumersDatabaseGetsInboxAndEffectAndNeedsNoKafka) {
  const std::string planned = init({"--schema", "inbox,effect", "--dry-run"});
  EXPECT_TRUE(contains(planned, "schema inbox: version 0 installed") &&
              contains(planned, "schema effect: version 0 installed"))
      << planned;
  EXPECT_FALSE(contains(planned, "schema outbox")) << planned;
  EXPECT_EQ(owners(), "none");
  const std::string done = init({"--schema", "inbox,effect"});
  EXPECT_TRUE(contains(done, versions(Schema::inbox, 0)) &&
              contains(done, versions(Schema::effect, 0)))
      << done;
  EXPECT_EQ(owners(), "effect of effect_owner, inbox of inbox_owner");
  EXPECT_EQ(value("select has_schema_privilege('inbox_consumer', 'inbox', 'usage') and not "
                  "has_schema_privilege('inbox_consumer', 'effect', "
                  "'usage') and has_schema_privilege('effect_worker', 'effect', 'usage') and not "
                  "has_schema_privilege('effect_worker', "
                  "'inbox', 'usage')"),
            "t");
  EXPECT_TRUE(contains(init({"--kafka"}, 2), "kafka.brokers is missing"));
}

TEST_F(SchemasTest, EachIsInstalledAloneAndRepeatedWithoutHarm) {
  for (const Schema schema : all_schemas) {
    another_database();
    const std::string name = name_of(schema);
    EXPECT_TRUE(contains(init_schemas(name), versions(schema, 0)));
    EXPECT_EQ(owners(), name + " of " + name + "_owner");
    const std::string before = dumped(dsn, schema);
    EXPECT_TRUE(contains(init_schemas(name), versions(schema, schema_version(schema))));
    EXPECT_EQ(dumped(dsn, schema), before);
  }
  another_database();
  init({}, 0, kafka);
  EXPECT_EQ(owners(), "outbox of outbox_owner");
}

TEST_F(SchemasTest, TheyAreTheSameWhicheverWayTheyAreInstalled) {
  for (const Schema schema : all_schemas) init_schemas(name_of(schema));
  std::map<Schema, std::string> one_by_one;
  for (const Schema schema : all_schemas) one_by_one[schema] = dumped(dsn, schema);
  const std::string program = test::program_path("outbox-relay");
  for (const std::string list : {"outbox,inbox,effect", "effect, inbox, outbox,inbox"}) {
    for (const bool printed : {false, true}) {
      another_database();
      if (printed) {
        const auto done = test::run_command(
            {"/bin/sh", "-c",
             "\"$0\" init --print-sql --schema \"$1\" | psql -X -v ON_ERROR_STOP=1 -q \"$2\" 2>&1",
             program, list, dsn},
            {});
        EXPECT_EQ(done.code, 0) << done.output;
      } else {
        init_schemas(list);
      }
      for (const Schema schema : all_schemas)
        EXPECT_EQ(dumped(dsn, schema), one_by_one[schema]) << list << (printed ? ", printed" : "");
    }
  }
}

TEST_F(SchemasTest, WithoutRolesTheOwnerOfTheDatabaseOwnsThem) {
  const std::string login = "owner-" + database;
  sql("create role \"" + login + "\" login; alter database \"" + database + "\" owner to \"" +
      login + "\"");
  dsn = test::shared_postgres().dsn(database, login);
  EXPECT_TRUE(contains(init({"--schema", "inbox,effect"}, 5), "--no-roles"));
  EXPECT_EQ(owners(), "none");
  for (int i = 0; i < 2; ++i) init({"--schema", "inbox,effect", "--no-roles"});
  EXPECT_EQ(owners(), "effect of " + login + ", inbox of " + login);
  EXPECT_FALSE(contains(dumped(dsn, Schema::inbox), "OWNER TO inbox_owner"));
}

// With a version that a later program may bring, and a function of it.
TEST_F(SchemasTest, AnOlderVersionIsUpgradedToTheSame) {
  for (const Schema schema : all_schemas) {
    const std::string name = name_of(schema);
    const int present = schema_version(schema);
    const std::string table = "create table " + name + ".later (number integer)";
    const std::string function = "create or replace function " + name +
                                 ".later() returns bigint language sql stable as $$ "
                                 "select count(*) from " +
                                 name + ".later $$";
    auto files = schema_files(schema);
    const auto grants = std::prev(files.end());
    files.insert(grants, {SchemaFile::Kind::functions, 0, "later", function.c_str()});
    const auto functions = std::find_if(files.begin(), files.end(), [](const SchemaFile& f) {
      return f.kind == SchemaFile::Kind::functions;
    });
    files.insert(functions, {SchemaFile::Kind::version, present + 1, "later", table.c_str()});

    another_database();
    install(dsn, schema, files, 0);
    const std::string at_once = dumped(dsn, schema);
    another_database();
    EXPECT_TRUE(contains(init_schemas(name), versions(schema, 0)));
    const std::string before = dumped(dsn, schema);
    EXPECT_NE(before, at_once);
    for (const int installed : {present, present + 1}) {
      install(dsn, schema, files, installed);
      EXPECT_EQ(dumped(dsn, schema), at_once);
    }
    EXPECT_EQ(value("select string_agg(number || ' ' || name, ', ' order by number) from " + name +
                    ".schema_version where number >= " + std::to_string(present)),
              std::to_string(present) + " " +
                  schema_files(schema)[static_cast<std::size_t>(present) + 1].name + ", " +
                  std::to_string(present + 1) + " later");
    EXPECT_TRUE(
        contains(init_schemas(name, 5), "this program knows only " + std::to_string(present)));
  }
}

// What was changed by hand, of what is applied at each init.
TEST_F(SchemasTest, RepeatedInitRestoresFunctionsViewsTriggersAndGrants) {
  init_schemas("outbox,inbox,effect");
  std::map<Schema, std::string> before;
  for (const Schema schema : all_schemas) before[schema] = dumped(dsn, schema);
  sql("create or replace function outbox.record_bytes(key bytea, payload bytea, headers jsonb) "
      "returns integer language sql immutable as "
      "$$ select 0 $$; comment on function outbox.record_bytes(bytea, bytea, jsonb) is 'mine'; "
      "drop trigger keep_released on outbox.parked; drop function outbox.status_of(uuid); grant "
      "execute on all functions in schema outbox to public; "
      "revoke select on outbox.batch from outbox_observer");
  sql("drop view inbox.statistics; drop trigger keep_handled on inbox.parked; revoke usage on "
      "schema inbox from inbox_consumer");
  sql("create or replace function effect.is_harmless(a effect.attempt) returns boolean language "
      "sql immutable as $$ select true $$; "
      "drop trigger keep_rules on effect.effect; drop trigger keep_evidence on effect.attempt; "
      "create or replace view effect.needs_review as select u.id, u.provider, u.effect_key, "
      "u.summary, u.dedup_key, u.in_doubt_since, u.attempts, "
      "u.in_doubt_attempts, u.kind, u.started_at, u.finished_at, u.phase, u.answer, u.status, "
      "u.request_id, u.error, u.key_valid_until "
      "from effect.unsettled u where false; revoke all on all tables in schema effect from "
      "effect_worker");
  for (const Schema schema : all_schemas) EXPECT_NE(dumped(dsn, schema), before[schema]);
  init_schemas("outbox,inbox,effect");
  for (const Schema schema : all_schemas) EXPECT_EQ(dumped(dsn, schema), before[schema]);
}

// All eight wait for the lock before they look at what is there. The roles are the server's:
// another database must not disturb.
TEST_F(SchemasTest, EightAtOnceAllSucceed) {
  test::ScratchPostgres server;
  another_database(server);
  std::map<Schema, std::string> once;
  for (const bool installed : {false, true}) {
    test::Process::Environment other = kafka;
    other["OUTBOX_RELAY_POSTGRES_DSN"] = server.dsn(server.create_database());
    test::Process::Environment one = kafka;
    one["OUTBOX_RELAY_POSTGRES_DSN"] = dsn;
    const std::vector<std::string> command = {test::program_path("outbox-relay"), "init",
                                              "--schema", "outbox,inbox,effect"};
    pqxx::connection connection(dsn);
    auto lock = std::make_unique<pqxx::work>(connection);
    lock->exec(install_lock_sql());
    std::vector<test::Process> at_once;
    for (int i = 0; i < 8; ++i) at_once.emplace_back(command, one);
    test::eventually(
        "all wait",
        [&] {
          return value(
                     "select count(*) from pg_locks where locktype = 'advisory' and not granted") ==
                 "8";
        },
        Millis{120'000});
    for (int i = 0; i < 2; ++i) at_once.emplace_back(command, other);
    lock->commit();
    int made = 0;
    for (auto& process : at_once) {
      EXPECT_EQ(process.wait(Millis{120'000}), 0) << process.output();
      made += contains(process.output(), versions(Schema::outbox, 0));
    }
    EXPECT_EQ(made, installed ? 1 : 2);  // in the other database as well
    EXPECT_EQ(owners(), "effect of effect_owner, inbox of inbox_owner, outbox of outbox_owner");
    for (const Schema schema : all_schemas) {
      EXPECT_EQ(value(std::string("select count(*) from ") + name_of(schema) + ".schema_version"),
                std::to_string(schema_version(schema)));
      if (!installed) once[schema] = dumped(dsn, schema);
      EXPECT_EQ(dumped(dsn, schema), once[schema]);
    }
  }
}

TEST_F(SchemasTest, WhenOneFailsNoneIsInstalled) {
  sql("create schema effect");  // somebody else's
  init_schemas("outbox,inbox,effect", 5);
  EXPECT_EQ(owners(), "effect of postgres");
  init_schemas("outbox,inbox");
  EXPECT_EQ(owners(), "effect of postgres, inbox of inbox_owner, outbox of outbox_owner");
}

TEST_F(SchemasTest, TwoLoginsInstallOneEach) {
  test::ScratchPostgres
      server;  // of its own: the logins create the roles, which are the whole server's
  another_database(server);
  for (const std::string login : {"shop_dba", "billing_dba"}) {
    sql("create role " + login + " login createrole; grant create on database \"" + database +
        "\" to " + login);
  }
  const auto as = [&](const std::string& login, const std::string& list, int was_there) {
    dsn = server.dsn(database, login);
    const std::string said = init_schemas(list);
    EXPECT_EQ(contains(said, "was 0"), was_there == 0) << login << ": " << said;
  };
  as("shop_dba", "outbox", 0);
  as("billing_dba", "inbox,effect", 0);
  as("shop_dba", "outbox", 1);
  as("billing_dba", "effect,inbox", 1);
  EXPECT_EQ(owners(), "effect of effect_owner, inbox of inbox_owner, outbox of outbox_owner");
  EXPECT_EQ(value("select pg_has_role('billing_dba', 'outbox_owner', 'member') or "
                  "pg_has_role('shop_dba', 'inbox_owner', 'member')"),
            "f");
}

TEST_F(SchemasTest, ListsThatCannotBeMeantAreMistakes) {
  for (const std::string list : {"inbox,ledger", "inbox,", ""}) {
    const std::string said = init_schemas(list, 2);
    EXPECT_TRUE(contains(said, "there is no schema") &&
                contains(said, "HINT: the schemas are outbox, inbox and effect"))
        << said;
  }
  EXPECT_TRUE(contains(init({"--schema", "inbox", "--kafka"}, 2), "--kafka: "));
  EXPECT_EQ(owners(), "none");
}

}  // namespace
}  // namespace relay
