// SPDX-License-Identifier: Apache-2.0
// The effect ledger: effects outside the database (a charge, an e-mail, an upload), and what is known about each.
//
// Whoever handles a message plans the effects that it asks for, in the transaction that remembers the message:
//
//   pqxx::work tx(connection);
//   outbox::effect::plan(tx, {.provider = "payments", .effect_key = "charge-7", .target = {{"path", "/v1/charges"}}, .body = "amount=4200"});
//   tx.commit();
//
// An EffectWorker (effect_worker.h) then carries them out. claim() and settle() are what it is made of, for whoever must write
// another one: commit a claim before the provider is called, call it outside of any transaction, and settle what came of it.
//
// Errors: InvalidEffect, before anything is sent; EffectRefused, where the ledger says no; whatever else libpqxx throws is passed
// on. After the latter two the transaction has failed.
// Threads: as for the transaction.
// Needs a schema made by `outbox-relay init --schema effect`, and the rights of the role that is named with each function.
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

// An effect that is to be carried out. body is bytes: any value is allowed. All other texts are UTF-8 without zero bytes.
struct Effect {
  // Account at a provider, as it was registered.
  std::string provider;
  // Identity of the effect at this provider, 1 to 1,024 bytes. It stands for one request for ever: make it of the message that
  // asks for it, say its deduplication key and the name of the effect.
  std::string effect_key;
  // Where the request goes, in the terms of the provider's adapter.
  std::map<std::string, std::string> target{};
  // The bytes that are sent, the same at each attempt.
  std::string body{};
  // Deduplication key of the message that asks for it; at most 1,024 bytes. Defaults to none.
  std::optional<std::string> dedup_key{};
  // What it is, for the person who may have to decide about it. Defaults to none.
  std::optional<std::string> summary{};
};

// An effect that the ledger could never hold. what() ends with the remedy. Nothing was sent to the server, so the transaction can
// be used further.
class InvalidEffect : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// The ledger refuses: the transaction has failed. what() ends with the remedy.
class EffectRefused : public std::runtime_error {
 public:
  enum class Why {
    other_request,     // plan(): the effect key stands for another request
    unknown_provider,  // plan(), claim(): nobody has registered the provider
    no_such_effect,    // settle(), resolve()
    not_now,           // resolve(): an attempt is under way, or there is nothing to be decided any more
  };
  EffectRefused(Why why, const std::string& what) : std::runtime_error(what), why_(why) {}
  Why why() const { return why_; }

 private:
  Why why_;
};

// planned -> claimed -> done | failed | planned | in_doubt | needs_review. See the comments of the table effect.effect.
enum class EffectState { planned, claimed, in_doubt, needs_review, done, failed, stale };

// What is done about a doubt that neither a repeat with the same key nor a question can resolve.
enum class InDoubtPolicy {
  resend,  // the effect may happen twice
  hold,    // a person decides
};

// The rules for the effects of one account at a provider.
struct ProviderSettings {
  // Must be declared.
  InDoubtPolicy in_doubt_policy;
  // How long the provider tells a repeat by its key. Defaults to none: it cannot.
  std::optional<std::chrono::milliseconds> idempotency_window{};
  // A repeat must be over so long before the window ends. Defaults to 5 minutes.
  std::chrono::milliseconds window_margin = std::chrono::minutes{5};
  // Whether the provider can be asked what became of an effect. Defaults to no.
  bool supports_lookup = false;
  // How long after an attempt the answer that there is no such effect may still be wrong. Defaults to 1 minute.
  std::chrono::milliseconds lookup_delay = std::chrono::minutes{1};
  // How long one attempt may take; afterwards its effect is in doubt. Defaults to 2 minutes.
  std::chrono::milliseconds claim_ttl = std::chrono::minutes{2};
  // Attempts that left a doubt after which a person decides. Defaults to 8.
  int in_doubt_attempts_max = 8;
  // Pause before the first retry; it doubles with each, and half of it is random. Defaults to 1 second.
  std::chrono::milliseconds retry_first = std::chrono::seconds{1};
  // Longest pause. Defaults to 10 minutes.
  std::chrono::milliseconds retry_max = std::chrono::minutes{10};
  // Retries that each first attempt pays for, 0 to 1. Defaults to 0.2.
  double retry_budget_ratio = 0.2;
  // Most retries that are saved up, and those there are at first. Defaults to 10.
  int retry_budget_burst = 10;
  // Retries that time pays for. Defaults to 6.
  double retry_per_minute = 6;
  // Failures in a row after which the provider is left alone, but for one probe at a time. Defaults to 5.
  int breaker_failures = 5;
  // Pause before the first probe; it doubles with each that fails. Defaults to 1 second.
  std::chrono::milliseconds probe_first = std::chrono::seconds{1};
  // Longest pause between probes. Defaults to 1 minute.
  std::chrono::milliseconds probe_max = std::chrono::minutes{1};
};

enum class AttemptKind {
  call,    // nothing is in doubt: carry it out
  repeat,  // the same request again
  lookup,  // ask what became of it, and carry out nothing
};

// One attempt that a worker is to make.
struct Claim {
  std::int64_t effect;
  // Whoever settles under an older epoch is refused.
  std::int64_t epoch;
  AttemptKind kind;
  int attempts;  // with this one
  Request request;
  // How long it may take, counted from before the claim was asked for.
  std::chrono::milliseconds ttl;
};

enum class Resolution {
  done,    // it was carried out
  failed,  // it was not, and shall not be
  resend,  // call the provider as if for the first time, with another key
};

namespace effect {

// Writes down an effect and returns its number. The same effect again returns the same number. Role effect_planner.
std::int64_t plan(pqxx::dbtransaction& tx, const Effect& effect);

// Makes an account known, or changes its rules. Role effect_worker.
void register_provider(pqxx::dbtransaction& tx, const std::string& name, const ProviderSettings& settings);

// Claims effects that are to be carried out now, at most `claims_max` of them, as far as the retry budget and the breaker allow.
// Commit before the provider is called; once in a transaction. If the commit is in doubt, make no call: a claim that nobody heard
// of is in doubt when its time is over. `worker` says who holds the claim, for a person. Role effect_worker.
std::vector<Claim> claim(pqxx::dbtransaction& tx, const std::string& provider, const std::string& worker, int claims_max = 1);

// Records what came of an attempt and returns the new state of its effect; stale: the claim was over, and the outcome was kept as
// evidence. It can be repeated when a commit is in doubt; once in a transaction. An outcome that contradicts itself (say, an
// answer without an answer's phase) is recorded as a request that was sent and not answered: in doubt. Role effect_worker.
EffectState settle(pqxx::dbtransaction& tx, const Claim& claim, const Outcome& outcome);

// Gives a claim back of which nothing was tried; `why` is for a person. Role effect_worker.
EffectState give_back(pqxx::dbtransaction& tx, const Claim& claim, const std::string& why);

// Records a decision about an effect in doubt and returns its new state. `object` is what the provider calls the thing that it
// made, where that was found out. Role effect_operator.
EffectState resolve(pqxx::dbtransaction& tx, std::int64_t effect, Resolution resolution, const std::string& decided_by,
                    const std::string& why, const std::optional<std::string>& object = std::nullopt);

}  // namespace effect
}  // namespace v1
}  // namespace outbox
