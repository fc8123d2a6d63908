// SPDX-License-Identifier: Apache-2.0
// What claim() looks at when many effects were settled since an old snapshot was taken.
#include <gtest/gtest.h>

#include "tests/support/process.h"
#include "tests/support/test_ledger.h"

namespace relay::test {
namespace {

class ClaimUnderAnOldSnapshot : public ::testing::Test {
 protected:
  ClaimUnderAnOldSnapshot() {
    db.register_provider("hold", {.in_doubt_policy = outbox::InDoubtPolicy::hold});
  }
  std::int64_t plan(const std::string& key) {
    return std::stoll(db.value("select effect.plan('hold', '" + key + "', '{}', '')"));
  }
  // The id of the effect; 0: nothing was claimed.
  std::int64_t claim() {
    return std::stoll(
        db.value("select coalesce((select effect_id from effect.claim('hold', 'w')), 0)"));
  }

  TestLedger db;
};

// Settled effects stay in the indexes while an old snapshot is open, so that most looks begin
// behind them.
TEST_F(ClaimUnderAnOldSnapshot, WhatIsPlannedBehindTheBeginOfALookIsClaimedAtTheNextWholeOne) {
  db.sql(
      "update effect.throttle set planned_from = now(), retry_from = now(), expire_from = now(), "
      "noted_at = now(), whole_look_at = now() + interval '1 hour' "
      "where provider = 'hold'");
  const auto late = plan("late");
  const auto usual = plan("usual");
  db.sql(
      "set session_replication_role = replica; update effect.effect set planned_at = now() - "
      "interval '1 minute' where id = " +
      std::to_string(late));
  EXPECT_EQ(claim(), usual);
  EXPECT_EQ(claim(), 0);
  db.sql("update effect.throttle set whole_look_at = now() where provider = 'hold'");
  EXPECT_EQ(claim(), late);
}

TEST_F(ClaimUnderAnOldSnapshot, EffectsThatWereSettledAreNotLookedAtEachTime) {
  constexpr int settled = 20'000;
  db.plan("hold", "old", settled);
  db.sql("analyze effect.effect");
  pqxx::connection c(db.dsn());
  pqxx::transaction<pqxx::isolation_level::repeatable_read> old(c);
  old.exec("select count(*) from effect.effect");
  db.sql(
      "set session_replication_role = replica; update effect.effect set state = 'done', epoch = 1, "
      "attempts = 1, settled_at = now(), evidence = 'answer', planned_at = planned_at - interval "
      "'1 hour'");
  const auto next = plan("next");
  const std::string began = db.value("select clock_timestamp()");
  EXPECT_EQ(claim(), next);  // a whole look, which takes long
  ASSERT_EQ(db.value("select noted_at > '" + began +
                     "' and whole_look_at > noted_at and planned_from > '" + began +
                     "'::timestamptz - interval '10 seconds' from effect.throttle where provider = "
                     "'hold'"),
            "t");
}

TEST_F(ClaimUnderAnOldSnapshot, AClockThatRunsBackHidesNothing) {
  db.sql(
      "update effect.throttle set planned_from = now() + interval '1 hour', retry_from = now() + "
      "interval '1 hour', expire_from = now() + interval '1 hour', noted_at = now() + interval '1 "
      "hour', whole_look_at = now() + interval '2 hours' where provider = 'hold'");
  const auto planned = plan("planned");
  EXPECT_EQ(claim(), planned);
}

}  // namespace
}  // namespace relay::test
