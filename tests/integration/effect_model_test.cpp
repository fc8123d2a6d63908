// SPDX-License-Identifier: Apache-2.0
// The effect ledger against a model of its rules, at random; and that the model would notice if the
// ledger were wrong.
//
// OUTBOX_SEED repeats a run, OUTBOX_ROUNDS makes it longer.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "tests/support/effect_model.h"
#include "tests/support/from_environment.h"

namespace relay::test {
namespace {

// Nothing here is about what a crash of the server leaves.
ScratchPostgres& postgres() {
  static ScratchPostgres server({"fsync=off"});
  return server;
}

int rounds() { return static_cast<int>(number_from("OUTBOX_ROUNDS", 3'000)); }

TEST(EffectModel, TheLedgerDoesWhatTheModelSays) {
  const std::uint64_t seed = seed_of_this_run();
  TestLedger db(postgres());
  const auto objection = compare_with_model(db, seed, rounds());
  EXPECT_FALSE(objection) << *objection;
}

// A defect of the ledger: in this function, `right` replaced by `wrong`; or a trigger that is off.
struct Defect {
  const char* name;
  const char* function;
  const char* right;
  const char* wrong;
};

class MutantLedger : public ::testing::TestWithParam<Defect> {};

TEST_P(MutantLedger, IsNoticedByTheModel) {
  const Defect& defect = GetParam();
  TestLedger db(postgres());
  if (std::string(defect.function).starts_with("keep_") && *defect.right == '\0') {
    db.sql(std::string("alter table ") + defect.wrong + " disable trigger " + defect.function);
  } else {
    db.mutant(defect.function, defect.right, defect.wrong);
  }
  std::optional<std::string> objection;
  for (std::uint64_t seed = 1; seed <= 5 && !objection; ++seed) {
    objection = compare_with_model(db, seed, 3'000);
    db.sql(
        "set session_replication_role = replica; delete from effect.attempt; delete from "
        "effect.decision; delete from effect.effect");
  }
  EXPECT_TRUE(objection) << "the model has nothing against it";
}

INSTANTIATE_TEST_SUITE_P(
    All, MutantLedger,
    ::testing::Values(
        Defect{"RulesAreOff", "keep_rules", "", "effect.effect"},
        Defect{"EvidenceCanBeChanged", "keep_evidence", "", "effect.attempt"},
        Defect{"AnExpiredClaimIsFree", "mark_in_doubt",
               "case step when 'operator' then 'needs_review' else 'in_doubt' end,", "'planned',"},
        Defect{"AnyEpochMaySettle", "settle",
               "if e.state <> 'claimed' or e.epoch <> a.epoch then\n    if",
               "if e.state <> 'claimed' then\n    if"},
        Defect{"ARefusalBeforeSendingSettlesADoubt", "settle",
               "(a.phase = 'answered' and a.finished_at <= e.key_valid_until)", "true"},
        Defect{"TheKeyIsValidForEver", "next_step",
               "pg_catalog.clock_timestamp() + p.claim_ttl <= e.key_valid_until",
               "e.key_valid_until is not null"},
        Defect{"ACallRenewsTheKey", "claim_one",
               "key_until := least(key_until, e.key_valid_until);", "null;"},
        Defect{"LateAnswersAreForgotten", "settle",
               "perform effect.apply_late_answer(e);\n    end if;\n    return 'stale'",
               "null;\n    end if;\n    return 'stale'"},
        Defect{"NothingSentIsADoubt", "is_harmless", "a.phase = 'nothing'", "false"},
        Defect{"FailingIsNoEffect", "is_harmless", "'unauthorized')", "'unauthorized', 'failing')"},
        Defect{"DoubtsAreNotCounted", "mark_in_doubt", "e.in_doubt_attempts + counts::integer",
               "e.in_doubt_attempts"},
        Defect{"AnotherRequestUnderTheSameKey", "plan", "hash is distinct from",
               "false and hash is distinct from"}),
    [](const auto& defect) { return defect.param.name; });

}  // namespace
}  // namespace relay::test
