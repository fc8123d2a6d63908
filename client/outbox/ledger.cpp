// SPDX-License-Identifier: Apache-2.0
// The C++ side of the effect ledger: types to SQL arguments, rows to types, SQLSTATEs to
// EffectRefused.
//
// The arrays of names list the SQL values in the order of the enumerators. Texts of providers and
// adapters are sanitized, so that evidence is never rejected because of one byte.
#include "client/outbox/ledger.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/hex.h"
#include "common/names.h"
#include "common/pqxx_statement.h"
#include "common/utf8.h"

namespace outbox {
namespace {

using common::null_if_empty;
using nlohmann::json;
using Why = EffectRefused::Why;

constexpr std::size_t text_bytes_max = 1024;
constexpr std::size_t response_bytes_max = 4096;

// These statements may run in the application's session: operators are named with their schema.
constexpr const char* plan_sql = R"(
select effect.plan($1, $2, $3::jsonb, pg_catalog.decode($4, 'hex'),
                   $5, $6))";

constexpr const char* claim_sql = R"(
select c.effect_id, c.epoch, c.kind, c.attempts, c.effect_key, c.provider_key, c.target,
       pg_catalog.encode(c.body, 'hex'),
       pg_catalog.floor(pg_catalog.date_part('epoch', c.ttl)
                        operator(pg_catalog.*) 1000::double precision)::bigint
from effect.claim($1, $2, $3::integer) c)";

constexpr const char* settle_sql = R"(
select effect.settle($1::bigint, $2::bigint, $3, $4, $5::integer, $6, $7,
                     pg_catalog.decode($8, 'hex'), $9,
                     interval '1 millisecond' operator(pg_catalog.*) $10::double precision,
                     $11::boolean))";

// In the order of EffectState, AttemptKind, Phase, Answer and Resolution.
constexpr std::array state_names{"planned", "claimed", "in_doubt", "needs_review",
                                 "done",    "failed",  "stale"};
constexpr std::array kind_names{"call", "repeat", "lookup"};
constexpr std::array phase_names{"nothing", "partly", "sent", "answered"};
constexpr std::array answer_names{
    "", "done", "refused", "not_now", "in_progress", "unauthorized", "failing", "absent"};
constexpr std::array resolution_names{"done", "failed", "resend"};

// The enumerator of a SQL value. Throws if the schema has values that this library does not know.
template <class Enum, std::size_t n>
Enum value_of(const std::array<const char*, n>& names, const std::string& text) {
  for (std::size_t i = 0; i < n; ++i) {
    if (text == names[i]) return static_cast<Enum>(i);
  }
  throw std::runtime_error("the ledger returned the unknown value \"" + text +
                           "\". HINT: the schema is newer than this library; upgrade the library");
}

template <class Enum, std::size_t n>
std::string name_of(const std::array<const char*, n>& names, Enum value) {
  return names.at(static_cast<std::size_t>(value));
}

// Converts text of a provider or an adapter to text that PostgreSQL accepts.
std::string sanitize(std::string text) {
  std::erase(text, '\0');
  if (text.size() > text_bytes_max) text.resize(text_bytes_max);
  return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace))
      .get<std::string>();
}

// Whether a provider could answer for another effect: HTTP strips the blanks, and ##N is the suffix
// of resent effects.
bool ambiguous_key(std::string_view key) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  const std::size_t digits = key.find_last_not_of("0123456789") + 1;
  return blank(key.front()) || blank(key.back()) ||
         (digits < key.size() && key.substr(0, digits).ends_with("##"));
}

// Throws InvalidEffect for what the table would reject, so that the transaction remains usable.
void check_effect(const Effect& effect) {
  const auto reject = [&](const std::string& what) {
    throw InvalidEffect("effect \"" + sanitize(effect.effect_key) + "\": " + what);
  };
  if (effect.effect_key.empty() || effect.effect_key.size() > common::dedup_key_bytes_max) {
    reject("effect_key has " + std::to_string(effect.effect_key.size()) +
           " bytes. HINT: use 1 to 1,024 bytes, for example a hash of it");
  }
  if (ambiguous_key(effect.effect_key)) {
    reject("effect_key has blanks around it or ends with ##N. HINT: derive it from the message");
  }
  if (effect.dedup_key && effect.dedup_key->size() > common::dedup_key_bytes_max) {
    reject("dedup_key has " + std::to_string(effect.dedup_key->size()) +
           " bytes. HINT: the limit is 1,024");
  }
  bool text = common::is_text(effect.provider) && common::is_text(effect.effect_key) &&
              common::is_text(effect.dedup_key.value_or("")) &&
              common::is_text(effect.summary.value_or(""));
  for (const auto& [name, value] : effect.target) {
    text = text && common::is_text(name) && common::is_text(value);
  }
  if (!text) {
    reject("a string is not UTF-8 or has a zero byte. HINT: put binary data into the body");
  }
}

// Runs a statement of the ledger, and translates its errors to EffectRefused.
template <class Statement>
auto run_ledger(const Statement& statement) {
  try {
    return statement();
  } catch (const pqxx::sql_error& e) {
    const auto refused = [&](Why why) { return EffectRefused(why, e.what()); };
    if (e.sqlstate() == "23505") throw refused(Why::other_request);
    if (e.sqlstate() == "23503") throw refused(Why::unknown_provider);
    if (e.sqlstate() == "42704") throw refused(Why::unknown_provider);
    if (e.sqlstate() == "P0002") throw refused(Why::no_such_effect);
    if (e.sqlstate() == "55000") throw refused(Why::not_now);
    throw;
  }
}

EffectState state_in(const pqxx::result& rows) {
  return value_of<EffectState>(state_names, rows[0][0].c_str());
}

std::string milliseconds(std::chrono::milliseconds time) {
  return std::to_string(time.count()) + " milliseconds";
}

// The argument of effect.register(), by its names.
json settings_of(const ProviderSettings& s) {
  return {{"in_doubt_policy", s.in_doubt_policy == InDoubtPolicy::hold ? "hold" : "resend"},
          {"key_bytes_max", s.key_bytes_max},
          {"idempotency_window",
           s.idempotency_window ? json(milliseconds(*s.idempotency_window)) : json()},
          {"window_margin", milliseconds(s.window_margin)},
          {"supports_lookup", s.supports_lookup},
          {"lookup_delay", milliseconds(s.lookup_delay)},
          {"claim_ttl", milliseconds(s.claim_ttl)},
          {"in_doubt_attempts_max", s.in_doubt_attempts_max},
          {"retry_first", milliseconds(s.retry_first)},
          {"retry_max", milliseconds(s.retry_max)},
          {"retry_budget_ratio", s.retry_budget_ratio},
          {"retry_budget_burst", s.retry_budget_burst},
          {"retry_per_minute", s.retry_per_minute},
          {"breaker_failures", s.breaker_failures},
          {"probe_first", milliseconds(s.probe_first)},
          {"probe_max", milliseconds(s.probe_max)}};
}

// The claim in a row of claim_sql.
template <class Row>
Claim claim_of(const Row& row) {
  Claim claim{row[0].template as<std::int64_t>(),
              row[1].template as<std::int64_t>(),
              value_of<AttemptKind>(kind_names, row[2].c_str()),
              row[3].template as<int>(),
              Request{row[4].c_str(), row[5].c_str()},
              std::chrono::milliseconds{row[8].template as<std::int64_t>()}};
  const json target = json::parse(row[6].c_str());
  for (const auto& [name, value] : target.items()) {
    claim.request.target[name] =
        value.is_string() ? value.template get<std::string>() : value.dump();
  }
  claim.request.body = common::unhex(row[7].c_str());
  return claim;
}

// The ledger rejects contradictory outcomes, which are defects of an adapter. They are recorded as
// sent and unanswered, because the request may have been sent.
Outcome consistent(const Claim& claim, Outcome outcome) {
  const bool refused_before = outcome.phase == Phase::nothing && outcome.answer == Answer::refused;
  const bool contradiction =
      ((outcome.phase == Phase::answered) != (outcome.answer != Answer::none) && !refused_before) ||
      (outcome.answer == Answer::absent && claim.kind != AttemptKind::lookup);
  if (contradiction) {
    outcome.error = "the adapter returned phase \"" + name_of(phase_names, outcome.phase) +
                    "\" with answer \"" + name_of(answer_names, outcome.answer) +
                    "\", a contradiction: " + outcome.error;
    outcome.phase = Phase::sent;
    outcome.answer = Answer::none;
  }
  return outcome;
}

}  // namespace

namespace ledger {

void register_provider(pqxx::transaction_base& tx, const std::string& name,
                       const ProviderSettings& settings) {
  common::run(tx, "select effect.register($1, $2::jsonb)", name, settings_of(settings).dump());
}

std::vector<Claim> claim(pqxx::transaction_base& tx, const std::string& provider,
                         const std::string& worker, int claims_max) {
  const pqxx::result rows = run_ledger(
      [&] { return common::run(tx, claim_sql, provider, worker, std::to_string(claims_max)); });
  std::vector<Claim> claims;
  for (const auto& row : rows) claims.push_back(claim_of(row));
  return claims;
}

EffectState settle(pqxx::transaction_base& tx, const Claim& claim, const Outcome& reported,
                   bool tried) {
  const Outcome outcome = consistent(claim, reported);
  // Within the range of PostgreSQL's intervals; the ledger limits it further.
  constexpr std::chrono::milliseconds longest = std::chrono::days{365};
  const std::string retry_after =
      outcome.retry_after ? std::to_string(std::min(*outcome.retry_after, longest).count()) : "";
  return run_ledger([&] {
    return state_in(common::run(
        tx, settle_sql, std::to_string(claim.effect), std::to_string(claim.epoch),
        name_of(phase_names, outcome.phase), null_if_empty(name_of(answer_names, outcome.answer)),
        null_if_empty(outcome.status == 0 ? "" : std::to_string(outcome.status)),
        null_if_empty(sanitize(outcome.request_id)), null_if_empty(sanitize(outcome.object)),
        null_if_empty(
            common::hex(std::string_view(outcome.response).substr(0, response_bytes_max))),
        null_if_empty(sanitize(outcome.error)), null_if_empty(retry_after),
        std::string(tried ? "t" : "f")));
  });
}

}  // namespace ledger

inline namespace v1 {
namespace effect {

std::int64_t plan(pqxx::dbtransaction& tx, const Effect& effect) {
  check_effect(effect);
  common::begin_subtransaction(tx);
  return run_ledger([&] {
    return common::run(tx, plan_sql, effect.provider, effect.effect_key, json(effect.target).dump(),
                       common::hex(effect.body), null_if_empty(effect.dedup_key.value_or("")),
                       null_if_empty(effect.summary.value_or("")))[0][0]
        .as<std::int64_t>();
  });
}

void register_provider(pqxx::dbtransaction& tx, const std::string& name,
                       const ProviderSettings& settings) {
  common::begin_subtransaction(tx);
  ledger::register_provider(tx, name, settings);
}

std::vector<Claim> claim(pqxx::dbtransaction& tx, const std::string& provider,
                         const std::string& worker, int claims_max) {
  common::begin_subtransaction(tx);
  return ledger::claim(tx, provider, worker, claims_max);
}

EffectState settle(pqxx::dbtransaction& tx, const Claim& claim, const Outcome& outcome) {
  common::begin_subtransaction(tx);
  return ledger::settle(tx, claim, outcome);
}

EffectState give_back(pqxx::dbtransaction& tx, const Claim& claim, const std::string& why) {
  common::begin_subtransaction(tx);
  return ledger::settle(tx, claim, Outcome{.error = why}, false);
}

EffectState resolve(pqxx::dbtransaction& tx, std::int64_t effect, Resolution resolution,
                    const std::string& decided_by, const std::string& why,
                    const std::optional<std::string>& object) {
  common::begin_subtransaction(tx);
  return run_ledger([&] {
    return state_in(common::run(tx, "select effect.resolve($1::bigint, $2, $3, $4, $5)",
                                std::to_string(effect), name_of(resolution_names, resolution),
                                decided_by, why, null_if_empty(object.value_or(""))));
  });
}

}  // namespace effect
}  // namespace v1
}  // namespace outbox
