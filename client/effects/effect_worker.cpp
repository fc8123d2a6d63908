// SPDX-License-Identifier: Apache-2.0
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
#include "common/pqxx_statement.h"
#include "common/backoff.h"

namespace outbox {
inline namespace v1 {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds reconnect_first{100};
constexpr milliseconds reconnect_max{5'000};
// Of a claim's time, this much is left to record what came of it.
constexpr milliseconds settle_time_max{5'000};

// As in session_sql.
constexpr std::chrono::seconds statement_time_max{30};

// What a worker must not inherit from its login, and bounds: whoever holds the lock of a provider is soon done with it.
constexpr const char* session_sql =
    "set default_transaction_isolation = 'read committed'; set default_transaction_read_only = off; set search_path = pg_catalog; "
    "set statement_timeout = '30s'; set lock_timeout = '10s'; set enable_seqscan = off; set jit = off";

std::string random_digits() {
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

// Whether a statement that failed so may succeed when it is repeated: what the server has too little of now, or was told to end.
bool passes(const pqxx::sql_error& e) {
  const std::string group = e.sqlstate().substr(0, 2);
  return group.empty() || group == "08" || group == "25" || group == "40" || group == "53" || group == "55" || group == "57" ||
         group == "58" || group == "XX";
}

EffectWorkerOptions checked(EffectWorkerOptions options) {
  const auto need = [](bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(std::string("effect worker: ") + what);
  };
  need(!options.accounts.empty(), "there is no account. HINT: name the providers whose effects it is to carry out");
  for (const auto& account : options.accounts) {
    need(!account.provider.empty() && account.adapter != nullptr, "an account has no name or no adapter. HINT: give it both");
    need(!account.settings || !account.settings->supports_lookup || account.adapter->supports_lookup(),
         "supports_lookup is set, and the adapter cannot ask. HINT: configure the adapter's question, or leave supports_lookup off");
  }
  need(options.claims_max > 0, "claims_max must be positive. HINT: 1 is right unless calls take few milliseconds");
  need(options.idle_first.count() > 0 && options.idle_max >= options.idle_first, "idle_max is below idle_first. HINT: swap them");
  if (options.name.empty()) options.name = default_name();
  options.name += "/" + random_digits();
  return options;
}

}  // namespace

// The state of one run: at most one call is under way, and an outcome that was not recorded yet comes before anything else.
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
          if (Clock::now() < look_until_) give_back_unheard();
          wait(idle_.next());
        }
      } catch (const pqxx::sql_error& e) {
        // A statement that the server refuses for good is tried again all the same: a person may grant the right or run init.
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

  void connect() {
    if (connection_) return;
    connection_ = std::make_unique<pqxx::connection>(options_.dsn);
    pqxx::nontransaction tx(*connection_);
    tx.exec(session_sql);
    for (const auto& account : options_.accounts) {
      if (account.settings && !registered_) ledger::register_provider(tx, account.provider, *account.settings);
    }
    registered_ = true;
    if (std::exchange(connected_before_, true)) {
      look_until_ = Clock::now() + 2 * statement_time_max;
      count(&EffectWorkerStats::reconnects);
    }
    if (std::exchange(away_, false)) tell(EffectEvent::Kind::database_back, "the database answers again");
  }

  // Claims that committed on the server while the connection broke, perhaps only after the next one was made: nobody called, and
  // nobody else holds a claim of this name.
  void give_back_unheard() {
    pqxx::nontransaction tx(*connection_);
    for (const auto& account : options_.accounts) {
      const auto rows = common::run(tx, "select e.id, e.epoch from effect.effect e where e.provider = $1 and e.state = 'claimed' and e.worker = $2",
                                    account.provider, options_.name);
      for (const auto& row : rows) {
        Claim claim{};
        claim.effect = row[0].as<std::int64_t>();
        claim.epoch = row[1].as<std::int64_t>();
        if (!knows(claim)) ledger::settle(tx, claim, Outcome{.error = "the worker never heard of this claim: no call was made"}, false);
      }
    }
  }

  bool knows(const Claim& claim) const {
    const auto same = [&](const Claim& other) { return other.effect == claim.effect && other.epoch == claim.epoch; };
    return (outcome_ && same(outcome_->claim)) || std::any_of(held_.begin(), held_.end(), [&](const Held& h) { return same(h.claim); });
  }

  // One attempt, or one claim; false: there is nothing to do.
  bool step() {
    if (held_.empty() && !stop_.stop_requested()) claim_round();
    if (held_.empty()) return false;
    const Held next = std::move(held_.front());
    held_.pop_front();
    if (stop_.stop_requested()) {
      outcome_ = Unrecorded{next.claim, Outcome{.error = "the worker was stopped before it called"}, false};
    } else if (Clock::now() >= next.deadline) {
      outcome_ = Unrecorded{next.claim, Outcome{.error = "claim came too late: no call was made"}, false};
      count(&EffectWorkerStats::too_late);
    } else {
      outcome_ = Unrecorded{next.claim, attempt(next), true};
      count(&EffectWorkerStats::calls);
    }
    record();
    return true;
  }

  // Each account in turn, beginning behind the one served last.
  void claim_round() {
    for (std::size_t i = 0; i < options_.accounts.size() && held_.empty(); ++i) {
      const std::size_t account = std::exchange(turn_, (turn_ + 1) % options_.accounts.size());
      const auto asked_at = Clock::now();
      pqxx::nontransaction tx(*connection_);
      for (Claim& claim : ledger::claim(tx, options_.accounts[account].provider, options_.name, options_.claims_max)) {
        const auto deadline = asked_at + claim.ttl - std::min(settle_time_max, claim.ttl / 5);
        held_.push_back({std::move(claim), account, deadline});
        count(&EffectWorkerStats::claims);
      }
      reconnect_.reset();
    }
  }

  Outcome attempt(const Held& held) {
    Provider& adapter = *options_.accounts[held.account].adapter;
    std::string what = "something that is no std::exception";
    try {
      if (held.claim.kind != AttemptKind::lookup) return adapter.call(held.claim.request, held.deadline);
      if (adapter.supports_lookup()) return adapter.lookup(held.claim.request, held.deadline);
      return Outcome{.error = "the adapter cannot ask"};
    } catch (const std::exception& e) {
      what = e.what();
    } catch (...) {
    }
    tell(EffectEvent::Kind::adapter_threw, "effect " + std::to_string(held.claim.effect) + ": the adapter of " +
                                               options_.accounts[held.account].provider + " threw: " + what +
                                               ". HINT: an adapter says what it saw as an outcome; the effect is in doubt");
    // It may have thrown after it had sent the request.
    return Outcome{.phase = Phase::sent, .error = "the adapter threw: " + what};
  }

  // Throws when the database is away: the outcome is kept, and settle() can be repeated.
  void record() {
    try {
      pqxx::nontransaction tx(*connection_);
      count_end(ledger::settle(tx, outcome_->claim, outcome_->outcome, outcome_->tried), outcome_->tried);
    } catch (const pqxx::sql_error& e) {
      if (passes(e)) throw;
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

  void lose(const std::string& why) {
    const Outcome& o = outcome_->outcome;
    count(&EffectWorkerStats::lost);
    tell(EffectEvent::Kind::answer_lost,
         "effect " + std::to_string(outcome_->claim.effect) + ", attempt " + std::to_string(outcome_->claim.epoch) + ": phase " +
             std::to_string(static_cast<int>(o.phase)) + ", answer " + std::to_string(static_cast<int>(o.answer)) + ", status " +
             std::to_string(o.status) + ", object \"" + o.object + "\", request \"" + o.request_id + "\" could not be recorded: " + why +
             " HINT: keep this line; the effect is in doubt, and this is what is known about it");
  }

  void database_failed(const std::string& what) {
    connection_.reset();
    if (!std::exchange(away_, true)) {
      tell(EffectEvent::Kind::database_away, what + " HINT: it is tried again until it answers; see dsn, and `outbox-relay init --schema effect`");
    }
    if (!stop_.stop_requested()) return wait(reconnect_.next());
    // What is claimed and was not called is in doubt when its time is over; that it was not called cannot be recorded now.
    const auto now = Clock::now();
    if (!give_up_at_) give_up_at_ = now + options_.stop_patience;
    if (now >= *give_up_at_) {
      if (outcome_) lose(what);
      outcome_.reset();
      held_.clear();
    } else {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, std::min(std::chrono::duration_cast<milliseconds>(*give_up_at_ - now) + milliseconds{1}, reconnect_.next()));
    }
  }

  void wait(milliseconds time) {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, stop_, time, [] { return false; });
  }
  void count(std::uint64_t EffectWorkerStats::* what) {
    const std::lock_guard lock(mutex_);
    ++(stats_.*what);
  }
  void tell(EffectEvent::Kind kind, const std::string& text) {
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
  Clock::time_point look_until_{};  // for claims nobody heard of
  std::size_t turn_ = 0;
  std::deque<Held> held_;
  std::optional<Unrecorded> outcome_;

  mutable std::mutex mutex_;
  std::condition_variable_any wake_;
  EffectWorkerStats stats_;
};

EffectWorker::EffectWorker(EffectWorkerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
EffectWorker::~EffectWorker() = default;
void EffectWorker::run(std::stop_token stop) { impl_->run(std::move(stop)); }
EffectWorkerStats EffectWorker::stats() const { return impl_->stats(); }

}  // namespace v1
}  // namespace outbox
