// SPDX-License-Identifier: Apache-2.0
// The rules of the effect ledger, with any writer: every change of state from every situation, and
// every column alone, by direct UPDATE with the rights of effect_worker.
#include <gtest/gtest.h>

#include <set>

#include "tests/support/test_ledger.h"

namespace relay::test {
namespace {

class EffectRules : public ::testing::Test {
 protected:
  EffectRules() : worker(db.login("effect_worker")) {
    for (const auto& [name, settings] :
         std::map<std::string, std::string>{{"window", "'hold', 'idempotency_window', '1 day'"},
                                            {"ask", "'hold', 'supports_lookup', true"},
                                            {"hold", "'hold'"},
                                            {"resend", "'resend'"}}) {
      db.sql("select effect.register('" + name +
             "', jsonb_build_object('lookup_delay', '0', 'retry_budget_burst', 1000, "
             "'breaker_failures', 1000000, 'retry_first', '1 microsecond', 'in_doubt_policy', " +
             settings + "))");
    }
  }

  std::string plan(const std::string& provider) {
    return db.value("select effect.plan('" + provider + "', 'k" + std::to_string(++keys) +
                    "', '{}', '')");
  }
  // Claims this effect and no other.
  void claim(const std::string& id) {
    ASSERT_EQ(db.value("select (effect.claim_one(e.id, 'w', p)).effect_id from effect.effect e "
                       "join effect.provider p on p.name = e.provider "
                       "where e.id = " +
                       id),
              id);
  }
  void settle(const std::string& id, const std::string& end) {
    db.sql("select effect.settle(e.id, e.epoch, " + end +
           ") from effect.effect e where e.id = " + id);
  }
  // Records how the present attempt ended, and leaves the effect as it is.
  void finish(const std::string& id, const std::string& end) {
    db.sql(
        "update effect.attempt a set finished_at = clock_timestamp(), (phase, answer) = (select " +
        end +
        ") from effect.effect e "
        "where e.id = a.effect and e.epoch = a.epoch and e.id = " +
        id);
  }
  void expire(const std::string& id) {
    quietly(
        "update effect.effect set claim_expires_at = clock_timestamp() - interval '1 s' where id "
        "= " +
        id);
  }
  void quietly(const std::string& statement) {
    db.sql("set session_replication_role = replica; " + statement);
  }
  void decide(const std::string& id, const std::string& resolution) {
    db.sql(
        "insert into effect.decision (effect, decided_by, why, resolution, from_state, epoch) "
        "select e.id, 'p', 'w', '" +
        resolution + "', e.state, e.epoch from effect.effect e where e.id = " + id);
  }
  std::string claimed(const std::string& provider, const std::string& end = {}) {
    const std::string id = plan(provider);
    claim(id);
    if (!end.empty()) finish(id, end);
    return id;
  }
  // A second attempt, after one that left a doubt.
  std::string claimed_again(const std::string& provider, const std::string& end) {
    const std::string id = in_doubt(provider);
    claim(id);
    finish(id, end);
    return id;
  }
  std::string in_doubt(const std::string& provider) {
    const std::string id = claimed(provider);
    settle(id, "'sent'");
    return id;
  }

  // Whether effect_worker may write this; nothing is left of it.
  bool allowed(const std::string& change, const std::string& id) {
    try {
      pqxx::work tx(worker);
      const auto rows = tx.exec("update effect.effect set " + change + " where id = " + id);
      EXPECT_EQ(rows.affected_rows(), 1U) << change;
      return true;
    } catch (const pqxx::sql_error&) {
      return false;
    }
  }
  std::set<std::string> changes_of(const std::string& id) {
    const std::string free = "worker = null, claim_expires_at = null";
    const std::string doubted =
        free +
        ", in_doubt_since = coalesce(in_doubt_since, now()), "
        "in_doubt_attempts = in_doubt_attempts + (state = 'claimed')::integer";
    const std::string planned_again =
        "in_doubt_since = null, generation = generation + (state <> 'claimed')::integer, "
        "in_doubt_attempts = case state when 'claimed' then in_doubt_attempts else 0 end, "
        "key_valid_until = case state when 'claimed' then key_valid_until end";
    std::map<std::string, std::string> changes{
        {"claimed",
         "epoch = epoch + 1, attempts = attempts + 1, worker = 'w', claim_expires_at = now() + "
         "interval '1 hour'"},
        {"planned", free + ", " + planned_again},
        {"in_doubt", doubted},
        {"needs_review", doubted}};
    for (const std::string state : {"done", "failed"}) {
      for (const std::string evidence : {"answer", "repeat", "lookup", "late_answer", "decision"}) {
        changes[state + "/" + evidence] =
            free + ", settled_at = now(), evidence = '" + evidence + "'";
      }
    }
    std::set<std::string> legal;
    for (const auto& [name, columns] : changes) {
      if (allowed("state = '" + name.substr(0, name.find('/')) + "', " + columns, id))
        legal.insert(name);
    }
    return legal;
  }
  // `legal`: the new states that the situation allows; "/" and the evidence with those that settle.
  void expect(const std::string& id, const std::set<std::string>& legal,
              const std::string& situation) {
    EXPECT_EQ(changes_of(id), legal) << situation;
    // No column says by itself what no attempt and no decision has said.
    for (const std::string column : {"epoch = epoch + 1",
                                     "epoch = epoch - 1",
                                     "generation = generation + 1",
                                     "attempts = attempts + 1",
                                     "attempts = attempts - 1",
                                     "in_doubt_attempts = in_doubt_attempts + 1",
                                     "in_doubt_attempts = in_doubt_attempts - 1",
                                     "key_valid_until = 'infinity'",
                                     "key_valid_until = now()",
                                     "object = 'x'",
                                     "in_doubt_since = '-infinity'",
                                     "evidence = 'answer'",
                                     "settled_at = now()",
                                     "worker = 'thief'",
                                     "claim_expires_at = 'infinity'",
                                     "target = '{\"to\": \"thief\"}'",
                                     "body = 'other'",
                                     "request_hash = ''",
                                     "effect_key = 'other'",
                                     "provider = 'resend'",
                                     "planned_at = now()",
                                     "dedup_key = 'other'",
                                     "summary = 'other'"}) {
      EXPECT_FALSE(allowed(column, id)) << situation << ": " << column;
    }
  }

  TestLedger db;
  pqxx::connection worker;
  int keys = 0;
};

const std::set<std::string> doubt{"in_doubt", "needs_review"};

TEST_F(EffectRules, AnEffectThatIsPlannedCanBeClaimedAndNothingElse) {
  expect(plan("hold"), {"claimed"}, "planned");
  const std::string again = claimed("hold");
  settle(again, "'nothing'");
  expect(again, {"claimed"}, "planned again");
  decide(again, "failed");
  expect(again, {"claimed", "failed/decision"}, "planned, to be failed");
}

TEST_F(EffectRules, AClaimThatIsUnderWayBelongsToItsWorker) {
  const std::string id = claimed("window");
  expect(id, {}, "under way");
  expire(id);
  expect(id, doubt, "expired");
}

TEST_F(EffectRules, TheOnlyAttemptSettlesAnEffect) {
  for (const auto& [end, legal] :
       std::map<std::string, std::set<std::string>>{{"'nothing', null", {"planned"}},
                                                    {"'nothing', 'refused'", {"failed/answer"}},
                                                    {"'partly', null", {}},
                                                    {"'sent', null", {}},
                                                    {"'answered', 'done'", {"done/answer"}},
                                                    {"'answered', 'refused'", {"failed/answer"}},
                                                    {"'answered', 'not_now'", {"planned"}},
                                                    {"'answered', 'unauthorized'", {"planned"}},
                                                    {"'answered', 'in_progress'", {}},
                                                    {"'answered', 'failing'", {}}}) {
    std::set<std::string> all = doubt;
    all.insert(legal.begin(), legal.end());
    expect(claimed("window", end), all, end);
  }
}

TEST_F(EffectRules, ALaterAttemptSettlesADoubtOnlyIfItSpeaksForTheEarlierOne) {
  expect(claimed_again("window", "'nothing', null"), doubt, "repeat, nothing");
  expect(claimed_again("window", "'nothing', 'refused'"), doubt,
         "repeat, refused before it was sent");
  expect(claimed_again("window", "'answered', 'not_now'"), doubt, "repeat, not now");
  expect(claimed_again("window", "'answered', 'done'"), {"done/repeat", "in_doubt", "needs_review"},
         "repeat, done");
  expect(claimed_again("window", "'answered', 'refused'"),
         {"failed/repeat", "in_doubt", "needs_review"}, "repeat, refused");
  expect(claimed_again("resend", "'answered', 'refused'"), doubt,
         "repeat without a window, refused");
  expect(claimed_again("ask", "'answered', 'refused'"), doubt, "ask, refused");
  expect(claimed_again("ask", "'answered', 'done'"), {"done/lookup", "in_doubt", "needs_review"},
         "ask, done");
  expect(claimed_again("ask", "'answered', 'absent'"), {"planned", "in_doubt", "needs_review"},
         "ask, absent");
}

TEST_F(EffectRules, ADoubtIsResolvedByARuleOrAPerson) {
  expect(in_doubt("window"), {"claimed", "in_doubt", "needs_review"},
         "in doubt, within the window");
  const std::string over = in_doubt("window");
  quietly("update effect.effect set key_valid_until = now() where id = " + over);
  expect(over, doubt, "in doubt, after the window");
  const std::string late = in_doubt("window");
  quietly(
      "update effect.attempt set (phase, answer, late) = ('answered', 'done', true) where effect "
      "= " +
      late);
  expect(late, {"done/late_answer", "in_doubt", "needs_review"}, "in doubt, with a late answer");

  expect(in_doubt("hold"), {}, "needs an operator");
  for (const auto& [resolution, legal] : std::map<std::string, std::string>{
           {"done", "done/decision"}, {"failed", "failed/decision"}, {"resend", "planned"}}) {
    const std::string id = in_doubt("hold");
    decide(id, resolution);
    expect(id, {legal}, "needs an operator, who said " + resolution);
  }
}

TEST_F(EffectRules, WhatIsSettledStays) {
  for (const std::string end : {"'answered', 'done'", "'answered', 'refused'"}) {
    const std::string id = claimed("window");
    settle(id, end);
    for (const std::string resolution : {"done", "failed", "resend"}) decide(id, resolution);
    expect(id, {}, "settled");
  }
}

TEST_F(EffectRules, AttemptsAreOfAClaimAndFinishedOnce) {
  const std::string id = claimed("ask");
  const auto attempt = [&](const std::string& statement) {
    try {
      pqxx::work tx(worker);
      tx.exec(statement);
      return true;
    } catch (const pqxx::sql_error&) {
      return false;
    }
  };
  const std::string insert =
      "insert into effect.attempt (effect, epoch, kind, worker) values (" + id + ", ";
  EXPECT_FALSE(attempt(insert + "2, 'call', 'w')")) << "without a claim";
  EXPECT_FALSE(attempt(insert + "0, 'call', 'w')"));
  EXPECT_FALSE(attempt("update effect.attempt set worker = 'x' where effect = " + id));
  EXPECT_FALSE(attempt("delete from effect.attempt where effect = " + id));
  EXPECT_TRUE(attempt(
      "update effect.attempt set finished_at = now(), phase = 'sent' where effect = " + id));
  settle(id, "'sent'");
  for (const std::string column : {"phase = 'nothing'", "answer = 'done'", "late = true",
                                   "response = 'x'", "finished_at = null, phase = null"}) {
    EXPECT_FALSE(attempt("update effect.attempt set " + column + " where effect = " + id))
        << column;
  }
  // A claim of a doubt asks, where asking is the rule.
  const std::string claim =
      "update effect.effect set state = 'claimed', epoch = 2, attempts = 2, worker = 'w', "
      "claim_expires_at = now() "
      "where id = " +
      id + "; ";
  EXPECT_FALSE(attempt(claim + insert + "2, 'repeat', 'w')"));
  EXPECT_FALSE(attempt(claim + insert + "2, 'call', 'w')"));
  EXPECT_FALSE(attempt(claim + insert + "2, 'lookup', 'thief')"));
  EXPECT_TRUE(attempt(claim + insert + "2, 'lookup', 'w')"));
}

TEST_F(EffectRules, OnlyWhatIsSettledIsDeleted) {
  const std::string planned = plan("hold");
  const std::string under_way = claimed("hold");
  const std::string doubted = in_doubt("window");
  for (const auto& id : {planned, under_way, doubted})
    EXPECT_THROW(db.sql("delete from effect.effect where id = " + id), pqxx::sql_error);
  settle(under_way, "'answered', 'done'");
  EXPECT_EQ(db.value("select effect.prune('1 hour')"), "0");
  EXPECT_EQ(db.value("select effect.prune('0')"), "1");
  EXPECT_EQ(db.value("select count(*) from effect.attempt where effect = " + under_way), "0");
}

}  // namespace
}  // namespace relay::test
