// SPDX-License-Identifier: Apache-2.0
// The effect ledger through the C++ API: what is planned, claimed, settled and decided, by whom,
// and what happens to those who come too late. The rules themselves: effect_rules_test.cpp and
// effect_model_test.cpp.
#include <gtest/gtest.h>
#include <signal.h>

#include <future>
#include <set>
#include <thread>

#include "tests/support/process.h"
#include "tests/support/test_ledger.h"

namespace relay::test {
namespace {

using namespace std::chrono_literals;
using Why = outbox::EffectRefused::Why;

constexpr auto soon = 1ms;

template <class Step>
auto commit(pqxx::connection& connection, const Step& step) {
  pqxx::work tx(connection);
  auto result = step(tx);
  tx.commit();
  return result;
}

class EffectLedger : public ::testing::Test {
 protected:
  EffectLedger() : worker(db.login("effect_worker")) {
    db.register_provider("hold",
                         {.in_doubt_policy = outbox::InDoubtPolicy::hold, .retry_first = soon});
    db.register_provider("window", {.in_doubt_policy = outbox::InDoubtPolicy::hold,
                                    .idempotency_window = 24h,
                                    .retry_first = soon});
  }
  std::int64_t plan(const std::string& provider, const std::string& key = "k",
                    const std::string& body = "body") {
    const outbox::Effect effect{
        .provider = provider, .effect_key = key, .target = {{"to", "x"}}, .body = body};
    return commit(worker, [&](auto& tx) { return outbox::effect::plan(tx, effect); });
  }
  std::vector<outbox::Claim> claim(const std::string& provider, int max = 1) {
    return commit(worker, [&](auto& tx) { return outbox::effect::claim(tx, provider, "w", max); });
  }
  // Waits until something is due.
  outbox::Claim claimed(const std::string& provider) {
    std::vector<outbox::Claim> claims;
    eventually("something to claim", [&] { return !(claims = claim(provider)).empty(); });
    return claims.front();
  }
  outbox::EffectState settle(const outbox::Claim& claim, const outbox::Outcome& outcome) {
    return commit(worker, [&](auto& tx) { return outbox::effect::settle(tx, claim, outcome); });
  }
  std::string state_of(std::int64_t id) {
    return db.value("select state || coalesce(' ' || evidence, '') from effect.effect where id = " +
                    std::to_string(id));
  }
  void expire(std::int64_t id) {
    db.sql(
        "set session_replication_role = replica; update effect.effect set claim_expires_at = "
        "clock_timestamp() where id = " +
        std::to_string(id));
  }

  TestLedger db;
  pqxx::connection worker;
};

const outbox::Outcome done{.phase = outbox::Phase::answered,
                           .answer = outbox::Answer::done,
                           .status = 201,
                           .request_id = "req-1",
                           .object = "ch-1"};
const outbox::Outcome unknown{.phase = outbox::Phase::sent, .error = "connection reset"};

TEST_F(EffectLedger, TheSameEffectIsPlannedOnceAndAnotherRequestUnderItsKeyIsRefused) {
  const auto id = plan("hold");
  EXPECT_EQ(plan("hold"), id);
  EXPECT_NE(plan("window"), id) << "another provider's";
  try {
    plan("hold", "k", "another body");
    FAIL() << "the ledger took another request";
  } catch (const outbox::EffectRefused& e) {
    EXPECT_EQ(e.why(), Why::other_request);
    EXPECT_NE(std::string(e.what()).find("HINT:"), std::string::npos) << e.what();
  }
  try {
    plan("nobody");
    FAIL() << "nobody has registered it";
  } catch (const outbox::EffectRefused& e) {
    EXPECT_EQ(e.why(), Why::unknown_provider);
    EXPECT_NE(std::string(e.what()).find("HINT:"), std::string::npos) << e.what();
  }
  EXPECT_THROW(plan("hold", ""), outbox::InvalidEffect);
  EXPECT_THROW(plan("hold", std::string(1025, 'x')), outbox::InvalidEffect);
  EXPECT_THROW(plan("hold", "\xff"), outbox::InvalidEffect);
  EXPECT_THROW(plan("hold", std::string("a\0b", 3)), outbox::InvalidEffect);
}

TEST_F(EffectLedger, TheRequestArrivesByteForByteAtEachAttempt) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  const std::string awkward = "a\"b\\c{}\xC3\xA4\n";
  const std::map<std::string, std::string> target{{awkward, awkward}, {"empty", ""}};
  commit(worker, [&](auto& tx) {
    return outbox::effect::plan(tx, {"window", awkward, target, bytes, awkward, awkward});
  });
  for (const outbox::AttemptKind kind : {outbox::AttemptKind::call, outbox::AttemptKind::repeat}) {
    const outbox::Claim c = claimed("window");
    EXPECT_EQ(c.kind, kind);
    EXPECT_EQ(c.ttl, 2min);
    EXPECT_EQ(c.request.effect_key, awkward);
    EXPECT_EQ(c.request.provider_key, awkward);
    EXPECT_EQ(c.request.target, target);
    EXPECT_EQ(c.request.body, bytes);
    EXPECT_EQ(settle(c, unknown), outbox::EffectState::in_doubt);
  }
}

TEST_F(EffectLedger, WhateverAnAdapterSaysIsKept) {
  plan("hold");
  const std::string dirty = "\xff" + std::string("\0", 1) + std::string(5'000, 'x');
  EXPECT_EQ(settle(claimed("hold"), {.phase = outbox::Phase::answered,
                                     .answer = outbox::Answer::refused,
                                     .status = 402,
                                     .request_id = dirty,
                                     .object = dirty,
                                     .response = dirty,
                                     .error = dirty,
                                     .retry_after = std::chrono::milliseconds::max()}),
            outbox::EffectState::failed);
  EXPECT_EQ(db.value("select octet_length(response) || ' ' || status from effect.attempt"),
            "4096 402");
  plan("hold", "contradiction");
  db.sql("update effect.throttle set open_until = null");
  EXPECT_EQ(
      settle(claimed("hold"), {.phase = outbox::Phase::nothing, .answer = outbox::Answer::done}),
      outbox::EffectState::needs_review)
      << "never as nothing";
}

TEST_F(EffectLedger, NoFigureOfAProviderStopsItForMoreThanADay) {
  plan("hold");
  EXPECT_EQ(settle(claimed("hold"), {.phase = outbox::Phase::answered,
                                     .answer = outbox::Answer::not_now,
                                     .retry_after = std::chrono::hours{24 * 365 * 1000}}),
            outbox::EffectState::planned);
  EXPECT_EQ(db.value("select max(not_before) <= now() + interval '1 day' and max(open_until) <= "
                     "now() + interval '1 day' "
                     "from effect.effect, effect.throttle"),
            "t");
}

TEST_F(EffectLedger, AnOutcomeCanBeSettledAgain) {
  const auto id = plan("hold");
  const outbox::Claim c = claimed("hold");
  EXPECT_EQ(settle(c, done), outbox::EffectState::done);
  EXPECT_EQ(settle(c, done), outbox::EffectState::done);
  EXPECT_EQ(settle(c, unknown), outbox::EffectState::stale);
  EXPECT_EQ(state_of(id), "done answer");
  outbox::Claim none = c;
  none.epoch = 7;
  EXPECT_THROW(settle(none, done), outbox::EffectRefused);
}

TEST_F(EffectLedger, ADoubtOutsideTheWindowGoesToAPerson) {
  const auto id = plan("hold");
  EXPECT_EQ(settle(claimed("hold"), unknown), outbox::EffectState::needs_review);
  EXPECT_TRUE(claim("hold").empty());
  EXPECT_EQ(db.value("select id from effect.needs_review"), std::to_string(id));

  const auto with_key = plan("window");
  EXPECT_EQ(settle(claimed("window"), unknown), outbox::EffectState::in_doubt);
  db.sql(
      "set session_replication_role = replica; update effect.effect set key_valid_until = "
      "clock_timestamp() where state = 'in_doubt'");
  eventually("the window is over",
             [&] { return claim("window").empty() && state_of(with_key) == "needs_review"; });

  db.register_provider("window",
                       {.in_doubt_policy = outbox::InDoubtPolicy::resend, .retry_first = soon});
  const auto resent = plan("window", "resent");
  EXPECT_EQ(settle(claimed("window"), unknown), outbox::EffectState::in_doubt);
  EXPECT_EQ(claimed("window").effect, resent);
}

TEST_F(EffectLedger, APersonDecides) {
  const auto id = plan("hold");
  pqxx::connection operator_session(db.login("effect_operator"));
  const auto resolve = [&](outbox::Resolution r) {
    return commit(operator_session, [&](auto& tx) {
      return outbox::effect::resolve(tx, id, r, "p", "asked them", "ch-7");
    });
  };
  const outbox::Claim first = claimed("hold");
  EXPECT_THROW(resolve(outbox::Resolution::done), outbox::EffectRefused) << "under way";
  settle(first, unknown);
  EXPECT_EQ(resolve(outbox::Resolution::resend), outbox::EffectState::planned);
  const outbox::Claim again = claimed("hold");
  EXPECT_EQ(again.kind, outbox::AttemptKind::call);
  EXPECT_EQ(again.request.provider_key, "k##2");
  settle(again, unknown);
  EXPECT_EQ(resolve(outbox::Resolution::done), outbox::EffectState::done);
  EXPECT_EQ(state_of(id), "done decision");
  EXPECT_EQ(db.value("select object from effect.effect"), "ch-7");
  EXPECT_THROW(resolve(outbox::Resolution::failed), outbox::EffectRefused);
  EXPECT_EQ(db.value("select string_agg(resolution || ' from ' || from_state, ', ' order by "
                     "decided_at) from effect.decision"),
            "resend from needs_review, done from needs_review");
}

TEST_F(EffectLedger, APersonNeedsNoWorkerToDecideAboutAClaimThatHasExpired) {
  const auto id = plan("hold");
  claimed("hold");
  expire(id);
  pqxx::connection operator_session(db.login("effect_operator"));
  EXPECT_EQ(commit(operator_session,
                   [&](auto& tx) {
                     return outbox::effect::resolve(tx, id, outbox::Resolution::failed, "p",
                                                    "it never arrived");
                   }),
            outbox::EffectState::failed);
  EXPECT_EQ(db.value("select from_state from effect.decision"), "needs_review");
}

TEST_F(EffectLedger, AnAnswerThatComesTooLateIsKeptAndResolvesTheDoubt) {
  const auto id = plan("hold");
  const outbox::Claim c = claimed("hold");
  expire(id);
  EXPECT_TRUE(claim("hold").empty());
  EXPECT_EQ(state_of(id), "needs_review");
  EXPECT_EQ(settle(c, done), outbox::EffectState::stale);
  EXPECT_EQ(state_of(id), "done late_answer");
  EXPECT_EQ(
      db.value(
          "select object || ' ' || late from effect.attempt join effect.effect using (object)"),
      "ch-1 true");
}

TEST_F(EffectLedger, ALateAnswerOverrulesWhatALaterAttemptSays) {
  const auto id = plan("window");
  const outbox::Claim first = claimed("window");
  expire(id);
  outbox::Claim second{};
  eventually("a repeat", [&] {
    const auto claims = claim("window");
    if (!claims.empty()) second = claims.front();
    return !claims.empty();
  });
  EXPECT_EQ(second.kind, outbox::AttemptKind::repeat);
  EXPECT_EQ(settle(first, done), outbox::EffectState::stale);
  EXPECT_EQ(state_of(id), "claimed");
  EXPECT_EQ(settle(second, {.phase = outbox::Phase::answered, .answer = outbox::Answer::refused}),
            outbox::EffectState::done);
  EXPECT_EQ(state_of(id), "done late_answer");
}

// The claim of a process that was paused, with the answer in its hands.
TEST_F(EffectLedger, APausedWorkerSettlesUnderItsOldEpochAndChangesNothing) {
  db.register_provider("window", {.in_doubt_policy = outbox::InDoubtPolicy::hold,
                                  .idempotency_window = 24h,
                                  .claim_ttl = 100ms,
                                  .retry_first = soon});
  const auto id = plan("window");
  const std::string psql = run_command({"/bin/sh", "-c", "command -v psql"}, {}).output;
  Process paused(
      {"/bin/sh", "-c",
       "psql -qAt \"$DSN\" -c \"select effect.claim('window', 'paused')\" && kill -STOP $$ && "
       "psql -qAt \"$DSN\" -c \"select 'it is ' || effect.settle(" +
           std::to_string(id) + ", 1, 'answered', 'refused')\""},
      {{"DSN", db.login("effect_worker")}});
  paused.stops();
  const outbox::Claim repeat = claimed("window");
  EXPECT_EQ(repeat.epoch, 2);
  paused.signal(SIGCONT);
  paused.says("it is stale");
  EXPECT_EQ(state_of(id), "claimed");
  EXPECT_EQ(settle(repeat, done), outbox::EffectState::done);
  EXPECT_EQ(db.value("select string_agg(epoch || ' ' || answer || ' ' || late, ', ' order by "
                     "epoch) from effect.attempt"),
            "1 refused true, 2 done false");
}

TEST_F(EffectLedger, NoEffectIsHandedToTwoWorkers) {
  db.plan("window", "n", 400);
  std::vector<std::future<std::vector<std::int64_t>>> workers;
  for (int w = 0; w < 20; ++w) {
    workers.push_back(
        std::async(std::launch::async, [&, dsn = db.login("effect_worker"), max = 1 + w % 3] {
          pqxx::connection connection(dsn);
          std::vector<std::int64_t> ids;
          for (;;) {
            const auto claims = commit(connection, [&](auto& tx) {
              return outbox::effect::claim(tx, "window", "w", max);
            });
            if (claims.empty()) return ids;
            for (const outbox::Claim& c : claims) ids.push_back(c.effect);
          }
        }));
  }
  std::multiset<std::int64_t> all;
  for (auto& w : workers) {
    for (const auto id : w.get()) all.insert(id);
  }
  EXPECT_EQ(all.size(), 400U);
  EXPECT_EQ(std::set<std::int64_t>(all.begin(), all.end()).size(), 400U);
}

TEST_F(EffectLedger, NeitherRetriesNorFirstAttemptsStarveTheOther) {
  db.sql("select effect.register('window', '{\"retry_per_minute\": 0.001}')");
  plan("window", "doubt");
  settle(claimed("window"), unknown);
  db.sql("update effect.throttle set tokens = 0");
  plan("window", "first");
  EXPECT_EQ(claimed("window").request.effect_key, "first") << "no retry is paid for";
  EXPECT_TRUE(claim("window").empty());
  db.sql("select effect.register('window', '{\"retry_per_minute\": 600}')");
  plan("window", "second");
  std::set<std::string> keys;
  eventually("time pays for the retry", [&] {
    for (const outbox::Claim& c : claim("window")) keys.insert(c.request.effect_key);
    return keys.size() == 2;
  });
  EXPECT_EQ(keys, (std::set<std::string>{"doubt", "second"}));
}

TEST_F(EffectLedger, ABreakerWithoutAnythingToDoStaysReadyForAProbe) {
  db.sql(
      "update effect.throttle set open_until = clock_timestamp(), opened = 3, failures = 5 where "
      "provider = 'hold'");
  EXPECT_TRUE(claim("hold").empty());
  db.plan("hold", "n", 2);
  const auto probe = claim("hold", 10);
  ASSERT_EQ(probe.size(), 1U);
  EXPECT_TRUE(claim("hold", 10).empty()) << "one probe at a time";
  EXPECT_EQ(settle(probe.front(), done), outbox::EffectState::done);
  EXPECT_EQ(claim("hold", 10).size(), 1U);
}

// Twelve full mailboxes, one of which is always due, are not all that is ever tried.
TEST_F(EffectLedger, WhatGoesOnFailingDoesNotKeepTheBreakerOpenForTheOthers) {
  db.register_provider(
      "hold",
      {.in_doubt_policy = outbox::InDoubtPolicy::hold, .retry_first = soon, .breaker_failures = 5});
  const outbox::Outcome full{
      .phase = outbox::Phase::answered, .answer = outbox::Answer::not_now, .status = 452};
  db.plan("hold", "full", 12);
  for (const outbox::Claim& c : claim("hold", 12))
    EXPECT_EQ(settle(c, full), outbox::EffectState::planned);
  plan("hold", "healthy");
  int probes = 0;
  for (bool healthy = false; !healthy; ++probes) {
    ASSERT_LT(probes, 4);
    db.sql(
        "set session_replication_role = replica; update effect.throttle set open_until = "
        "clock_timestamp(), tokens = 10; "
        "update effect.effect set not_before = clock_timestamp() where attempts > 0");
    const outbox::Claim probe = claimed("hold");
    healthy = probe.request.effect_key == "healthy";
    settle(probe, healthy ? done : full);
  }
  EXPECT_EQ(claim("hold", 5).size(), 5U) << "the breaker is closed";
}

// Another probe is no reason for another doubt.
TEST_F(EffectLedger, AnOutageIsProbedWithWhatIsInDoubtAlready) {
  db.register_provider("window", {.in_doubt_policy = outbox::InDoubtPolicy::hold,
                                  .idempotency_window = 24h,
                                  .retry_first = soon,
                                  .breaker_failures = 5});
  db.plan("window", "n", 60);
  for (const outbox::Claim& c : claim("window", 5)) settle(c, unknown);
  for (int probes = 0; probes < 40; ++probes) {
    db.sql(
        "set session_replication_role = replica; update effect.throttle set open_until = "
        "clock_timestamp(), tokens = 10; "
        "update effect.effect set not_before = clock_timestamp() where attempts > 0");
    settle(claimed("window"), unknown);
  }
  EXPECT_LE(std::stoi(db.value("select count(*) from effect.effect where state = 'in_doubt'")), 9);
}

TEST_F(EffectLedger, NoOtherEffectHasTheKeyOfOneThatIsSentAgain) {
  const auto other = plan("hold", "order-1#2");
  EXPECT_EQ(settle(claimed("hold"), done), outbox::EffectState::done);
  const auto id = plan("hold", "order-1");
  EXPECT_EQ(settle(claimed("hold"), unknown), outbox::EffectState::needs_review);
  pqxx::connection operator_session(db.login("effect_operator"));
  commit(operator_session, [&](auto& tx) {
    return outbox::effect::resolve(tx, id, outbox::Resolution::resend, "p", "asked them");
  });
  EXPECT_EQ(claimed("hold").request.provider_key, "order-1##2");
  EXPECT_NE(other, id);
  for (const char* key : {"", " ", " k", "k\t", "order-1##2", "##0"}) {
    EXPECT_THROW(plan("hold", key), outbox::InvalidEffect) << "\"" << key << "\"";
  }
  for (const char* key : {"order-1#3", "2", "order-1##", "order-1##2a"}) plan("hold", key);
}

// The key was valid when the call began; when the refusal was recorded, the provider may have taken
// it for the first one.
TEST_F(EffectLedger, ARefusalBehindTheWindowSpeaksForNoEarlierAttempt) {
  const auto id = plan("window");
  EXPECT_EQ(settle(claimed("window"), unknown), outbox::EffectState::in_doubt);
  const outbox::Claim repeat = claimed("window");
  EXPECT_EQ(repeat.kind, outbox::AttemptKind::repeat);
  db.sql(
      "set session_replication_role = replica; update effect.effect set key_valid_until = (select "
      "max(a.started_at) from effect.attempt a)");
  EXPECT_EQ(
      settle(repeat,
             {.phase = outbox::Phase::answered, .answer = outbox::Answer::refused, .status = 402}),
      outbox::EffectState::needs_review);
  EXPECT_EQ(state_of(id), "needs_review");
}

// What is kept costs nothing when what is old is looked for.
TEST_F(EffectLedger, PruningReadsWhatItDeletes) {
  db.sql(
      "set session_replication_role = replica; insert into effect.effect (provider, effect_key, "
      "target, body, request_hash, state, settled_at, "
      "evidence) select 'hold', g, '{}', '', '', 'done', now(), 'answer' from generate_series(1, "
      "20000) g; analyze effect.effect; "
      "select pg_stat_reset()");
  db.sql("select effect.prune('90 days')");
  eventually("the reading is counted", [&] {
    return db.value(
               "select idx_scan > 0 from pg_stat_user_indexes where indexrelname = "
               "'effect_settled'") == "t";
  });
  EXPECT_LT(
      std::stoll(db.value(
          "select idx_tup_read from pg_stat_user_indexes where indexrelname = 'effect_settled'")),
      100);
}

// What only a defect can leave must not stop the others.
TEST_F(EffectLedger, AClaimWithoutItsAttemptEndsInDoubt) {
  const auto id = plan("hold");
  db.sql(
      "update effect.effect set state = 'claimed', epoch = 1, attempts = 1, worker = 'w', "
      "claim_expires_at = clock_timestamp()");
  plan("hold", "other");
  EXPECT_EQ(claimed("hold").request.effect_key, "other");
  EXPECT_EQ(state_of(id), "needs_review");
}

// With a clock that was set back nothing is spent that was not there.
TEST_F(EffectLedger, ATimeThatRunsBackCostsNoRetries) {
  plan("window");
  settle(claimed("window"), unknown);
  db.sql(
      "update effect.throttle set tokens = 1, refilled_at = clock_timestamp() + interval '1 hour'");
  claimed("window");
  EXPECT_EQ(db.value("select tokens from effect.throttle where provider = 'window'"), "0");
}

TEST_F(EffectLedger, AClaimInAnOldSnapshotIsRefusedOrRight) {
  plan("window");
  pqxx::connection other(db.login("effect_worker"));
  pqxx::transaction<pqxx::isolation_level::repeatable_read> old(other);
  old.exec("select count(*) from effect.effect");
  claimed("window");
  EXPECT_THROW(outbox::effect::claim(old, "window", "w"), pqxx::failure);
}

TEST_F(EffectLedger, WhatIsForgottenInACrashWasNotClaimed) {
  plan("hold");
  const std::string dsn = db.login("effect_worker");
  db.sql("alter role \"effect_worker-" + db.name() + "\" set synchronous_commit = off");
  pqxx::connection careless(dsn);
  pqxx::work tx(careless);
  EXPECT_EQ(tx.exec("show synchronous_commit")[0][0].as<std::string>(), "off");
  const outbox::Claim c = outbox::effect::claim(tx, "hold", "w").front();
  EXPECT_EQ(tx.exec("show synchronous_commit")[0][0].as<std::string>(), "on");
  tx.commit();
  pqxx::work settling(careless);
  outbox::effect::settle(settling, c, done);
  EXPECT_EQ(settling.exec("show synchronous_commit")[0][0].as<std::string>(), "on");
}

TEST_F(EffectLedger, AWorkerCanRegisterWhileSomebodyPlans) {
  pqxx::connection consumer(db.login("effect_planner"));
  pqxx::work open(consumer);
  outbox::effect::plan(open, {.provider = "hold", .effect_key = "open"});
  commit(worker, [](auto& tx) {
    tx.exec("set local lock_timeout = '5s'");
    outbox::effect::register_provider(
        tx, "hold", {.in_doubt_policy = outbox::InDoubtPolicy::hold, .in_doubt_attempts_max = 3});
    return 0;
  });
  EXPECT_EQ(db.value("select in_doubt_attempts_max from effect.provider where name = 'hold'"), "3");
  db.sql("select effect.register('hold', '{\"in_doubt_attempts_max\": 4}')");
  EXPECT_EQ(db.value("select in_doubt_attempts_max || ' ' || in_doubt_policy from effect.provider "
                     "where name = 'hold'"),
            "4 hold");
  EXPECT_THROW(db.sql("select effect.register('new', '{\"in_doubt_attempts_max\": 4}')"),
               pqxx::sql_error)
      << "in_doubt_policy is declared";
  EXPECT_THROW(db.sql("select effect.register('hold', '{\"doubt_max\": 4}')"), pqxx::sql_error);
}

TEST_F(EffectLedger, SeveralWorkersCanRegisterANewProviderAtOnce) {
  const std::string dsn = db.login("effect_worker");
  std::vector<std::future<void>> workers;
  for (int w = 1; w <= 10; ++w) {
    workers.push_back(std::async(std::launch::async, [&dsn, w] {
      pqxx::connection connection(dsn);
      pqxx::work tx(connection);
      outbox::effect::register_provider(
          tx, "new", {.in_doubt_policy = outbox::InDoubtPolicy::hold, .in_doubt_attempts_max = w});
      tx.commit();
    }));
  }
  for (auto& w : workers) EXPECT_NO_THROW(w.get());
  EXPECT_EQ(db.value("select count(*) from effect.provider join effect.throttle on provider = name "
                     "where name = 'new'"),
            "1");
}

TEST_F(EffectLedger, EachRoleCanDoItsPartAndNoMore) {
  const auto may = [&](const std::string& role, const std::string& statement) {
    pqxx::connection connection(db.login(role));
    try {
      pqxx::work(connection).exec(statement);
      return true;
    } catch (const pqxx::sql_error& e) {
      EXPECT_NE(std::string(e.what()).find("permission denied"), std::string::npos)
          << statement << ": " << e.what();
      return false;
    }
  };
  const std::string id = std::to_string(plan("hold"));
  settle(claimed("hold"), unknown);
  const std::string plan = "select effect.plan('hold', 'k', '{\"to\": \"x\"}', 'body')";
  const std::string claim = "select effect.claim('hold', 'w')";
  const std::string decide = "select effect.resolve(" + id + ", 'failed', 'p', 'w')";
  const std::string watch =
      "select e.state, u.next_step from effect.effect e join effect.unsettled u using (id)";
  EXPECT_TRUE(may("effect_planner", plan));
  for (const auto& refused :
       {claim, decide, watch, std::string("select body from effect.effect"),
        std::string("select effect.register('x', '{}')"),
        "select effect.settle(" + id + ", 1, 'sent')",
        std::string("insert into effect.effect (provider, effect_key, target, "
                    "body, state) values ('hold', 'x', '{}', '', 'done')")}) {
    EXPECT_FALSE(may("effect_planner", refused)) << refused;
  }
  EXPECT_FALSE(may("effect_worker", decide));
  EXPECT_FALSE(may("effect_worker", "delete from effect.effect"));
  EXPECT_TRUE(may("effect_operator", decide));
  EXPECT_TRUE(may("effect_operator", watch));
  EXPECT_TRUE(may("effect_operator", "select effect.prune('1 hour')"));
  EXPECT_FALSE(
      may("effect_operator", "insert into effect.attempt (effect, epoch, kind, worker) values (" +
                                 id + ", 2, 'call', 'w')"));
  EXPECT_TRUE(may("effect_observer", watch));
  EXPECT_TRUE(may("effect_observer", "select id, in_doubt_since from effect.needs_review"));
  for (const std::string hidden :
       {"body from effect.effect", "target from effect.effect", "response from effect.attempt"}) {
    EXPECT_FALSE(may("effect_observer", "select " + hidden));
  }
  EXPECT_FALSE(may("effect_observer", claim));
}

}  // namespace
}  // namespace relay::test
