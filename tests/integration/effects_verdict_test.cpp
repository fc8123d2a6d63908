// SPDX-License-Identifier: Apache-2.0
// The checker of effects can fail: each kind of wrong is made on purpose, and seen.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/effects_verdict.h"
#include "tests/support/test_ledger.h"

namespace relay::test {
namespace {

class EffectsVerdictTest : public ::testing::Test {
 protected:
  EffectsVerdictTest() {
    db.sql("create schema shop");
    db.sql("create table shop.effect (id text primary key, key text, nth bigint, kind text)");
    db.sql("select effect.register('bank', '{\"in_doubt_policy\": \"hold\"}')");
    for (const char* kind : {"emails", "charges", "uploads"}) {
      const std::string id = std::string("order-1-") + kind;
      db.sql("insert into shop.effect values ('" + id + "', 'anna', 1, '" + kind + "')");
      db.sql("select effect.plan('bank', '" + id + "', '{}', '', '" + id + "')");
      db.sql(
          "select effect.settle(c.effect_id, c.epoch, 'answered', 'done') from "
          "effect.claim('bank', 'w') c");
    }
    log("order-1-emails@customers.example");
    log("order-1-charges");
    log("/receipts/order-1-uploads.json?signature=7");
  }
  ~EffectsVerdictTest() override { std::filesystem::remove(file); }

  void log(const std::string& key) {
    std::ofstream(file, std::ios::app) << R"({"event": "effect", "key": ")" << key << "\"}\n";
  }
  EffectsVerdict check_delivery() {
    EffectsVerdict verdict = check_effects(db.dsn(), file);
    EXPECT_EQ(verdict.good(), verdict.examples.empty()) << verdict;
    return verdict;
  }
  const EffectsOfKind charges() { return check_delivery().kinds[1]; }

  TestLedger db;
  const std::string file = testing::TempDir() + "effects-verdict-" + std::to_string(getpid());
};

TEST_F(EffectsVerdictTest, GoodIsGood) { EXPECT_TRUE(check_delivery().good()) << check_delivery(); }

TEST_F(EffectsVerdictTest, SeesARepeat) {
  log("order-1-charges");
  EXPECT_EQ(charges().repeated, 1);
}

TEST_F(EffectsVerdictTest, SeesWhatNobodyAskedFor) {
  log("order-2-charges");
  EXPECT_EQ(charges().ghosts, 1);
}

TEST_F(EffectsVerdictTest, SeesWhatWasNeverCarriedOut) {
  db.sql("insert into shop.effect values ('order-3-charges', 'anna', 3, 'charges')");
  EXPECT_EQ(charges().lost, 1);
}

TEST_F(EffectsVerdictTest, SeesALedgerThatIsWrong) {
  db.sql("insert into shop.effect values ('order-3-charges', 'anna', 3, 'charges')");
  db.sql("select effect.plan('bank', 'order-3-charges', '{}', '', 'order-3-charges')");
  db.sql(
      "select effect.settle(c.effect_id, c.epoch, 'answered', 'done') from effect.claim('bank', "
      "'w') c");
  EXPECT_EQ(charges().contradicted, 1);
}

TEST_F(EffectsVerdictTest, SeesADoubtThatIsLeft) {
  db.sql("insert into shop.effect values ('order-3-charges', 'anna', 3, 'charges')");
  log("order-3-charges");
  db.sql("select effect.plan('bank', 'order-3-charges', '{}', '', 'order-3-charges')");
  db.sql("select effect.settle(c.effect_id, c.epoch, 'sent') from effect.claim('bank', 'w') c");
  EXPECT_EQ(charges().in_doubt, 1);
  EXPECT_EQ(charges().resolved, 0);
  db.sql(
      "select effect.resolve(e.id, 'done', 'ann', 'the log shows it') from effect.effect e where "
      "e.effect_key = 'order-3-charges'");
  EXPECT_EQ(charges().resolved, 1);
  EXPECT_TRUE(check_delivery().good()) << check_delivery();
}

}  // namespace
}  // namespace relay::test
