// SPDX-License-Identifier: Apache-2.0
// What `init` refuses, with `--dry-run` and as printed SQL as well: each with a message of its own.
#include <gtest/gtest.h>

#include <pqxx/pqxx>
#include <utility>

#include "relay/postgres/migrations.h"
#include "tests/support/schemas_fixture.h"

namespace relay {
namespace {

using test::contains;
using InitRefusedTest = test::SchemasFixture;

// Functions are created or replaced, and what is replaced keeps its owner: nothing that another
// role has planted is adopted.
TEST_F(InitRefusedTest, WhatBelongsToAnotherRoleIsRefused) {
  const std::string mallory = "mallory-" + database;
  sql("create role \"" + mallory + "\" login; grant create on database \"" + database + "\" to \"" +
      mallory + "\"");
  {
    pqxx::connection connection(test::shared_postgres().dsn(database, mallory));
    pqxx::nontransaction(connection)
        .exec(
            "create schema inbox; create table inbox.schema_version (number integer); "
            "insert into inbox.schema_version values (1)");
  }
  for (const std::vector<std::string>& options : {std::vector<std::string>{}, {"--no-roles"}}) {
    auto all = options;
    all.insert(all.end(), {"--schema", "inbox"});
    const std::string said = init(all, 5);
    EXPECT_TRUE(contains(said, "the schema inbox belongs to \"" + mallory + "\"") &&
                contains(said, "HINT: "))
        << said;
    EXPECT_EQ(owners(), "inbox of " + mallory);
  }
  sql("drop schema inbox cascade");
  init({"--schema", "inbox"});
  sql("drop function inbox.known(text) cascade; grant usage, create on schema inbox to \"" +
      mallory + "\"");
  {
    pqxx::connection connection(test::shared_postgres().dsn(database, mallory));
    pqxx::nontransaction(connection)
        .exec(
            "create function inbox.known(consumer text) returns inbox.consumer language sql as "
            "'select null::inbox.consumer'");
  }
  const std::string said = init({"--schema", "inbox"}, 5);
  EXPECT_TRUE(
      contains(said, "inbox.known() does not belong to \"inbox_owner\", the owner of the schema"))
      << said;
}

// Whichever way it is asked to install.
TEST_F(InitRefusedTest, ASchemaThatWasLoadedWithoutDataIsRefused) {
  const std::string source = dsn;
  init_schemas("outbox,inbox,effect");
  another_database();
  const auto loaded = test::run_command(
      {"/bin/sh", "-c", "pg_dump -s \"$0\" | psql -X -q -v ON_ERROR_STOP=1 \"$1\" 2>&1", source,
       dsn},
      {});
  ASSERT_EQ(loaded.code, 0) << loaded.output;
  for (const Schema schema : all_schemas) {
    const std::string name = name_of(schema);
    for (const std::vector<std::string>& options : {std::vector<std::string>{}, {"--dry-run"}}) {
      auto all = options;
      all.insert(all.end(), {"--schema", name});
      const std::string said = init(all, 5, kafka);
      EXPECT_TRUE(contains(said, name + ".schema_version is empty: it was loaded from a dump") &&
                  contains(said, "HINT:") && !contains(said, "CREATEROLE"))
          << said;
    }
    EXPECT_TRUE(contains(printed_refusal(name), name + ".schema_version is empty"));
    sql("drop schema " + name + " cascade");  // as the hint says
    EXPECT_TRUE(contains(init_schemas(name), versions(schema, 0)));
  }
}

TEST_F(InitRefusedTest, ASchemaOfAnotherProgramIsRefused) {
  const std::string refusal =
      "the schema outbox belongs to another program: init did not create outbox.";
  const auto refused = [&](const std::string& table) {
    for (const std::vector<std::string>& options :
         {std::vector<std::string>{"--no-roles"}, {"--no-roles", "--dry-run"}}) {
      const std::string said = init(options, 5, kafka);
      EXPECT_TRUE(contains(said, refusal + table) && contains(said, "HINT:") &&
                  !contains(said, "CREATEROLE") && !contains(said, "run `outbox-relay init`"))
          << said;
    }
    const std::string with_roles = init({}, 5, kafka);
    EXPECT_TRUE(contains(with_roles, "the schema outbox belongs to \"postgres\"") &&
                !contains(with_roles, "CREATEROLE"))
        << with_roles;
  };
  sql("create schema outbox");
  EXPECT_TRUE(contains(init({"--no-roles", "--dry-run"}, 0, kafka), "version 0 installed"));
  sql("create table outbox.schema_version (version text)");  // as other tools have one
  refused("schema_version");
  sql("create table outbox.message (id integer)");
  refused("message");
  sql("drop table outbox.schema_version");
  refused("message");
  EXPECT_EQ(value("select count(*) from pg_class where relnamespace = 'outbox'::regnamespace"),
            "1");
}

TEST_F(InitRefusedTest, TheOutboxIsInstalledOnlyInEncodingsInWhichItRuns) {
  for (const std::string encoding :
       {"UTF8", "LATIN1", "LATIN9", "WIN1252", "EUC_JP", "SQL_ASCII"}) {
    const bool runs = encoding == "UTF8" || encoding == "LATIN1";
    sql("create database \"" + database + encoding + "\" template template0 encoding '" + encoding +
        "' lc_collate 'C' lc_ctype 'C'");
    const std::string kept = std::exchange(dsn, test::shared_postgres().dsn(database + encoding));
    const std::string said = init_schemas("outbox", runs ? 0 : 5);
    EXPECT_EQ(
        contains(said, "the database has the encoding " + encoding) && contains(said, "HINT:"),
        !runs)
        << said;
    if (!runs) {
      EXPECT_TRUE(contains(printed_refusal("outbox"), "has the encoding " + encoding));
    }
    EXPECT_EQ(owners(), runs ? "outbox of outbox_owner" : "none");
    init_schemas("inbox,effect");
    dsn = kept;
  }
}

TEST_F(InitRefusedTest, AnInitThatWaitsTooLongForALockSaysSo) {
  init_schemas("outbox");
  pqxx::connection connection(dsn);
  pqxx::work holder(connection);
  holder.exec(install_lock_sql());
  const std::string said = init_schemas("outbox", 3);
  EXPECT_TRUE(contains(said, "HINT: another session holds a lock that init needs") &&
              !contains(said, "CREATEROLE"))
      << said;
}

TEST_F(InitRefusedTest, ANewerVersionOfOneIsRefusedAndNothingIsInstalled) {
  for (const Schema schema : all_schemas) {
    another_database();
    const std::string name = name_of(schema);
    init_schemas(name);
    sql("insert into " + name + ".schema_version (number, name) values (77, 'future')");
    for (const std::string& list : {name, std::string("outbox,inbox,effect")}) {
      const std::string said = init_schemas(list, 5);
      EXPECT_TRUE(contains(said, "the " + name + " schema has version 77") &&
                  contains(said, "HINT: run a newer outbox-relay"))
          << said;
    }
    EXPECT_EQ(owners(), name + " of " + name + "_owner");
  }
}

}  // namespace
}  // namespace relay
