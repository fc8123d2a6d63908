// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tests/support/effect_report.h"
#include "tests/support/providers.h"
#include "tests/support/test_ledger.h"

namespace relay::test {

// What the settings of a provider guarantee.
struct EffectGuarantee {
  bool once = false;      // each is executed, and no doubt is left to an operator
  bool resends = false;   // a doubt is resolved by doing it again
  bool may_fail = false;  // the provider may refuse
};

struct PlannedEffect {
  std::string at;   // which of the fakes
  std::string key;  // as its log has it
  outbox::Effect effect;
};

inline void plan(TestLedger& db, const std::vector<PlannedEffect>& plans) {
  pqxx::connection connection(db.dsn());
  pqxx::work tx(connection);
  for (const PlannedEffect& p : plans) outbox::effect::plan(tx, p.effect);
  tx.commit();
}

// Adds one effect, by the log of its provider and the state in the ledger. REQUIRES: nothing is
// under way.
inline void check_effect(EffectReport& found, TestLedger& db, const FakeProviders& providers,
                         const PlannedEffect& planned, const EffectGuarantee& guarantee) {
  const std::string state = db.value("select state from effect.effect where effect_key = '" +
                                     planned.effect.effect_key + "'");
  const auto times = static_cast<std::int64_t>(providers.effects(planned.at, planned.key));
  const std::string what =
      planned.key + " is " + state + ", and was executed " + std::to_string(times) + " times";
  ++found.asked;
  found.executed += times > 0;
  found.needs_review += state == "needs_review";
  if (times > 1 && !guarantee.resends) found.wrong(&EffectReport::repeated, what, times - 1);
  if (state == "done" && times == 0) found.wrong(&EffectReport::lost, what);
  if (state == "failed" && (times > 0 || !guarantee.may_fail))
    found.wrong(times > 0 ? &EffectReport::journal : &EffectReport::lost, what);
  if (state == "needs_review" ? guarantee.once : state != "done" && state != "failed")
    found.wrong(&EffectReport::stuck, what);
}

}  // namespace relay::test
