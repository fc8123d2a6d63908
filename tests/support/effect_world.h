// SPDX-License-Identifier: Apache-2.0
// One effect ledger: a database of its own with the schema effect in it.
#pragma once

#include <pqxx/pqxx>
#include <string>

#include "outbox/effect.h"
#include "tests/support/scratch_servers.h"

namespace outbox::test {

class EffectWorld {
 public:
  explicit EffectWorld(ScratchPostgres& postgres = shared_postgres());

  std::string dsn() const { return postgres_.dsn(database_); }
  const std::string& database() const { return database_; }
  ScratchPostgres& postgres() { return postgres_; }
  // A login with the rights of this role and no others; its connection string.
  std::string login(const std::string& role);

  // Statements on a connection of its own, as the superuser.
  pqxx::result sql(const std::string& statements);
  // First column of the first row; empty: there is none, or null.
  std::string value(const std::string& statement);
  // The same function, with `wrong` in place of `right`: a deliberate defect. Throws when it does not contain `right`.
  void sabotage(const std::string& function, const std::string& right, const std::string& wrong);

  void register_provider(const std::string& name, const ProviderSettings& settings);
  // Plans `count` effects whose keys are prefix-1, prefix-2, …
  void plan(const std::string& provider, const std::string& prefix, int count);

 private:
  ScratchPostgres& postgres_;
  std::string database_;
};

}  // namespace outbox::test
