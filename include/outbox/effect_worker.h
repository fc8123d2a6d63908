// SPDX-License-Identifier: Apache-2.0
// Carries out effects that were planned: claims them in the ledger, has an adapter make the attempt, and settles what came of it.
//
//   outbox::EffectWorkerOptions options{.dsn = "dbname=shop"};
//   options.accounts.push_back({"payments", outbox::ProviderSettings{.in_doubt_policy = outbox::InDoubtPolicy::hold}, std::move(adapter)});
//   outbox::EffectWorker worker(std::move(options));
//   worker.run(stop_token);    // blocks
//
// One thread, one connection, one attempt at a time; for more at once, run several: objects, processes or machines. Each attempt is
// claimed before, in a commit of its own, and settled after, in another; no transaction is open during the call.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "outbox/effect.h"

namespace outbox {
inline namespace v1 {

// What a worker tells at once. The library prints nothing.
struct EffectEvent {
  enum class Kind {
    database_away,   // once, when it is found out; the worker goes on trying
    database_back,
    adapter_threw,   // a defect of the adapter: the effect is in doubt
    answer_lost,     // what came of an attempt cannot be recorded: its effect is in doubt. text says what came of it
  };
  Kind kind;
  // For a person; it ends with the remedy where there is one.
  std::string text;
};

struct EffectWorkerOptions {
  struct Account {
    // Name of the account, as effects are planned for it.
    std::string provider;
    // Its rules, which are written at each start. Defaults to none: as they were registered before.
    std::optional<ProviderSettings> settings{};
    std::unique_ptr<Provider> adapter;
  };

  // Connection string of a login with the rights of effect_worker. Give it connect_timeout and tcp_user_timeout.
  std::string dsn;
  // Whose effects are carried out; served in turn.
  std::vector<Account> accounts{};
  // Who holds a claim, for a person; what makes it unique is added. Defaults to host:pid.
  std::string name{};
  // Effects that are claimed at once, for each account. Those behind the first wait for their turn while their time runs, and a
  // provider that fails is called for each of them still. Defaults to 1.
  int claims_max = 1;
  // Pause when there is nothing to do; it doubles up to idle_max. Defaults to 200 ms and 1 s.
  std::chrono::milliseconds idle_first{200};
  std::chrono::milliseconds idle_max{1'000};
  // How long a worker that is to stop goes on trying to record an answer while the database is away. Defaults to 10 seconds.
  std::chrono::milliseconds stop_patience{10'000};
  // Called by the thread of run(). Must not throw. Defaults to nobody.
  std::function<void(const EffectEvent&)> on_event{};
};

// Counts since the worker was made.
struct EffectWorkerStats {
  std::uint64_t claims = 0;      // attempts that were claimed
  std::uint64_t calls = 0;       // of those, the provider was called or asked
  std::uint64_t too_late = 0;    // claims that were given back because too little of their time was left
  std::uint64_t done = 0;        // effects settled so
  std::uint64_t failed = 0;
  std::uint64_t in_doubt = 0;    // attempts that left their effect so
  std::uint64_t needs_review = 0;
  std::uint64_t again = 0;       // attempts without an effect, which will be made again
  std::uint64_t stale = 0;       // outcomes that came when their claim was over, and were kept as evidence
  std::uint64_t lost = 0;        // outcomes that could not be recorded
  std::uint64_t reconnects = 0;  // connections after the first
};

class EffectWorker {
 public:
  // Throws std::invalid_argument when an option is missing or out of range. Does not connect.
  explicit EffectWorker(EffectWorkerOptions options);
  ~EffectWorker();
  EffectWorker(const EffectWorker&) = delete;
  EffectWorker& operator=(const EffectWorker&) = delete;

  // Works until it is told to stop; then it finishes the call under way, settles it and gives back what else it has claimed. A
  // database that is away or refuses is waited for, with one attempt to connect at a time. Throws nothing. Once per object.
  void run(std::stop_token stop);

  // From any thread.
  EffectWorkerStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace v1
}  // namespace outbox
