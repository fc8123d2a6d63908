// SPDX-License-Identifier: Apache-2.0
// EffectWorker against a real ledger and a provider that does what the test says: attempts, outages
// on either side, and the budget.
//
// OUTBOX_OUTAGE_SECONDS is how long the provider is away in the test of the budget (default 3).
#include "outbox/effect_worker.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>

#include "tests/support/from_environment.h"
#include "tests/support/process.h"
#include "tests/support/test_ledger.h"

namespace relay::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

const outbox::Outcome done{
    .phase = outbox::Phase::answered, .answer = outbox::Answer::done, .status = 201};
const outbox::Outcome unreachable{.phase = outbox::Phase::nothing, .error = "connection refused"};

// What the db sees of a provider, with any caller.
struct Calls {
  std::function<outbox::Outcome(const outbox::Request&)> answer = [](const outbox::Request&) {
    return done;
  };
  std::atomic<int> under_way = 0;
  std::atomic<int> most_at_once = 0;

  outbox::Outcome call(const outbox::Request& request) {
    const int now = ++under_way;
    {
      const std::lock_guard lock(mutex);
      times.push_back(Clock::now());
      ++of[request.effect_key];
      most_at_once = std::max<int>(most_at_once, now);
    }
    outbox::Outcome outcome = answer(request);
    --under_way;
    return outcome;
  }
  std::size_t count() {
    const std::lock_guard lock(mutex);
    return times.size();
  }
  std::mutex mutex;
  std::vector<Clock::time_point> times;
  std::map<std::string, int> of;
};

class FakeProvider : public outbox::Provider {
 public:
  explicit FakeProvider(Calls& calls) : calls_(calls) {}
  outbox::Outcome call(const outbox::Request& request, Deadline) override {
    return calls_.call(request);
  }

 private:
  Calls& calls_;
};

// A worker on a thread of its own.
class Running {
 public:
  explicit Running(outbox::EffectWorkerOptions options)
      : worker_(std::move(options)),
        thread_([this](const std::stop_token& stop) { worker_.run(stop); }) {}
  void request_stop() { thread_.request_stop(); }
  void stop() {
    request_stop();
    thread_.join();
  }
  outbox::EffectWorkerStats stats() const { return worker_.stats(); }

 private:
  outbox::EffectWorker worker_;
  std::jthread thread_;
};

class EffectWorkerTest : public ::testing::Test {
 protected:
  explicit EffectWorkerTest(ScratchPostgres& postgres = shared_postgres()) : db(postgres) {
    db.register_provider("p", settings);
  }

  outbox::EffectWorkerOptions options(int claims_max = 1) {
    outbox::EffectWorkerOptions o{.dsn = db.login("effect_worker"),
                                  .claims_max = claims_max,
                                  .idle_first = 5ms,
                                  .idle_max = 20ms};
    o.accounts.push_back({"p", settings, std::make_unique<FakeProvider>(calls)});
    o.on_event = [this](const outbox::EffectEvent& e) {
      const std::lock_guard lock(mutex);
      events.push_back(e.kind);
      texts += e.text + "\n";
    };
    return o;
  }
  std::string states() {
    return db.value(
        "select string_agg(n || ' ' || state, ', ' order by state) from "
        "(select state, count(*) as n from effect.effect group by 1) s");
  }
  void settles(const std::string& wanted, Millis within = Millis{30'000}) {
    eventually(
        wanted, [&] { return states() == wanted; }, within);
  }

  outbox::ProviderSettings settings{.in_doubt_policy = outbox::InDoubtPolicy::hold,
                                    .idempotency_window = 24h,
                                    .retry_first = 5ms,
                                    .retry_max = 50ms,
                                    .retry_budget_burst = 100};
  TestLedger db;
  Calls calls;
  std::mutex mutex;
  std::vector<outbox::EffectEvent::Kind> events;
  std::string texts;
};

TEST_F(EffectWorkerTest, EachEffectIsCarriedOutOnce) {
  db.plan("p", "n", 100);
  Running a(options()), b(options(10));
  settles("100 done");
  b.stop();
  a.stop();
  EXPECT_EQ(calls.count(), 100U);
  EXPECT_EQ(a.stats().done + b.stats().done, 100U);
  EXPECT_EQ(db.value("select count(distinct split_part(worker, '/', 2)) from effect.attempt"), "2");
}

TEST_F(EffectWorkerTest, WhatFailsIsRepeatedUntilItIsDone) {
  std::atomic<int> n = 0;
  calls.answer = [&](const outbox::Request&) {
    static const std::vector<outbox::Outcome> outcomes = {
        unreachable,
        {.phase = outbox::Phase::partly},
        {.phase = outbox::Phase::sent},
        {.phase = outbox::Phase::answered, .answer = outbox::Answer::failing, .status = 503},
        done};
    return outcomes.at(static_cast<std::size_t>(n++));
  };
  db.plan("p", "n", 1);
  Running worker(options());
  settles("1 done");
  worker.stop();
  EXPECT_EQ(
      db.value("select string_agg(kind || ' ' || phase, ', ' order by epoch) from effect.attempt"),
      "call nothing, call partly, repeat sent, repeat answered, repeat answered");
  EXPECT_EQ(worker.stats().again, 1U);
  EXPECT_EQ(worker.stats().in_doubt, 3U);
}

TEST_F(EffectWorkerTest, AnExceptionOfTheAdapterIsADoubt) {
  settings.idempotency_window.reset();
  calls.answer = [](const outbox::Request&) -> outbox::Outcome {
    throw std::runtime_error("a defect");
  };
  db.plan("p", "n", 1);
  Running worker(options());
  settles("1 needs_review");
  worker.stop();
  EXPECT_EQ(db.value("select phase || ' ' || error from effect.attempt"),
            "sent the adapter threw: a defect");
  EXPECT_EQ(events, std::vector{outbox::EffectEvent::Kind::adapter_threw});
}

TEST_F(EffectWorkerTest, AStopFinishesTheCallUnderWayAndGivesTheOthersBack) {
  std::atomic<bool> go = false;
  calls.answer = [&](const outbox::Request&) {
    eventually("go", [&] { return go.load(); });
    return done;
  };
  db.plan("p", "n", 5);
  Running worker(options(5));
  eventually("a call", [&] { return calls.under_way == 1; });
  worker.request_stop();
  go = true;
  worker.stop();
  EXPECT_EQ(states(), "1 done, 4 planned");
  EXPECT_EQ(db.value("select failures from effect.throttle"), "0")
      << "the provider has nothing to do with it";
}

TEST_F(EffectWorkerTest, AClaimWhoseTimeIsOverIsGivenBackWithoutACall) {
  settings.claim_ttl = 150ms;
  std::atomic<int> n = 0;
  calls.answer = [&](const outbox::Request&) {
    const auto over = Clock::now() + (n++ == 0 ? 200ms : 0ms);
    eventually("the time is over", [&] { return Clock::now() >= over; });
    return done;
  };
  db.plan("p", "n", 2);
  Running worker(options(2));
  eventually("both ended", [&] {
    return db.value("select count(*) from effect.effect where state = 'done'") == "2";
  });
  worker.stop();
  EXPECT_GE(worker.stats().too_late, 1U);
  EXPECT_EQ(db.value("select string_agg(phase || ' ' || error, ', ') from effect.attempt where "
                     "effect = 2 and epoch = 1"),
            "nothing too little of the claim's time was left: no call was made");
}

// Ends the connection of this process that has this port, on this side alone.
void break_connection(int port) {
  for (int fd = 3; fd < 1024; ++fd) {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0 &&
        address.sin_family == AF_INET && ntohs(address.sin_port) == port) {
      shutdown(fd, SHUT_RDWR);
    }
  }
}

class EffectWorkerServerTest : public EffectWorkerTest {
 protected:
  EffectWorkerServerTest() : EffectWorkerTest(server()) {}
  static ScratchPostgres& server() {
    static ScratchPostgres postgres;
    return postgres;
  }
};

TEST_F(EffectWorkerServerTest, AnAnswerIsRecordedWhenTheDatabaseIsBack) {
  std::atomic<bool> answered = false;
  calls.answer = [&](const outbox::Request&) {
    if (!answered.exchange(true)) server().stop(ScratchPostgres::Stop::immediate);
    return done;
  };
  db.plan("p", "n", 20);
  Running worker(options());
  eventually("it is found out", [&] {
    const std::lock_guard lock(mutex);
    return !events.empty();
  });
  server().start();
  settles("20 done");
  worker.stop();
  EXPECT_EQ(calls.count(), 20U) << "no call was repeated";
  EXPECT_EQ(db.value("select max(attempts) from effect.effect"), "1");
  EXPECT_EQ(events, (std::vector{outbox::EffectEvent::Kind::database_away,
                                 outbox::EffectEvent::Kind::database_back}))
      << texts;
  EXPECT_EQ(worker.stats().reconnects, 1U);
}

TEST_F(EffectWorkerServerTest, AStopWithoutTheDatabaseSaysWhatIsLost) {
  calls.answer = [&](const outbox::Request&) {
    server().stop(ScratchPostgres::Stop::immediate);
    return outbox::Outcome{.phase = outbox::Phase::answered,
                           .answer = outbox::Answer::done,
                           .status = 201,
                           .object = "ch-1"};
  };
  db.plan("p", "n", 1);
  auto o = options();
  o.stop_patience = 50ms;
  Running worker(std::move(o));
  eventually("it is found out", [&] {
    const std::lock_guard lock(mutex);
    return !events.empty();
  });
  worker.stop();
  EXPECT_EQ(worker.stats().lost, 1U);
  EXPECT_NE(texts.find("object \"ch-1\""), std::string::npos) << texts;
  server().start();
  EXPECT_EQ(states(), "1 claimed");
}

// A claim that committed while its answer was lost on the way to the worker.
TEST_F(EffectWorkerServerTest, AClaimThatTheWorkerNeverHeardOfIsGivenBack) {
  settings.idempotency_window.reset();  // where it would go to an operator
  outbox::EffectWorkerOptions o = options();
  o.name = "me";
  db.sql(
      "create function public.slow_commit() returns trigger language plpgsql as $$ begin "
      "if new.state = 'claimed' and new.attempts = 1 then perform pg_sleep(0.5); end if; return "
      "null; end $$; "
      "create constraint trigger slow_commit after update on effect.effect deferrable initially "
      "deferred for each row "
      "execute function public.slow_commit()");
  Running worker(std::move(o));
  db.plan("p", "n", 1);
  std::string port;
  eventually("the claim is being committed", [&] {
    port = db.value(
        "select client_port from pg_stat_activity where wait_event = 'PgSleep' and query like "
        "'%effect.claim%'");
    return !port.empty();
  });
  break_connection(std::stoi(port));
  settles("1 done");
  worker.stop();
  EXPECT_EQ(calls.count(), 1U);
  EXPECT_EQ(db.value("select string_agg(kind || ' ' || phase || ' ' || coalesce(error, ''), ', ' "
                     "order by epoch) from effect.attempt"),
            "call nothing the worker did not receive this claim: no call was made, call answered ");
}

TEST_F(EffectWorkerTest, TooManyRequestsAreFollowedByThePauseThatIsAskedFor) {
  std::atomic<int> n = 0;
  calls.answer = [&](const outbox::Request&) {
    return n++ == 0 ? outbox::Outcome{.phase = outbox::Phase::answered,
                                      .answer = outbox::Answer::not_now,
                                      .status = 429,
                                      .retry_after = 700ms}
                    : done;
  };
  db.plan("p", "n", 30);
  Running a(options()), b(options());
  settles("30 done");
  a.stop();
  b.stop();
  const auto begun = calls.times.front();
  const auto inside = std::count_if(calls.times.begin(), calls.times.end(),
                                    [&](auto t) { return t > begun + 100ms && t < begun + 650ms; });
  EXPECT_EQ(inside, 0);
  EXPECT_EQ(calls.count(), 31U);
}

TEST_F(EffectWorkerTest, WhoIsNotKnownIsNotTriedFurtherAndNoEffectFails) {
  settings.probe_first = 300ms;
  std::atomic<bool> known = false;
  calls.answer = [&](const outbox::Request&) {
    return known ? done
                 : outbox::Outcome{.phase = outbox::Phase::answered,
                                   .answer = outbox::Answer::unauthorized,
                                   .status = 401};
  };
  db.plan("p", "n", 20);
  Running worker(options());
  eventually("the breaker opens",
             [&] { return db.value("select open_until is not null from effect.throttle") == "t"; });
  EXPECT_EQ(calls.count(), 1U);
  EXPECT_EQ(
      db.value(
          "select count(*) from effect.effect where state in ('done', 'failed', 'needs_review')"),
      "0");
  known = true;
  settles("20 done");
}

// Ten workers and a provider that is away: few calls in vain, one at a time and less and less
// often, and the rest when it is back.
TEST_F(EffectWorkerTest, AnOutageCostsNoMoreThanTheBudget) {
  const std::chrono::milliseconds outage =
      std::chrono::seconds(test::number_from("OUTBOX_OUTAGE_SECONDS", 3));
  // As by default, time pays for more retries than there are probes.
  settings = {.in_doubt_policy = outbox::InDoubtPolicy::hold,
              .idempotency_window = 24h,
              .retry_first = 20ms,
              .retry_max = 500ms,
              .retry_budget_burst = 5,
              .retry_per_minute = 600,
              .breaker_failures = 5,
              .probe_first = 50ms,
              .probe_max = 400ms};
  std::atomic<bool> away = true;
  calls.answer = [&](const outbox::Request&) {
    return !away ? done
                 : outbox::Outcome{.phase = outbox::Phase::answered,
                                   .answer = outbox::Answer::failing,
                                   .status = 503};
  };
  db.register_provider("p", settings);
  db.plan("p", "n", 300);
  std::vector<std::unique_ptr<Running>> workers;
  for (int i = 0; i < 10; ++i) workers.push_back(std::make_unique<Running>(options()));
  eventually("the first call", [&] { return calls.count() > 0; });
  const auto begun = Clock::now();
  eventually("the breaker opens", [&] {
    return db.value("select opened > 0 from effect.throttle") == "t" && calls.under_way == 0;
  });
  const std::size_t until_open = calls.count();
  const int tried_until_open =
      std::stoi(db.value("select count(*) from effect.effect where attempts > 0"));
  calls.most_at_once = 0;
  eventually(
      "the outage is over", [&] { return Clock::now() > begun + outage; },
      Millis{outage.count() + 30'000});
  const std::size_t in_vain = calls.count();
  EXPECT_LE(tried_until_open, 5 + 10)
      << "failures that open the breaker, and what ten workers had claimed by then";
  EXPECT_LE(calls.most_at_once, 1);
  const auto probes = static_cast<std::size_t>(
      4 + outage / 200ms);  // four until the pause is the longest, which is 200 ms at least
  EXPECT_LE(in_vain - until_open, probes);
  EXPECT_GE(in_vain - until_open, 3U);
  away = false;
  settles("300 done");
  for (auto& w : workers) w->stop();
  EXPECT_EQ(calls.count(), 300 + in_vain) << "each was done once, and what failed was repeated";
  const double first = 300;
  const double minutes =
      static_cast<double>(
          std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begun).count()) /
      60'000;
  EXPECT_LE(static_cast<double>(in_vain), 5 + first * 0.2 + 600 * minutes + 1)
      << "reserve, share of first attempts, trickle";
}

// An outage of hours may not call for an operator while the provider will know the key.
TEST_F(EffectWorkerTest, AnOutageUsesUpNoDoubts) {
  settings.in_doubt_attempts_max = 3;
  settings.breaker_failures = 2;
  settings.probe_first = 5ms;
  settings.probe_max = 5ms;
  std::atomic<bool> away = true;
  calls.answer = [&](const outbox::Request&) {
    return away ? outbox::Outcome{.phase = outbox::Phase::sent} : done;
  };
  db.plan("p", "n", 2);
  Running worker(options());
  eventually("twenty calls", [&] { return calls.count() >= 20; });
  EXPECT_EQ(db.value("select count(*) from effect.effect where state = 'needs_review'"), "0");
  away = false;
  settles("2 done");
}

// Claims that expire, budgets that are counted, answers that come late, all at once: nobody waits
// for somebody who waits for them.
TEST_F(EffectWorkerTest, WorkersDoNotDeadlock) {
  settings = {.in_doubt_policy = outbox::InDoubtPolicy::resend,
              .idempotency_window = 24h,
              .window_margin = 0ms,
              .claim_ttl = 30ms,
              .in_doubt_attempts_max = 1'000'000,
              .retry_first = 1ms,
              .retry_max = 5ms,
              .retry_budget_burst = 1'000,
              .retry_per_minute = 1e6,
              .breaker_failures = 3,
              .probe_first = 1ms,
              .probe_max = 3ms};
  calls.answer = [](const outbox::Request& request) {
    thread_local std::minstd_rand random{std::random_device{}()};
    const auto begun = Clock::now();
    const auto slow = random() % 4 == 0 ? 45ms : 0ms;
    eventually(request.effect_key, [&] { return Clock::now() >= begun + slow; });
    const std::vector<outbox::Outcome> outcomes = {
        done,
        unreachable,
        {.phase = outbox::Phase::sent},
        {.phase = outbox::Phase::answered, .answer = outbox::Answer::not_now}};
    return outcomes[random() % outcomes.size()];
  };
  db.plan("p", "n", 150);
  std::vector<std::unique_ptr<Running>> workers;
  for (int i = 0; i < 8; ++i) workers.push_back(std::make_unique<Running>(options(1 + i % 3)));
  settles("150 done", Millis{120'000});
  for (auto& w : workers) w->stop();
  EXPECT_EQ(db.value("select deadlocks from pg_stat_database where datname = current_database()"),
            "0");
  EXPECT_EQ(db.value("select count(*) > 0 from effect.attempt where late"), "t");
  EXPECT_TRUE(events.empty()) << texts;
}

TEST_F(EffectWorkerTest, OptionsThatCannotWorkAreRefused) {
  EXPECT_THROW(outbox::EffectWorker({.dsn = "x"}), std::invalid_argument);
  auto none = options(0);
  EXPECT_THROW(outbox::EffectWorker(std::move(none)), std::invalid_argument);
  settings.supports_lookup = true;
  auto cannot_ask = options();
  EXPECT_THROW(outbox::EffectWorker(std::move(cannot_ask)), std::invalid_argument);
}

}  // namespace
}  // namespace relay::test
