// SPDX-License-Identifier: Apache-2.0
// Databases with the schema inbox in them, for tests of consumers.
#pragma once

#include <fstream>
#include <pqxx/pqxx>
#include <sstream>
#include <string>

#include "tests/support/scratch_servers.h"

namespace outbox::test {

// Creates the schema inbox with its roles, from the files that `outbox-relay init --schema inbox` runs.
inline void create_inbox(const std::string& dsn) {
  pqxx::connection connection(dsn);
  const auto run = [&](const std::string& file) {
    std::ostringstream text;
    text << std::ifstream(std::string(OUTBOX_SOURCE_DIR) + "/sql/inbox/" + file).rdbuf();
    pqxx::work tx(connection);
    // Roles belong to all databases of the server: two tests may make them at once.
    tx.exec("select pg_advisory_xact_lock(7001)");
    tx.exec(text.str());
    tx.commit();
  };
  run("000_roles.sql");
  {
    pqxx::work tx(connection);
    tx.exec("create schema if not exists inbox authorization inbox_owner");
    tx.commit();
  }
  run("001_inbox.sql");
  run("999_grants.sql");
}

// A database of its own with the schema inbox.
class InboxWorld {
 public:
  explicit InboxWorld(ScratchPostgres& postgres = shared_postgres()) : postgres_(postgres), database_(postgres.create_database()) {
    create_inbox(dsn());
  }

  ScratchPostgres& postgres() { return postgres_; }
  const std::string& database() const { return database_; }
  std::string dsn() const { return postgres_.dsn(database_); }
  // Creates a login with the rights of this role and no others; its connection string. Once per role.
  std::string login(const std::string& role) {
    const std::string user = role + "-" + database_;
    sql("create role \"" + user + "\" login in role " + role);
    return postgres_.dsn(database_, user);
  }
  // One statement on a connection of its own.
  pqxx::result sql(const std::string& statement) const {
    pqxx::connection connection(dsn());
    pqxx::nontransaction tx(connection);
    return tx.exec(statement);
  }
  // First column of the first row.
  std::string value(const std::string& statement) const {
    const auto rows = sql(statement);
    return rows.empty() || rows[0][0].is_null() ? std::string() : rows[0][0].as<std::string>();
  }

 private:
  ScratchPostgres& postgres_;
  const std::string database_;
};

}  // namespace outbox::test
