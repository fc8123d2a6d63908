// SPDX-License-Identifier: Apache-2.0
#include "tests/support/effect_sweep.h"

#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace relay::test {

using namespace std::chrono_literals;

EffectSweep::EffectSweep(ScratchPostgres& postgres, const SweptProvider& provider)
    : db_(postgres),
      provider_(provider),
      kind_(provider.name),
      count_file_(std::filesystem::temp_directory_path() /
                  ("socket-calls-" + std::to_string(getpid()))) {
  outbox::ProviderSettings settings{.in_doubt_policy = outbox::InDoubtPolicy::hold};
  if (provider.deduplicates) settings.idempotency_window = 1h;
  settings.supports_lookup = kind_ == "store";
  settings.lookup_delay = 10ms;
  settings.window_margin = 1s;
  settings.claim_ttl = 2s;
  settings.in_doubt_attempts_max = 1'000;
  settings.retry_first = 10ms;
  settings.retry_max = 100ms;
  settings.retry_budget_burst = 100'000;
  settings.breaker_failures = 100'000;
  db_.register_provider(kind_, settings);
}

EffectSweep::~EffectSweep() { std::filesystem::remove(count_file_); }

PlannedEffect EffectSweep::effect(int n) const {
  const std::string id = "sweep-" + std::to_string(n);
  PlannedEffect p{kind_ == "mail" || kind_ == "store" ? kind_ : "payments", id, {}};
  p.effect.provider = kind_;
  p.effect.body = "{}";
  if (kind_ == "mail") {
    p.key = id + "@customers.example";
    p.effect.target = {{"to", p.key}};
    p.effect.body = "Subject: x\n\nText.\n";
  } else if (kind_ == "store") {
    p.key = "/" + id;
    p.effect.target = {{"url", providers_.store() + p.key}};
  } else {
    p.effect.target = {{"path", kind_ == "plain" ? "/plain/charges" : "/charges"}};
  }
  p.effect.effect_key = p.key;
  return p;
}

Process EffectSweep::worker(const Process::Environment& more) {
  Process::Environment environment = more;
  environment["LD_PRELOAD"] = std::string(OUTBOX_BUILD_DIR) + "/libfault_at_socket_call.so";
  const std::string url = kind_ == "mail"    ? providers_.mail()
                          : kind_ == "store" ? providers_.store()
                                             : providers_.payments();
  return Process({program_path("worker-that-dies"), db_.dsn(), kind_, url}, environment);
}

void EffectSweep::count_calls() {
  planned_.push_back(effect(0));
  plan(db_, {planned_.back()});
  auto whole = worker({{"OUTBOX_SOCKET_CALLS", count_file_}});
  if (whole.wait() != 0)
    throw std::runtime_error("a worker that nobody kills does not end well: " + whole.output());
  std::ifstream(count_file_) >> calls_;
  if (calls_ <= 10) throw std::runtime_error("the library that kills was not loaded");
}

void EffectSweep::kill_at_each_call(EffectReport& found) {
  for (int at = 1; at <= calls_; ++at) {
    for (const char* when : {"before", "after"}) {
      planned_.push_back(effect(static_cast<int>(planned_.size())));
      plan(db_, {planned_.back()});
      auto doomed = worker({{"OUTBOX_KILL_AT", std::to_string(at)}, {"OUTBOX_KILL_WHEN", when}});
      // A run can take a call less than the first one did, and then ends by itself.
      const int code = doomed.wait();
      killed_ += code == -SIGKILL;
      if (code != -SIGKILL && code != 0)
        found.wrong(&EffectReport::exits,
                    "a worker ended with " + std::to_string(code) + ": " + doomed.output());
    }
  }
  if (killed_ <= calls_)
    throw std::runtime_error("only " + std::to_string(killed_) + " workers were killed");
}

void EffectSweep::settle_the_rest(EffectReport& found) {
  const auto left = [&] {
    return db_.value(
        "select count(*) from effect.effect where state in ('planned', 'claimed', 'in_doubt')");
  };
  try {
    while (left() != "0") {
      auto healthy = worker({});
      eventually("the worker has settled one, or rules have nothing left",
                 [&] { return !healthy.running() || left() == "0"; });
    }
  } catch (const std::runtime_error& e) {
    found.wrong(&EffectReport::stuck, e.what());
  }
}

EffectReport EffectSweep::run() {
  EffectReport found;
  count_calls();
  kill_at_each_call(found);
  settle_the_rest(found);
  for (const PlannedEffect& p : planned_)
    check_effect(found, db_, providers_, p, {.once = provider_.deduplicates});
  const std::string listed = db_.value("select count(*) from effect.needs_review");
  if (listed != std::to_string(found.needs_review))
    found.wrong(&EffectReport::journal, "effect.needs_review lists " + listed + " doubts");
  return found;
}

}  // namespace relay::test
