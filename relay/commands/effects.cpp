// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/effects.h"

#include "relay/commands/output.h"

namespace relay {

std::string effect_columns() {
  return "e.id, e.provider, e.effect_key, e.dedup_key, e.summary, e.state, e.attempts, " +
         utc("e.planned_at") + ", " + utc("e.in_doubt_since") + ", " + utc("e.settled_at") +
         ", e.evidence, e.object, u.next_step, " + utc("u.next_at") + ", " +
         utc("e.key_valid_until") + ", e.worker, " + utc("e.claim_expires_at") +
         ", a.phase, a.answer, a.status, a.request_id, a.error";
}

Json effect_json(const pqxx::row& row) {
  return Json::object({{"id", row[0].as<std::int64_t>()},
                       {"provider", row[1].c_str()},
                       {"effect_key", row[2].c_str()},
                       {"dedup_key", text_or_null(row[3])},
                       {"summary", text_or_null(row[4])},
                       {"state", row[5].c_str()},
                       {"attempts", row[6].as<std::int64_t>()},
                       {"planned_at", row[7].c_str()},
                       {"in_doubt_since", text_or_null(row[8])},
                       {"settled_at", text_or_null(row[9])},
                       {"evidence", text_or_null(row[10])},
                       {"object", text_or_null(row[11])},
                       {"next_step", text_or_null(row[12])},
                       {"next_at", text_or_null(row[13])},
                       {"key_valid_until", text_or_null(row[14])},
                       {"worker", text_or_null(row[15])},
                       {"claim_expires_at", text_or_null(row[16])},
                       {"last_attempt", Json::object({{"phase", text_or_null(row[17])},
                                                      {"answer", text_or_null(row[18])},
                                                      {"status", integer_or_null(row[19])},
                                                      {"request_id", text_or_null(row[20])},
                                                      {"error", text_or_null(row[21])}})}});
}

std::string last_answer(const Json& effect) {
  const Json& a = effect["last_attempt"];
  if (a["phase"].is_null()) {
    return effect["attempts"].integer() == 0 ? "not attempted"
                                             : "the end of the last attempt is not known";
  }
  std::string out = a["answer"].is_null() ? "no answer, phase " + shown(a["phase"])
                                          : "answer " + shown(a["answer"]);
  if (!a["status"].is_null()) out += " " + shown(a["status"]);
  if (!a["request_id"].is_null()) out += ", request " + shown(a["request_id"]);
  if (!a["error"].is_null()) out += ": " + shown(a["error"]);
  return out;
}

std::string next_step(const Json& effect) {
  const Json& step = effect["next_step"];
  const std::string when =
      effect["next_at"].is_null() ? "" : ", not before " + shown(effect["next_at"]);
  if (step == "late_answer") {
    return "an answer arrived after its claim had expired: the next claim applies it";
  }
  if (step == "repeat" && !effect["key_valid_until"].is_null()) {
    return "the same request is sent again with the same idempotency key" + when;
  }
  if (step == "repeat") {
    return "it is sent again, as the in-doubt policy of the provider allows, which can duplicate "
           "it" +
           when;
  }
  if (step == "lookup") return "the provider is asked whether it executed the request" + when;
  if (step == "operator") {
    return "an operator must decide: `outbox-relay effects resolve " + shown(effect["id"]) + "`";
  }
  if (effect["state"] == "planned") return "a worker will execute it";
  if (effect["state"] == "claimed") {
    return "worker " + shown(effect["worker"]) + " executes it, until " +
           shown(effect["claim_expires_at"]) + " at most";
  }
  return "";
}

}  // namespace relay
