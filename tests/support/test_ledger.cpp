// SPDX-License-Identifier: Apache-2.0
#include "tests/support/test_ledger.h"

#include <stdexcept>

namespace relay::test {

void TestLedger::mutant(const std::string& function, const std::string& right,
                        const std::string& wrong) {
  std::string text = value(
      "select pg_get_functiondef(p.oid) from pg_proc p where p.pronamespace = "
      "'effect'::regnamespace and p.proname = '" +
      function + "'");
  const auto at = text.find(right);
  if (at == std::string::npos)
    throw std::runtime_error("effect." + function + "() has no \"" + right + "\"");
  sql(text.replace(at, right.size(), wrong));
}

void TestLedger::register_provider(const std::string& name,
                                   const outbox::ProviderSettings& settings) {
  pqxx::connection connection(dsn());
  pqxx::work tx(connection);
  outbox::effect::register_provider(tx, name, settings);
  tx.commit();
}

void TestLedger::plan(const std::string& provider, const std::string& prefix, int count) {
  sql("select count(effect.plan('" + provider + "', '" + prefix +
      "-' || n, '{\"to\": \"x\"}', convert_to('body ' || n, 'UTF8'))) "
      "from generate_series(1, " +
      std::to_string(count) + ") n");
}

}  // namespace relay::test
