// SPDX-License-Identifier: Apache-2.0
// The keys of effects, with any writer: what plan() refuses is refused by the table, and no
// provider ever receives one key for two effects. By direct INSERT and UPDATE, as each role.
#include <gtest/gtest.h>

#include "tests/support/test_ledger.h"

namespace relay::test {
namespace {

const std::string victim = "order-1";

class EffectKeys : public ::testing::TestWithParam<const char*> {
 protected:
  EffectKeys() : writer(GetParam() == owner ? db.dsn() : db.login(GetParam())) {
    db.sql("select effect.register('bank', '{\"in_doubt_policy\": \"hold\"}')");
    db.sql("select effect.plan('bank', '" + victim + "', '{\"path\": \"/a\"}', 'body')");
  }

  bool may_insert() const { return GetParam() != operator_role && GetParam() != observer; }
  // Whether the role may write this; nothing is left of it.
  bool allowed(const std::string& statement) {
    try {
      pqxx::work tx(writer);
      tx.exec(statement);
      tx.exec("set constraints all immediate");
      return true;
    } catch (const pqxx::sql_error&) {
      return false;
    }
  }
  static std::string insert(const std::string& key, const std::string& more_columns = {},
                            const std::string& more_values = {}) {
    return "insert into effect.effect (provider, effect_key, target, body" + more_columns +
           ") values ('bank', " + key + ", '{}', ''" + more_values + ")";
  }

  static constexpr std::string_view owner = "owner";
  static constexpr std::string_view operator_role = "effect_operator";
  static constexpr std::string_view observer = "effect_observer";
  TestLedger db;
  pqxx::connection writer;
};

TEST_P(EffectKeys, WhatPlanRefusesIsRefusedByTheTable) {
  EXPECT_EQ(allowed(insert("'k'")), may_insert());
  db.sql("select effect.plan('bank', 'order-2', '{}', '')");
  const std::string other = " where effect_key = 'order-2'";
  for (const std::string key :
       {"''", "null", "' '", "' k'", "'k '", "E'\\tk'", "E'k\\t'", "'order-1##2'", "'##0'",
        "'order-1##02'", "repeat('k', 1025)", "'order-1'"}) {
    EXPECT_FALSE(allowed(insert(key))) << key;
    EXPECT_FALSE(allowed("update effect.effect set effect_key = " + key + other)) << key;
    if (key != "'order-1'") {
      EXPECT_FALSE(allowed("select effect.plan('bank', " + key + ", '{}', '')")) << key;
    }
  }
  for (const std::string dedup_key : {"''", "repeat('k', 1025)"}) {
    EXPECT_FALSE(allowed(insert("'k'", ", dedup_key", ", " + dedup_key))) << dedup_key;
    EXPECT_FALSE(allowed("update effect.effect set dedup_key = " + dedup_key + other)) << dedup_key;
  }
  for (const std::string target : {"'[]'", "'\"x\"'", "null"}) {
    EXPECT_FALSE(
        allowed("insert into effect.effect (provider, effect_key, target, body) "
                "values ('bank', 'k', " +
                target + ", '')"))
        << target;
  }
}

// With other columns than those of a request, an effect would begin as if it had been attempted.
TEST_P(EffectKeys, AnEffectBeginsPlannedWithItsOwnKey) {
  for (const auto& [column, value] :
       std::multimap<std::string, std::string>{{"generation", "2"},
                                               {"state", "'claimed'"},
                                               {"epoch", "1"},
                                               {"attempts", "1"},
                                               {"in_doubt_attempts", "1"},
                                               {"key_valid_until", "'infinity'"},
                                               {"object", "'ch-1'"},
                                               {"in_doubt_since", "now()"}}) {
    EXPECT_FALSE(allowed(insert("'k'", ", " + column, ", " + value))) << column;
  }
  // The hash is the trigger's.
  if (allowed(insert("'k'", ", request_hash", ", 'forged'"))) {
    pqxx::work tx(writer);
    const auto row = tx.exec(insert("'k'", ", request_hash", ", 'forged'") +
                             " returning request_hash = effect.hash_of(target, body)");
    EXPECT_TRUE(row[0][0].as<bool>());
  }
  EXPECT_FALSE(allowed("update effect.effect set body = 'other'"));
  EXPECT_FALSE(allowed("update effect.effect set target = '{}'"));
  EXPECT_FALSE(allowed("update effect.effect set request_hash = 'other'"));
  EXPECT_FALSE(allowed("update effect.effect set provider = 'other'"));
}

// A decision to resend gives an effect one new key, and its writer does not choose it.
TEST_P(EffectKeys, NoKeyOfAResentEffectIsThatOfAnother) {
  const std::string id = db.value("select effect.plan('bank', 'resent', '{}', '')");
  db.sql("select effect.plan('bank', 'resent#2', '{}', '')");
  db.sql("update effect.throttle set tokens = 10");
  db.sql("select effect.claim('bank', 'w', 10)");
  db.sql("select effect.settle(id, 1, 'sent') from effect.effect");
  db.sql(
      "insert into effect.decision (effect, decided_by, why, resolution, from_state, epoch) "
      "select id, 'p', 'w', 'resend', state, epoch from effect.effect");
  const std::string resend =
      "in_doubt_since = null, in_doubt_attempts = 0, key_valid_until = null, state = 'planned'";
  for (const std::string key : {"", ", generation = 2", ", generation = 3"}) {
    try {
      pqxx::work tx(writer);
      tx.exec("update effect.effect set " + resend + key + " where id = " + id);
      tx.commit();
    } catch (const pqxx::sql_error&) {
    }
    EXPECT_EQ(db.value("select count(*) - count(distinct effect.provider_key(e)) "
                       "from effect.effect e"),
              "0")
        << key;
    const std::string given =
        db.value("select effect.provider_key(e) from effect.effect e where id = " + id);
    EXPECT_TRUE(given == "resent" || given == "resent##2") << key << ": " << given;
  }
}

INSTANTIATE_TEST_SUITE_P(As, EffectKeys,
                         ::testing::Values("effect_planner", "effect_worker", "effect_operator",
                                           "effect_observer", "owner"),
                         [](const auto& role) { return std::string(role.param); });

}  // namespace
}  // namespace relay::test
