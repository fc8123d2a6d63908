// SPDX-License-Identifier: Apache-2.0
// The effect ledger: effects outside the database (a charge, an e-mail, an upload) and their state.
//
// A message handler plans effects in the transaction that records the message:
//
//   pqxx::work tx(connection);
//   outbox::effect::plan(tx, {.provider = "payments",
//                             .effect_key = "charge-7",
//                             .target = {{"path", "/v1/charges"}},
//                             .body = "amount=4200"});
//   tx.commit();
//
// An EffectWorker (effect_worker.h) executes them. claim() and settle() serve custom workers:
// commit the claim before calling the provider, call it outside any transaction, then settle the
// outcome.
//
// Errors: InvalidEffect before anything is sent; EffectRefused if the ledger rejects the call;
// exceptions of libpqxx are passed on. After the latter two the transaction has failed.
// Threads: as for the transaction.
// Requires the schema of `outbox-relay init --schema effect`, and the role named at each function.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <pqxx/dbtransaction>
#include <stdexcept>
#include <string>
#include <vector>

#include "outbox/provider.h"

namespace outbox {
inline namespace v1 {

// An effect to execute. `body` may hold any bytes. All other strings are UTF-8 without zero bytes.
struct Effect {
  // Name of a registered provider account.
  std::string provider;
  // Identity of the effect at this provider, 1 to 1,024 bytes, without blanks around it, and not
  // ending in ## and a number. It identifies one request permanently: derive it from the message,
  // for example its deduplication key and the effect's name.
  std::string effect_key;
  // Destination of the request, in the terms of the provider's adapter.
  std::map<std::string, std::string> target{};
  // Bytes to send, identical in every attempt.
  std::string body{};
  // Deduplication key of the requesting message, at most 1,024 bytes. Defaults to none; empty
  // is none.
  std::optional<std::string> dedup_key{};
  // Description for the operator who reviews the effect. Defaults to none.
  std::optional<std::string> summary{};
};

// The ledger cannot represent the effect. what() ends with the remedy. Nothing was sent to the
// server; the transaction remains usable.
class InvalidEffect : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// The ledger rejected the call, and the transaction has failed. what() ends with the remedy.
class EffectRefused : public std::runtime_error {
 public:
  enum class Why {
    other_request,     // plan(): the effect key identifies a different request
    unknown_provider,  // plan(), claim(): the provider is not registered
    no_such_effect,    // settle(), resolve()
    not_now,           // resolve(): an attempt is in progress, or the effect is final
  };
  EffectRefused(Why why, const std::string& what) : std::runtime_error(what), why_(why) {}
  Why why() const { return why_; }

 private:
  Why why_;
};

// planned -> claimed -> done | failed | planned | in_doubt | needs_review. Documented by the
// comments of the table effect.effect. `stale` is returned by settle() only.
enum class EffectState { planned, claimed, in_doubt, needs_review, done, failed, stale };

// Resolution of an effect in doubt that neither a repeat with the same key nor a lookup can
// resolve.
enum class InDoubtPolicy {
  resend,  // send again; the effect may happen twice
  hold,    // wait for an operator's decision
};

// Rules for the effects of one provider account.
struct ProviderSettings {
  // Required.
  InDoubtPolicy in_doubt_policy;
  // Longest idempotency key that the provider takes, in bytes, 16 to 1,028. plan() rejects an
  // effect_key that has more than 4 bytes less, which an operator's decision to resend needs.
  // Defaults to 255.
  int key_bytes_max = 255;
  // Period in which the provider deduplicates by idempotency key. Defaults to none: it does not.
  std::optional<std::chrono::milliseconds> idempotency_window{};
  // A repeat must end this long before the window closes. Defaults to 5 minutes.
  std::chrono::milliseconds window_margin = std::chrono::minutes{5};
  // Whether the provider can report the outcome of an effect. Defaults to false.
  bool supports_lookup = false;
  // Period after an attempt in which a lookup may wrongly report absence. Defaults to 1 minute.
  std::chrono::milliseconds lookup_delay = std::chrono::minutes{1};
  // Time limit of one attempt; afterwards its effect is in doubt. Defaults to 2 minutes.
  std::chrono::milliseconds claim_ttl = std::chrono::minutes{2};
  // Number of attempts left in doubt after which an operator must decide. Defaults to 8.
  int in_doubt_attempts_max = 8;
  // Delay before the first retry. Doubles with each retry; half of it is jitter. Defaults to 1 s.
  std::chrono::milliseconds retry_first = std::chrono::seconds{1};
  // Maximum retry delay. Defaults to 10 minutes.
  std::chrono::milliseconds retry_max = std::chrono::minutes{10};
  // Retry budget earned by each first attempt, 0 to 1. Defaults to 0.2.
  double retry_budget_ratio = 0.2;
  // Maximum, and initial, retry budget. Defaults to 10.
  int retry_budget_burst = 10;
  // Retry budget earned per minute. Defaults to 6.
  double retry_per_minute = 6;
  // Consecutive failures that open the circuit breaker. Defaults to 5.
  int breaker_failures = 5;
  // Delay before the first probe of an open breaker. Doubles with each failure. Defaults to 1 s.
  std::chrono::milliseconds probe_first = std::chrono::seconds{1};
  // Maximum delay between probes. Defaults to 1 minute.
  std::chrono::milliseconds probe_max = std::chrono::minutes{1};
};

enum class AttemptKind {
  call,    // no attempt is in doubt: execute the effect
  repeat,  // send the same request again
  lookup,  // query the outcome; execute nothing
};

// One attempt assigned to a worker.
struct Claim {
  std::int64_t effect;
  // Fencing token of the claim: a later claim of the same effect has a higher epoch.
  std::int64_t epoch;
  AttemptKind kind;
  // Number of attempts, this one included.
  int attempts;
  Request request;
  // Time limit of the attempt, counted from before the call of claim().
  std::chrono::milliseconds ttl;
};

// An operator's decision.
enum class Resolution {
  done,    // the effect was executed
  failed,  // the effect was not executed, and must not be
  resend,  // execute it as a first attempt, with a new idempotency key
};

namespace effect {

// Records an effect and returns its number. Planning the same effect again returns the same number.
// Role effect_planner.
std::int64_t plan(pqxx::dbtransaction& tx, const Effect& effect);

// Registers a provider account, or replaces its settings. Role effect_worker.
void register_provider(pqxx::dbtransaction& tx, const std::string& name,
                       const ProviderSettings& settings);

// Claims at most `claims_max` due effects, within the retry budget and the state of the breaker.
// Call it once per transaction, and commit before calling the provider. If the outcome of the
// commit is unknown, do not call: such a claim expires and leaves its effect in doubt. `worker`
// identifies the holder to operators. Role effect_worker.
std::vector<Claim> claim(pqxx::dbtransaction& tx, const std::string& provider,
                         const std::string& worker, int claims_max = 1);

// Records the outcome of an attempt and returns the new state of its effect. Returns `stale` if the
// claim had expired; the outcome is then kept as evidence. Idempotent: repeat it if the outcome of
// the commit is unknown. Call it once per transaction. A contradictory outcome, such as an answer
// without Phase::answered, is recorded as sent and unanswered: in doubt. Role effect_worker.
EffectState settle(pqxx::dbtransaction& tx, const Claim& claim, const Outcome& outcome);

// Returns a claim for which no call was made; `why` is shown to operators. Role effect_worker.
EffectState give_back(pqxx::dbtransaction& tx, const Claim& claim, const std::string& why);

// Records an operator's decision about an effect in doubt and returns its new state. `object` is
// the provider's identifier of the created object, if known. Role effect_operator.
EffectState resolve(pqxx::dbtransaction& tx, std::int64_t effect, Resolution resolution,
                    const std::string& decided_by, const std::string& why,
                    const std::optional<std::string>& object = std::nullopt);

}  // namespace effect
}  // namespace v1
}  // namespace outbox
