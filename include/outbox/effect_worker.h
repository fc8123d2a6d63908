// SPDX-License-Identifier: Apache-2.0
// Executes planned effects: claims them in the ledger, calls the provider's adapter and settles the
// outcome.
//
//   outbox::EffectWorkerOptions options{.dsn = "dbname=shop"};
//   options.accounts.push_back({"payments",
//                               outbox::ProviderSettings{
//                                   .in_doubt_policy = outbox::InDoubtPolicy::hold},
//                               std::move(adapter)});
//   outbox::EffectWorker worker(std::move(options));
//   worker.run(stop_token);  // blocks
//
// A worker uses one thread and one connection and makes one attempt at a time. For concurrency, run
// several workers, in any number of processes. Each attempt is claimed and settled in separate
// transactions; no transaction is open during the call.
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

// An event for a log. The library prints nothing.
struct EffectEvent {
  enum class Kind {
    database_away,  // the database is unavailable; emitted once, and the worker retries
    database_back,  // the database is available again
    adapter_threw,  // the adapter is defective: the effect is in doubt
    answer_lost,    // the outcome cannot be recorded: the effect is in doubt; see text
  };
  Kind kind;
  // Description for operators; ends with the remedy, if there is one.
  std::string text;
};

struct EffectWorkerOptions {
  struct Account {
    // Name of the account in planned effects. Required.
    std::string provider;
    // Settings, registered at each start. Defaults to none: those already registered apply.
    std::optional<ProviderSettings> settings{};
    // Required.
    std::unique_ptr<Provider> adapter;
  };

  // libpq connection string of a login with the role effect_worker. Required. Set connect_timeout
  // and tcp_user_timeout.
  std::string dsn;
  // Accounts to serve, in round-robin order. At least one is required.
  std::vector<Account> accounts{};
  // Name of the claim holder, shown to operators; a unique suffix is added. Defaults to host:pid.
  std::string name{};
  // Effects claimed at once for each account. They are executed in sequence while their time limits
  // run, and are all attempted even if the provider fails. Defaults to 1.
  int claims_max = 1;
  // Polling interval when idle; doubles up to idle_max. Defaults to 200 ms and 1 s.
  std::chrono::milliseconds idle_first{200};
  std::chrono::milliseconds idle_max{1'000};
  // How long a stopping worker tries to record an outcome while the database is unavailable.
  // Defaults to 10 s.
  std::chrono::milliseconds stop_patience{10'000};
  // Event callback. Must not throw. Called by the thread of run(), and blocks it. Defaults to none.
  std::function<void(const EffectEvent&)> on_event{};
};

// Counters since the construction of the worker.
struct EffectWorkerStats {
  std::uint64_t claims = 0;        // attempts claimed
  std::uint64_t calls = 0;         // attempts made, lookups included
  std::uint64_t too_late = 0;      // claims returned because too little of their time was left
  std::uint64_t done = 0;          // effects settled as done
  std::uint64_t failed = 0;        // effects settled as failed
  std::uint64_t in_doubt = 0;      // attempts that left their effect in doubt
  std::uint64_t needs_review = 0;  // attempts that left their effect to an operator
  std::uint64_t again = 0;         // attempts without an effect, to be retried
  std::uint64_t stale = 0;         // outcomes of expired claims, kept as evidence
  std::uint64_t lost = 0;          // outcomes that could not be recorded
  std::uint64_t reconnects = 0;    // connections after the first
};

class EffectWorker {
 public:
  // Throws std::invalid_argument if an option is missing or invalid. Does not connect.
  explicit EffectWorker(EffectWorkerOptions options);
  ~EffectWorker();
  EffectWorker(const EffectWorker&) = delete;
  EffectWorker& operator=(const EffectWorker&) = delete;

  // Works until a stop is requested; then completes and settles the current attempt and returns all
  // other claims. Retries with backoff while the database is unavailable or rejects statements.
  // Throws nothing. May be called once per object.
  void run(std::stop_token stop);

  // Thread-safe.
  EffectWorkerStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace v1
}  // namespace outbox
