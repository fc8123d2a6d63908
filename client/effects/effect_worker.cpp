// SPDX-License-Identifier: Apache-2.0
// EffectWorker: claims effects, calls their adapters and settles the outcomes, one at a time.
//
// One round of run():
//   1. connect, if not connected: configure the session, and register the accounts once;
//   2. record an outcome that could not be recorded before;
//   3. claim effects of the next account, unless some are held;
//   4. call the adapter of the first held claim, without an open transaction;
//   5. settle its outcome; then wait, if there was nothing to do.
//
// Failure. A database failure closes the connection and is retried with backoff; the outcome is
// kept meanwhile. An outcome that the ledger rejects is reported as answer_lost. After a reconnect,
// claims that committed without reaching the worker are returned. An exception of an adapter leaves
// its effect in doubt. All state but the statistics belongs to the thread of run(); a mutex
// protects the statistics.
#include "outbox/effect_worker.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <stdexcept>
#include <utility>

#include "client/outbox/ledger.h"
#include "common/backoff.h"
#include "common/pqxx_statement.h"

namespace outbox {
inline namespace v1 {
namespace {

using Clock = BootClock;
using std::chrono::milliseconds;

constexpr milliseconds reconnect_first{100};
constexpr milliseconds reconnect_max{5'000};
// Time reserved at the end of a claim for recording its outcome.
constexpr milliseconds settle_time_max{5'000};

// The statement_timeout of session_sql.
constexpr std::chrono::seconds statement_time_max{30};

// Overrides settings of the login, and sets limits: the lock of a provider is held briefly.
constexpr const char* session_sql =
    "set default_transaction_isolation = 'read committed';"
    "set default_transaction_read_only = off;"
    "set search_path = pg_catalog;"
    "set statement_timeout = '30s';"
    "set lock_timeout = '10s';"
    "set enable_seqscan = off;"
    "set exit_on_error = off;"
    "set jit = off;"
    "select set_config(s.name, '0', false) from pg_settings s "  // newer than PostgreSQL 13
    "where s.name in ('transaction_timeout', 'idle_session_timeout')";

constexpr const char* own_claims_sql = R"(
select e.id, e.epoch from effect.effect e
where e.provider = $1 and e.state = 'claimed' and e.worker = $2)";

std::string random_suffix() {
  std::random_device random;
  std::array<char, 9> digits{};
  std::snprintf(digits.data(), digits.size(), "%08x", random());
  return digits.data();
}

std::string default_name() {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return std::string(host.data()) + ":" + std::to_string(getpid());
}

// Whether the failed statement may succeed later: lost connections, conflicts, missing resources,
// locks, shutdowns, I/O and internal errors.
bool transient(const pqxx::sql_error& e) {
  const std::string group = e.sqlstate().substr(0, 2);
  return group.empty() || group == "08" || group == "25" || group == "40" || group == "53" ||
         group == "55" || group == "57" || group == "58" || group == "XX";
}

EffectWorkerOptions checked(EffectWorkerOptions options) {
  const auto need = [](bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(std::string("effect worker: ") + what);
  };
  need(!options.accounts.empty(), "there is no account. HINT: add the provider accounts to serve");
  for (const auto& account : options.accounts) {
    need(!account.provider.empty() && account.adapter != nullptr,
         "an account has no name or no adapter. HINT: set both");
    need(!account.settings || !account.settings->supports_lookup ||
             account.adapter->supports_lookup(),
         "supports_lookup is set, but the adapter does not support lookups. HINT: configure the "
         "adapter's lookup, or clear supports_lookup");
  }
  need(options.claims_max > 0,
       "claims_max is not positive. HINT: use 1 unless calls take only a few milliseconds");
  need(options.idle_first.count() > 0 && options.idle_max >= options.idle_first,
       "idle_first is not positive, or exceeds idle_max. HINT: increase idle_max");
  if (options.name.empty()) options.name = default_name();
  options.name += "/" + random_suffix();
  return options;
}

}  // namespace

// At most one call is in progress. An unrecorded outcome takes precedence over everything else.
class EffectWorker::Impl {
 public:
  explicit Impl(EffectWorkerOptions options) : options_(checked(std::move(options))) {}

  void run(std::stop_token stop) {
    stop_ = std::move(stop);
    while (!stop_.stop_requested() || !held_.empty() || outcome_) {
      try {
        connect();
        if (outcome_) record();
        if (step()) {
          idle_.reset();
        } else if (!stop_.stop_requested()) {
          if (Clock::now() < recover_until_) give_back_unreceived();
          wait(idle_.next());
        }
      } catch (const pqxx::sql_error& e) {
        // Permanent errors are retried as well: an operator may grant the privilege or run init.
        database_failed(e.what());
      } catch (const std::exception& e) {
        database_failed(e.what());
      }
    }
    connection_.reset();
  }

  EffectWorkerStats stats() const {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  struct Held {
    Claim claim;
    std::size_t account;
    Clock::time_point deadline;  // of the call
  };
  struct Unrecorded {
    Claim claim;
    Outcome outcome;
    bool tried;
  };

  // Only the first connection registers the accounts.
  void connect() {
    if (connection_) return;
    connection_ = std::make_unique<pqxx::connection>(options_.dsn);
    pqxx::nontransaction tx(*connection_);
    tx.exec(session_sql);
    for (const auto& account : options_.accounts) {
      if (account.settings && !registered_) {
        ledger::register_provider(tx, account.provider, *account.settings);
      }
    }
    registered_ = true;
    if (std::exchange(connected_before_, true)) {
      recover_until_ = Clock::now() + 2 * statement_time_max;
      count(&EffectWorkerStats::reconnects);
    }
    if (std::exchange(away_, false)) {
      emit(EffectEvent::Kind::database_back, "the database is available again");
    }
  }

  // Returns claims of this worker that committed while the connection broke, possibly after the
  // reconnect. No call was made for them, and the worker's name is unique.
  void give_back_unreceived() {
    pqxx::nontransaction tx(*connection_);
    for (const auto& account : options_.accounts) {
      const auto rows = common::run(tx, own_claims_sql, account.provider, options_.name);
      for (const auto& row : rows) {
        Claim claim{};
        claim.effect = row[0].as<std::int64_t>();
        claim.epoch = row[1].as<std::int64_t>();
        if (!holds(claim)) {
          ledger::settle(
              tx, claim,
              Outcome{.error = "the worker did not receive this claim: no call was made"}, false);
        }
      }
    }
  }

  // Whether the claim is held, or its outcome is unrecorded.
  bool holds(const Claim& claim) const {
    const auto same = [&](const Claim& other) {
      return other.effect == claim.effect && other.epoch == claim.epoch;
    };
    return (outcome_ && same(outcome_->claim)) ||
           std::any_of(held_.begin(), held_.end(), [&](const Held& h) { return same(h.claim); });
  }

  // Processes one claim. Returns false if there is nothing to do.
  bool step() {
    if (held_.empty() && !stop_.stop_requested()) claim_round();
    if (held_.empty()) return false;
    const Held next = std::move(held_.front());
    held_.pop_front();
    if (stop_.stop_requested()) {
      outcome_ =
          Unrecorded{next.claim, Outcome{.error = "the worker was stopped before the call"}, false};
    } else if (Clock::now() >= next.deadline) {
      outcome_ = Unrecorded{
          next.claim, Outcome{.error = "too little of the claim's time was left: no call was made"},
          false};
      count(&EffectWorkerStats::too_late);
    } else {
      outcome_ = Unrecorded{next.claim, attempt(next), true};
      count(&EffectWorkerStats::calls);
    }
    record();
    return true;
  }

  // Claims from the accounts in round-robin order until one has work.
  void claim_round() {
    for (std::size_t i = 0; i < options_.accounts.size() && held_.empty(); ++i) {
      const std::size_t account = std::exchange(turn_, (turn_ + 1) % options_.accounts.size());
      const auto requested_at = Clock::now();
      pqxx::nontransaction tx(*connection_);
      for (Claim& claim : ledger::claim(tx, options_.accounts[account].provider, options_.name,
                                        options_.claims_max)) {
        const auto deadline = requested_at + claim.ttl - std::min(settle_time_max, claim.ttl / 5);
        held_.push_back({std::move(claim), account, deadline});
        count(&EffectWorkerStats::claims);
      }
      reconnect_.reset();
    }
  }

  // Calls the adapter. No transaction is open, and no exception leaves.
  Outcome attempt(const Held& held) {
    Provider& adapter = *options_.accounts[held.account].adapter;
    std::string what = "an exception that is not a std::exception";
    try {
      if (held.claim.kind != AttemptKind::lookup) {
        return adapter.call(held.claim.request, held.deadline);
      }
      if (adapter.supports_lookup()) return adapter.lookup(held.claim.request, held.deadline);
      return Outcome{.error = "the adapter does not support lookups. HINT: clear supports_lookup"};
    } catch (const std::exception& e) {
      what = e.what();
    } catch (...) {
    }
    emit(EffectEvent::Kind::adapter_threw,
         "effect " + std::to_string(held.claim.effect) + ": the adapter of " +
             options_.accounts[held.account].provider + " threw: " + what +
             ". HINT: adapters must return an Outcome and not throw; the effect is in doubt");
    // The request may have been sent before the exception.
    return Outcome{.phase = Phase::sent, .error = "the adapter threw: " + what};
  }

  // Settles outcome_. Throws if the database is unavailable: the outcome is kept, and settle() is
  // idempotent.
  void record() {
    try {
      pqxx::nontransaction tx(*connection_);
      count_end(ledger::settle(tx, outcome_->claim, outcome_->outcome, outcome_->tried),
                outcome_->tried);
    } catch (const pqxx::sql_error& e) {
      if (transient(e)) throw;
      lose(e.what());
    } catch (const EffectRefused& e) {
      lose(e.what());
    }
    outcome_.reset();
    reconnect_.reset();
  }

  void count_end(EffectState state, bool tried) {
    switch (state) {
      case EffectState::done: return count(&EffectWorkerStats::done);
      case EffectState::failed: return count(&EffectWorkerStats::failed);
      case EffectState::in_doubt: return count(&EffectWorkerStats::in_doubt);
      case EffectState::needs_review: return count(&EffectWorkerStats::needs_review);
      case EffectState::stale: return count(&EffectWorkerStats::stale);
      case EffectState::planned:
      case EffectState::claimed:
        if (tried) count(&EffectWorkerStats::again);
    }
  }

  // Reports an outcome that cannot be recorded: the event is its only trace.
  void lose(const std::string& why) {
    const Outcome& o = outcome_->outcome;
    count(&EffectWorkerStats::lost);
    emit(EffectEvent::Kind::answer_lost,
         "effect " + std::to_string(outcome_->claim.effect) + ", attempt " +
             std::to_string(outcome_->claim.epoch) + ": phase " +
             std::to_string(static_cast<int>(o.phase)) + ", answer " +
             std::to_string(static_cast<int>(o.answer)) + ", status " + std::to_string(o.status) +
             ", object \"" + o.object + "\", request \"" + o.request_id +
             "\" could not be recorded: " + why +
             " HINT: keep this line for the operator; the effect is in doubt");
  }

  // Drops the connection and waits. While stopping, gives up after stop_patience.
  void database_failed(const std::string& what) {
    connection_.reset();
    if (!std::exchange(away_, true)) {
      emit(EffectEvent::Kind::database_away,
           what +
               " HINT: the worker retries; check dsn, and run `outbox-relay init --schema effect`");
    }
    if (!stop_.stop_requested()) return wait(reconnect_.next());
    // Held claims cannot be returned now: they expire, and their effects become in doubt.
    const auto now = Clock::now();
    if (!give_up_at_) give_up_at_ = now + options_.stop_patience;
    if (now >= *give_up_at_) {
      if (outcome_) lose(what);
      outcome_.reset();
      held_.clear();
    } else {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, std::min(std::chrono::duration_cast<milliseconds>(*give_up_at_ - now) +
                                        milliseconds{1},
                                    reconnect_.next()));
    }
  }

  void wait(milliseconds time) {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, stop_, time, [] { return false; });
  }
  void count(std::uint64_t EffectWorkerStats::*what) {
    const std::lock_guard lock(mutex_);
    ++(stats_.*what);
  }
  void emit(EffectEvent::Kind kind, const std::string& text) {
    if (options_.on_event) options_.on_event({kind, text});
  }

  EffectWorkerOptions options_;
  std::stop_token stop_;
  std::unique_ptr<pqxx::connection> connection_;
  bool registered_ = false;
  bool connected_before_ = false;
  bool away_ = false;
  std::optional<Clock::time_point> give_up_at_;
  common::Backoff idle_ = common::Backoff::with_jitter(options_.idle_first, options_.idle_max);
  common::Backoff reconnect_ = common::Backoff::with_jitter(reconnect_first, reconnect_max);
  Clock::time_point recover_until_{};  // end of the search for unreceived claims
  std::size_t turn_ = 0;
  std::deque<Held> held_;
  std::optional<Unrecorded> outcome_;

  mutable std::mutex mutex_;
  std::condition_variable_any wake_;
  EffectWorkerStats stats_;
};

EffectWorker::EffectWorker(EffectWorkerOptions options)
    : impl_(std::make_unique<Impl>(std::move(options))) {}
EffectWorker::~EffectWorker() = default;
void EffectWorker::run(std::stop_token stop) { impl_->run(std::move(stop)); }
EffectWorkerStats EffectWorker::stats() const { return impl_->stats(); }

}  // namespace v1
}  // namespace outbox
