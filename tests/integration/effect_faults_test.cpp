// SPDX-License-Identifier: Apache-2.0
// Effects at providers that fail: carried out by workers with the real adapters, and judged by the providers' own log.
//
// OUTBOX_ROUNDS (default 1) rounds of 18 effects each, OUTBOX_SEED (default: random, printed) decides about the faults.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "outbox/effect_worker.h"
#include "outbox/http_provider.h"
#include "outbox/smtp_provider.h"
#include "outbox/upload_provider.h"
#include "tests/support/effect_world.h"
#include "tests/support/from_environment.h"
#include "tests/support/providers.h"

namespace outbox {
namespace {

using test::StandIns;
using Json = StandIns::Json;
using namespace std::chrono_literals;

constexpr int effects_per_round = 18;
constexpr int workers = 6;

// So that a round takes seconds: a call may take 1.5 s, and retries are not what is looked at here.
ProviderSettings quick(OnDoubt on_doubt) {
  ProviderSettings s{.on_doubt = on_doubt};
  s.claim_ttl = 3s;
  s.window_margin = 1s;
  s.absence_delay = 200ms;
  s.doubts_max = 50;
  s.retry_first = 20ms;
  s.retry_max = 200ms;
  s.retry_reserve = 10'000;
  s.breaker_failures = 10'000;
  s.probe_first = 20ms;
  s.probe_max = 200ms;
  return s;
}

// Faults of HTTP after which nobody can tell from the answer whether it was carried out, and those that say so.
const std::vector<Json> http_faults = {{{"fault", "close_before"}},
                                       {{"fault", "close_after"}},
                                       {{"fault", "slow_after"}, {"seconds", 4}},
                                       {{"fault", "silent"}},
                                       {{"fault", "status"}, {"status", 500}},
                                       {{"fault", "status_after"}, {"status", 500}},
                                       {{"fault", "status"}, {"status", 503}, {"headers", {{"Retry-After", "1"}}}},
                                       {{"fault", "status"}, {"status", 429}, {"headers", {{"Retry-After", "1"}}}},
                                       {{"fault", "status"}, {"status", 409}},
                                       {{"fault", "status_after"}, {"status", 409}},
                                       {{"fault", "working"}, {"seconds", 4}},
                                       {{"fault", "truncated"}},
                                       {{"fault", "another"}},
                                       {{"fault", "huge"}},
                                       {{"fault", "endless"}},
                                       {{"fault", "bytewise"}, {"seconds", 0.01}}};
const std::vector<Json> mail_faults = {{{"fault", "reply"}, {"stage", "RCPT"}, {"line", "451 later"}},
                                       {{"fault", "reply"}, {"stage", "RCPT"}, {"line", "550 nobody of that name"}},
                                       {{"fault", "reply"}, {"stage", "DATA"}, {"line", "421 closing"}},
                                       {{"fault", "reply"}, {"stage", "dot"}, {"line", "452 no room"}},
                                       {{"fault", "close"}, {"stage", "RCPT"}},
                                       {{"fault", "close"}, {"stage", "text"}, {"bytes", 20}},
                                       {{"fault", "close"}, {"stage", "dot"}},
                                       {{"fault", "close_after"}, {"stage", "dot"}},
                                       {{"fault", "slow"}, {"stage", "dot"}, {"seconds", 4}}};

class EffectFaults : public ::testing::Test {
 protected:
  struct Plan {
    std::string provider;
    std::string at;    // which of the stand-ins
    std::string key;   // as its log has it
    Effect effect;
  };

  // Plans effects with one or two faults each, has them carried out, and returns when none is left that a rule resolves.
  void round(int number, const std::vector<Plan>& plans, const std::vector<Json>& faults, const ProviderSettings& settings,
             const std::function<std::unique_ptr<Provider>()>& adapter) {
    SCOPED_TRACE("round " + std::to_string(number));
    for (const Plan& plan : plans) {
      Json fault = faults[random_() % faults.size()];
      fault["at"] = plan.at;
      fault["match"] = plan.key;
      fault["times"] = 1 + random_() % 2;
      providers_.fault(fault);
    }
    world_.register_provider(plans.front().provider, settings);
    {
      pqxx::connection connection(world_.dsn());
      pqxx::work tx(connection);
      for (const Plan& p : plans) plan(tx, p.effect);
      tx.commit();
    }
    std::vector<std::unique_ptr<EffectWorker>> made;
    for (int i = 0; i < workers; ++i) {
      EffectWorkerOptions options{.dsn = world_.dsn()};
      options.accounts.push_back({plans.front().provider, std::nullopt, adapter()});
      options.idle_first = options.idle_max = 50ms;
      options.on_event = [](const EffectEvent& event) { ADD_FAILURE() << event.text; };
      made.push_back(std::make_unique<EffectWorker>(std::move(options)));
    }
    {
      std::vector<std::jthread> threads;
      for (const auto& worker : made) threads.emplace_back([&worker](std::stop_token stop) { worker->run(stop); });
      test::eventually("every effect is settled, or a person's", [&] {
        return world_.value("select count(*) from effect.effect where state in ('planned', 'claimed', 'in_doubt')") == "0";
      }, Millis{90'000});
    }
    for (const Plan& p : plans) {
      // Nobody has repeated a request behind the ledger's back. (A HEAD only looks.)
      const auto attempts = std::stol(world_.value("select attempts from effect.effect where effect_key = '" + p.effect.effect_key + "'"));
      const auto requests = providers_.log(p.at, "request", p.key);
      EXPECT_LE(std::count_if(requests.begin(), requests.end(), [](const Json& r) { return r.value("method", "") != "HEAD"; }), attempts) << p.key;
    }
  }
  std::string state(const Plan& plan) {
    return world_.value("select state from effect.effect where effect_key = '" + plan.effect.effect_key + "'");
  }
  static std::string key_of(const char* prefix, int round, int n) {
    return std::string(prefix) + "-" + std::to_string(round) + "-" + std::to_string(n) + "-";
  }

  test::EffectWorld world_;
  StandIns providers_;
  std::mt19937 random_{test::seed_of_this_run()};
};

TEST_F(EffectFaults, AProviderThatKnowsKeysCarriesOutEachOnce) {
  for (int r = 0; r < test::number_from("OUTBOX_ROUNDS", 1); ++r) {
    std::vector<Plan> plans;
    for (int n = 0; n < effects_per_round; ++n) {
      const std::string key = key_of("charge", r, n);
      plans.push_back({"bank", "payments", key, {.provider = "bank", .effect_key = key, .target = {{"path", "/charges"}}, .body = "{}"}});
    }
    ProviderSettings settings = quick(OnDoubt::hold);
    settings.key_window = 1h;
    round(r, plans, http_faults, settings, [&] {
      return std::make_unique<HttpProvider>(HttpOptions{.base_url = providers_.payments(), .key_pointer = "/idempotency_key"});
    });
    for (const Plan& p : plans) {
      EXPECT_EQ(state(p), "done") << p.key;
      EXPECT_EQ(providers_.effects("payments", p.key), 1U) << p.key;
    }
  }
}

TEST_F(EffectFaults, AProviderThatKnowsNoKeysCarriesOutEachAtMostOnce) {
  for (int r = 0; r < test::number_from("OUTBOX_ROUNDS", 1); ++r) {
    std::vector<Plan> plans;
    for (int n = 0; n < effects_per_round; ++n) {
      const std::string key = key_of("plain", r, n);
      plans.push_back({"plain", "payments", key, {.provider = "plain", .effect_key = key, .target = {{"path", "/plain/charges"}}, .body = "{}"}});
    }
    round(r, plans, http_faults, quick(OnDoubt::hold), [&] {
      return std::make_unique<HttpProvider>(HttpOptions{.base_url = providers_.payments(), .key_pointer = "/idempotency_key"});
    });
    for (const Plan& p : plans) {
      const auto times = providers_.effects("payments", p.key);
      EXPECT_LE(times, 1U) << p.key;
      if (state(p) == "done") {
        EXPECT_EQ(times, 1U) << p.key;
      }
      if (state(p) == "failed") {
        EXPECT_EQ(times, 0U) << p.key;
      }
    }
  }
}

TEST_F(EffectFaults, AnUploadIsStoredOnce) {
  for (int r = 0; r < test::number_from("OUTBOX_ROUNDS", 1); ++r) {
    std::vector<Plan> plans;
    for (int n = 0; n < effects_per_round; ++n) {
      const std::string key = "/receipts/" + key_of("upload", r, n);
      plans.push_back({"store", "store", key,
                       {.provider = "store", .effect_key = key, .target = {{"url", providers_.store() + key}}, .body = "object of " + key}});
    }
    std::vector<Json> faults;
    // Another's body in an answer says nothing here, and a 409 would be the store's own.
    for (const Json& f : http_faults) {
      if (f["fault"] != "another" && f["fault"] != "working") faults.push_back(f);
    }
    ProviderSettings settings = quick(OnDoubt::hold);
    settings.key_window = 1h;
    settings.can_ask = true;
    round(r, plans, faults, settings, [] { return std::make_unique<UploadProvider>(UploadOptions{}); });
    for (const Plan& p : plans) {
      EXPECT_EQ(state(p), "done") << p.key;
      EXPECT_EQ(providers_.effects("store", p.key), 1U) << p.key;
    }
  }
}

class MailFaults : public EffectFaults, public ::testing::WithParamInterface<OnDoubt> {};

TEST_P(MailFaults, MailKeepsWhatWasDeclared) {
  for (int r = 0; r < test::number_from("OUTBOX_ROUNDS", 1); ++r) {
    std::vector<Plan> plans;
    for (int n = 0; n < effects_per_round; ++n) {
      const std::string to = key_of("mail", r, n) + "@customers.example";
      plans.push_back({"mail", "mail", to, {.provider = "mail", .effect_key = to, .target = {{"to", to}}, .body = "Subject: x\n\nText.\n"}});
    }
    round(r, plans, mail_faults, quick(GetParam()), [&] {
      return std::make_unique<SmtpProvider>(SmtpOptions{.url = providers_.mail(), .require_tls = false, .from = "shop@example.com"});
    });
    for (const Plan& p : plans) {
      const auto times = providers_.effects("mail", p.key);
      const std::string end = state(p);
      if (end == "done") {
        EXPECT_GE(times, 1U) << p.key;
      }
      if (end == "failed") {
        EXPECT_EQ(times, 0U) << p.key;
      }
      if (GetParam() == OnDoubt::hold) {
        EXPECT_LE(times, 1U) << p.key;
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(OnDoubt, MailFaults, testing::Values(OnDoubt::hold, OnDoubt::resend),
                         [](const auto& chosen) { return chosen.param == OnDoubt::hold ? "hold" : "resend"; });

}  // namespace
}  // namespace outbox
