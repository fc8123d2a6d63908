// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <pqxx/pqxx>
#include <string>
#include <vector>

#include "relay/postgres/migrations.h"
#include "tests/support/checker.h"

namespace relay::test {

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Databases without a relay and without Kafka, as a consumer has them.
class SchemasFixture : public ::testing::Test {
 protected:
  void another_database(ScratchPostgres& server = shared_postgres()) {
    database = server.create_database();
    dsn = server.dsn(database);
  }
  void SetUp() override { another_database(); }

  // Runs init; only the outbox is about Kafka.
  std::string init(std::vector<std::string> options, int code = 0, Process::Environment more = {}) {
    options.insert(options.begin(), {program_path("outbox-relay"), "init"});
    more.insert({"OUTBOX_RELAY_POSTGRES_DSN", dsn});
    const auto done = run_command(options, more);
    EXPECT_EQ(done.code, code) << done.output;
    return done.output;
  }
  std::string init_schemas(const std::string& list, int code = 0) {
    return init({"--schema", list}, code, kafka);
  }
  // What psql says of the printed SQL, which must fail.
  std::string printed_refusal(const std::string& schema) {
    const auto done = run_command(
        {"/bin/sh", "-c",
         "\"$0\" init --print-sql --schema \"$1\" | psql -X -v ON_ERROR_STOP=1 -q \"$2\" 2>&1",
         program_path("outbox-relay"), schema, dsn},
        {});
    EXPECT_NE(done.code, 0) << done.output;
    return done.output;
  }
  std::string value(const std::string& query) {
    pqxx::connection connection(dsn);
    return pqxx::nontransaction(connection).exec(query)[0][0].c_str();
  }
  void sql(const std::string& statements) {
    pqxx::connection connection(dsn);
    pqxx::nontransaction(connection).exec(statements);
  }
  // The schemas that are there, each with its owner.
  std::string owners() {
    return value(
        "select coalesce(string_agg(n.nspname || ' of ' || pg_get_userbyid(n.nspowner), ', ' order "
        "by n.nspname), 'none') "
        "from pg_namespace n where n.nspname in ('outbox', 'inbox', 'effect')");
  }
  static std::string versions(Schema schema, int was) {
    return std::string("schema ") + name_of(schema) + ": version " +
           std::to_string(schema_version(schema)) + ", was " + std::to_string(was);
  }

  const Process::Environment kafka = {{"OUTBOX_RELAY_KAFKA_BROKERS", "127.0.0.1:1"},
                                      {"OUTBOX_RELAY_TOPICS_ALLOW", "*"}};
  std::string database;
  std::string dsn;
};

}  // namespace relay::test
