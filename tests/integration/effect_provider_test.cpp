// SPDX-License-Identifier: Apache-2.0
// Providers in the effect ledger: what their registration allows, what their effects cost each
// other, and what opens the breaker.
#include <gtest/gtest.h>

#include <list>

#include "tests/support/test_ledger.h"

namespace relay::test {
namespace {

using namespace std::chrono_literals;
using outbox::Answer;
using outbox::Phase;

class EffectProvider : public ::testing::Test {
 protected:
  EffectProvider() : dsn(db.login("effect_worker")), worker(dsn) { bank({}); }

  // Registers the provider of these tests, with `settings` that differ.
  void bank(outbox::ProviderSettings settings) {
    settings.idempotency_window = 24h;
    settings.retry_first = settings.retry_max = settings.probe_first = settings.probe_max = 1ms;
    settings.retry_per_minute = 1e6;
    db.register_provider("bank", settings);
  }
  void plan(const std::string& key) {
    pqxx::work tx(worker);
    outbox::effect::plan(tx, {.provider = "bank", .effect_key = key, .body = "x"});
    tx.commit();
  }
  // Waits until something is due.
  outbox::Claim claim() {
    std::vector<outbox::Claim> claims;
    eventually("something to claim", [&] {
      pqxx::work tx(worker);
      claims = outbox::effect::claim(tx, "bank", "w");
      tx.commit();
      return !claims.empty();
    });
    return claims.front();
  }
  void settle(const outbox::Claim& claim, const outbox::Outcome& outcome) {
    pqxx::work tx(worker);
    outbox::effect::settle(tx, claim, outcome);
    tx.commit();
  }

  std::string breaker() {
    return db.value(
        "select case when open_until is null then 'closed' else 'open' end || case when "
        "probing_until is null then '' else ' probing' end from effect.throttle");
  }

  TestLedger db;
  std::string dsn;
  pqxx::connection worker;
};

outbox::Outcome answered(Answer answer) { return {.phase = Phase::answered, .answer = answer}; }

// Two transactions that lock one row make a multixact of two members, and n of them one of n.
TEST_F(EffectProvider, ManyTransactionsAtATimeAddFewMembersToMultixacts) {
  const auto members = [&] {
    db.sql("checkpoint");
    return std::stoll(db.value("select next_multi_offset from pg_control_checkpoint()"));
  };
  constexpr int sessions = 24;
  constexpr int rounds = 10;
  std::list<pqxx::connection> connections;
  for (int i = 0; i < sessions; ++i) connections.emplace_back(dsn);
  const auto for_each = [&](const auto& step) {
    for (int round = 0; round < rounds; ++round) {
      std::list<pqxx::work> open;
      for (auto& connection : connections) step(open.emplace_back(connection));
      for (auto& tx : open) tx.commit();
    }
  };
  const std::int64_t before = members();
  int planned = 0;
  for_each([&](pqxx::work& tx) {
    outbox::effect::plan(
        tx, {.provider = "bank", .effect_key = "k" + std::to_string(++planned), .body = "x"});
  });
  std::list<outbox::Claim> claims;
  for_each([&](pqxx::work& tx) { claims.push_back(outbox::effect::claim(tx, "bank", "w").at(0)); });
  for_each([&](pqxx::work& tx) {
    EXPECT_EQ(outbox::effect::settle(tx, claims.front(), answered(Answer::done)),
              outbox::EffectState::done);
    claims.pop_front();
  });
  EXPECT_LE(members() - before, 2 * sessions * rounds);
}

TEST_F(EffectProvider, AKeyIsRefusedWhenItIsPlannedIfTheProviderDoesNotTakeIt) {
  const auto refusal = [&](std::size_t bytes) -> std::string {
    try {
      plan(std::string(bytes, 'k'));
      return "";
    } catch (const pqxx::sql_error& e) {
      return e.what();
    }
  };
  EXPECT_EQ(refusal(251), "");
  EXPECT_NE(refusal(252).find("at most 251"), std::string::npos) << "no room for ##2";
  EXPECT_NE(refusal(252).find("HINT:"), std::string::npos);
  bank({.in_doubt_policy = outbox::InDoubtPolicy::hold, .key_bytes_max = 1'028});
  EXPECT_EQ(refusal(1'024), "");
}

TEST_F(EffectProvider, AProviderThatHasEffectsIsNeitherDeletedNorRenamed) {
  const auto refused = [&](const std::string& statement) {
    try {
      db.sql(statement);
      return false;
    } catch (const pqxx::sql_error& e) {
      EXPECT_EQ(e.sqlstate(), "23503") << e.what();
      return true;
    }
  };
  const std::string deletion = "delete from effect.provider where name = 'bank'";
  const std::string renaming = "update effect.provider set name = 'new' where name = 'bank'";
  plan("k");
  EXPECT_TRUE(refused(deletion));
  EXPECT_TRUE(refused(renaming));
  EXPECT_FALSE(refused("update effect.provider set name = name, lookup_delay = '1 s'"));
  settle(claim(), answered(Answer::done));
  db.sql("select effect.prune('0')");
  {
    pqxx::connection planner(db.login("effect_planner"));
    pqxx::work open(planner);
    outbox::effect::plan(open, {.provider = "bank", .effect_key = "open"});
    EXPECT_THROW(db.sql("set lock_timeout = '10ms'; " + deletion), pqxx::sql_error)
        << "what is being planned is not left without its provider";
  }
  EXPECT_FALSE(refused(deletion));
  EXPECT_TRUE(
      refused("insert into effect.effect (provider, effect_key, target, body) values "
              "('bank', 'k', '{}', '')"));
}

// A provider that remembers a 500 answers each repeat with it.
TEST_F(EffectProvider, OneEffectThatFailsForEverDoesNotOpenTheBreaker) {
  bank({.in_doubt_policy = outbox::InDoubtPolicy::hold, .breaker_failures = 3});
  plan("stored");
  for (int i = 0; i < 12; ++i) settle(claim(), answered(Answer::failing));
  EXPECT_EQ(breaker(), "closed");
  EXPECT_EQ(db.value("select state || ' ' || in_doubt_attempts from effect.effect"), "in_doubt 1")
      << "nor does it need an operator while the key is valid";
  for (const char* key : {"a", "b"}) {
    EXPECT_EQ(breaker(), "closed");
    db.sql(
        "set session_replication_role = replica; update effect.effect set not_before = "
        "'infinity'");
    plan(key);
    settle(claim(), answered(Answer::not_now));
  }
  EXPECT_EQ(breaker(), "open") << "three effects open it";
}

// Nothing is stored where nothing answered.
TEST_F(EffectProvider, OneEffectThatIsNotAnsweredOpensTheBreaker) {
  bank({.in_doubt_policy = outbox::InDoubtPolicy::hold, .breaker_failures = 3});
  plan("k");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(breaker(), "closed");
    settle(claim(), {.phase = Phase::sent});
  }
  EXPECT_EQ(breaker(), "open");
}

// The others would wait until its claim expires.
TEST_F(EffectProvider, AProbeThatIsOverMakesRoomForTheNext) {
  db.plan("bank", "n", 4);
  outbox::Outcome wait = answered(Answer::not_now);
  wait.retry_after = 1ms;
  settle(claim(), wait);
  EXPECT_EQ(breaker(), "open");
  settle(claim(), answered(Answer::failing));
  EXPECT_EQ(breaker(), "open") << "after few failures";
  const outbox::Claim probe = claim();
  EXPECT_EQ(breaker(), "open probing");
  {
    pqxx::work tx(worker);
    outbox::effect::give_back(tx, probe, "it is stopped");
    tx.commit();
  }
  EXPECT_EQ(breaker(), "open");
  settle(claim(), answered(Answer::done));
  EXPECT_EQ(breaker(), "closed");
}

}  // namespace
}  // namespace relay::test
