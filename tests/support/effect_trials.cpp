// SPDX-License-Identifier: Apache-2.0
#include "tests/support/effect_trials.h"

#include <algorithm>
#include <mutex>
#include <thread>

#include "outbox/http_provider.h"
#include "outbox/smtp_provider.h"
#include "outbox/upload_provider.h"

namespace relay::test {
namespace {

using Json = FakeProviders::Json;
using namespace std::chrono_literals;

constexpr int effects_per_round = 18;
constexpr int workers = 6;

// Faults of HTTP after which the answer does not show whether it was executed, and those
// that say so.
const std::vector<Json> http_faults = {
    {{"fault", "close_before"}},
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
const std::vector<Json> mail_faults = {
    {{"fault", "reply"}, {"stage", "RCPT"}, {"line", "451 later"}},
    {{"fault", "reply"}, {"stage", "RCPT"}, {"line", "550 nobody of that name"}},
    {{"fault", "reply"}, {"stage", "DATA"}, {"line", "421 closing"}},
    {{"fault", "reply"}, {"stage", "dot"}, {"line", "452 no room"}},
    {{"fault", "close"}, {"stage", "RCPT"}},
    {{"fault", "close"}, {"stage", "text"}, {"bytes", 20}},
    {{"fault", "close"}, {"stage", "dot"}},
    {{"fault", "close_after"}, {"stage", "dot"}},
    {{"fault", "slow"}, {"stage", "dot"}, {"seconds", 4}}};

bool is_mail(EffectTrials::Kind kind) {
  return kind == EffectTrials::Kind::mail_held || kind == EffectTrials::Kind::mail_resent;
}

std::vector<Json> faults_of(EffectTrials::Kind kind) {
  if (is_mail(kind)) return mail_faults;
  std::vector<Json> faults = http_faults;
  // At a store, another's body in an answer says nothing, and a 409 would be the store's own.
  if (kind == EffectTrials::Kind::uploads) {
    std::erase_if(faults,
                  [](const Json& f) { return f["fault"] == "another" || f["fault"] == "working"; });
  }
  return faults;
}

// So that a round takes seconds: a call may take 1.5 s, and retries are not what is looked at here.
outbox::ProviderSettings settings_of(EffectTrials::Kind kind) {
  outbox::ProviderSettings s{.in_doubt_policy = kind == EffectTrials::Kind::mail_resent
                                                    ? outbox::InDoubtPolicy::resend
                                                    : outbox::InDoubtPolicy::hold};
  s.claim_ttl = 3s;
  s.window_margin = 1s;
  s.lookup_delay = 200ms;
  s.in_doubt_attempts_max = 50;
  s.retry_first = 20ms;
  s.retry_max = 200ms;
  s.retry_budget_burst = 10'000;
  s.breaker_failures = 10'000;
  s.probe_first = 20ms;
  s.probe_max = 200ms;
  if (kind == EffectTrials::Kind::charges || kind == EffectTrials::Kind::uploads)
    s.idempotency_window = 1h;
  s.supports_lookup = kind == EffectTrials::Kind::uploads;
  return s;
}

EffectGuarantee guarantee_of(EffectTrials::Kind kind) {
  const bool once = kind == EffectTrials::Kind::charges || kind == EffectTrials::Kind::uploads;
  return {.once = once, .resends = kind == EffectTrials::Kind::mail_resent, .may_fail = !once};
}

}  // namespace

const char* EffectTrials::name(Kind kind) {
  switch (kind) {
    case Kind::charges: return "charges";
    case Kind::charges_without_keys: return "charges without keys";
    case Kind::uploads: return "uploads";
    case Kind::mail_held: return "mail, doubts are held";
    case Kind::mail_resent: return "mail, doubts are resent";
  }
  return "";
}

std::vector<PlannedEffect> EffectTrials::plans(Kind kind, int number) const {
  std::vector<PlannedEffect> out;
  for (int n = 0; n < effects_per_round; ++n) {
    const std::string id = std::to_string(static_cast<int>(kind)) + "-" + std::to_string(number) +
                           "-" + std::to_string(n) + "-";
    PlannedEffect p;
    if (is_mail(kind)) {
      p = {"mail", "mail-" + id + "@customers.example", {}};
      p.effect.provider = "mail";
      p.effect.body = "Subject: x\n\nText.\n";
      p.effect.target = {{"to", p.key}};
    } else if (kind == Kind::uploads) {
      p = {"store", "/receipts/upload-" + id, {}};
      p.effect.provider = "store";
      p.effect.target = {{"url", providers_.store() + p.key}};
      p.effect.body = "object of " + p.key;
    } else {
      p = {"payments", "charge-" + id, {}};
      p.effect.provider = kind == Kind::charges ? "bank" : "plain";
      p.effect.body = "{}";
      p.effect.target = {{"path", kind == Kind::charges ? "/charges" : "/plain/charges"}};
    }
    p.effect.effect_key = p.key;
    out.push_back(std::move(p));
  }
  return out;
}

std::unique_ptr<outbox::Provider> EffectTrials::adapter(Kind kind) const {
  if (is_mail(kind))
    return std::make_unique<outbox::SmtpProvider>(outbox::SmtpOptions{
        .url = providers_.mail(), .require_tls = false, .from = "shop@example.com"});
  if (kind == Kind::uploads)
    return std::make_unique<outbox::UploadProvider>(
        outbox::UploadOptions{.origins = {providers_.store()}});
  return std::make_unique<outbox::HttpProvider>(
      outbox::HttpOptions{.base_url = providers_.payments(), .key_pointer = "/idempotency_key"});
}

void EffectTrials::execute(Kind kind, const std::string& provider, EffectReport& found) {
  std::mutex mutex;  // of `found`
  std::vector<std::unique_ptr<outbox::EffectWorker>> made;
  for (int i = 0; i < workers; ++i) {
    outbox::EffectWorkerOptions options{.dsn = db_.dsn()};
    options.accounts.push_back({provider, std::nullopt, adapter(kind)});
    options.idle_first = options.idle_max = 50ms;
    options.on_event = [&](const outbox::EffectEvent& event) {
      const std::lock_guard lock(mutex);
      found.wrong(&EffectReport::exits, event.text);
    };
    made.push_back(std::make_unique<outbox::EffectWorker>(std::move(options)));
  }
  std::vector<std::jthread> threads;
  for (const auto& worker : made)
    threads.emplace_back([&worker](std::stop_token stop) { worker->run(stop); });
  try {
    eventually(
        "every effect is settled, or needs an operator",
        [&] {
          return db_.value(
                     "select count(*) from effect.effect where state in ('planned', 'claimed', "
                     "'in_doubt')") == "0";
        },
        Millis{90'000});
  } catch (const std::runtime_error&) {
    // Those effects are found to be stuck.
  }
}

EffectReport EffectTrials::round(Kind kind, int number, std::mt19937_64& random) {
  const auto all = plans(kind, number);
  const auto faults = faults_of(kind);
  for (const PlannedEffect& p : all) {
    Json fault = faults[random() % faults.size()];
    fault["at"] = p.at;
    fault["match"] = p.key;
    fault["times"] = 1 + random() % 2;
    providers_.fault(fault);
  }
  const std::string provider = all.front().effect.provider;
  db_.register_provider(provider, settings_of(kind));
  plan(db_, all);
  EffectReport found;
  execute(kind, provider, found);
  for (const PlannedEffect& p : all) {
    check_effect(found, db_, providers_, p, guarantee_of(kind));
    // Nobody has repeated a request behind the ledger's back. (A HEAD only looks.)
    const auto attempts = std::stol(db_.value(
        "select attempts from effect.effect where effect_key = '" + p.effect.effect_key + "'"));
    const auto requests = providers_.log(p.at, "request", p.key);
    const auto made = std::count_if(requests.begin(), requests.end(),
                                    [](const Json& r) { return r.value("method", "") != "HEAD"; });
    if (made > attempts)
      found.wrong(&EffectReport::journal, p.key + " has more requests than attempts",
                  made - attempts);
  }
  return found;
}

}  // namespace relay::test
