// SPDX-License-Identifier: Apache-2.0
#include "tests/support/effect_world.h"

#include <fstream>
#include <iterator>
#include <stdexcept>

namespace outbox::test {
namespace {

std::string file(const std::string& name) {
  std::ifstream in(std::string(OUTBOX_SOURCE_DIR) + "/sql/effect/" + name);
  if (!in) throw std::runtime_error("no file sql/effect/" + name);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

EffectWorld::EffectWorld(ScratchPostgres& postgres) : postgres_(postgres), database_(postgres.create_database()) {
  sql(file("000_roles.sql"));
  sql("create schema effect authorization effect_owner; set role effect_owner;" + file("001_ledger.sql") + file("002_protocol.sql") +
      file("999_grants.sql"));
}

std::string EffectWorld::login(const std::string& role) {
  const std::string user = role + "-" + database_;
  sql("do $do$ begin if not exists (select from pg_roles where rolname = '" + user + "') then create role \"" + user +
      "\" login in role " + role + "; end if; end $do$");
  return postgres_.dsn(database_, user);
}

pqxx::result EffectWorld::sql(const std::string& statements) {
  pqxx::connection connection(dsn());
  pqxx::nontransaction tx(connection);
  return tx.exec(statements);
}

std::string EffectWorld::value(const std::string& statement) {
  const auto rows = sql(statement);
  return rows.empty() || rows[0][0].is_null() ? std::string() : rows[0][0].as<std::string>();
}

void EffectWorld::sabotage(const std::string& function, const std::string& right, const std::string& wrong) {
  std::string text = value("select pg_get_functiondef(p.oid) from pg_proc p where p.pronamespace = 'effect'::regnamespace and p.proname = '" +
                           function + "'");
  const auto at = text.find(right);
  if (at == std::string::npos) throw std::runtime_error("effect." + function + "() has no \"" + right + "\"");
  sql(text.replace(at, right.size(), wrong));
}

void EffectWorld::register_provider(const std::string& name, const ProviderSettings& settings) {
  pqxx::connection connection(dsn());
  pqxx::work tx(connection);
  outbox::register_provider(tx, name, settings);
  tx.commit();
}

void EffectWorld::plan(const std::string& provider, const std::string& prefix, int count) {
  sql("select count(effect.plan('" + provider + "', '" + prefix + "-' || n, '{\"to\": \"x\"}', convert_to('body ' || n, 'UTF8'))) "
      "from generate_series(1, " + std::to_string(count) + ") n");
}

}  // namespace outbox::test
