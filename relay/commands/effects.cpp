// SPDX-License-Identifier: Apache-2.0
// effects list, show and resolve: what was asked of providers, what is known about it, and what a person decides.
#include <cstdio>

#include "relay/base/escape.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"

namespace outbox {
namespace {

// Only what the role effect_observer may read: neither requests nor answers.
std::string columns() {
  return "e.id, e.provider, e.effect_key, e.dedup_key, e.summary, e.state, e.attempts, " + utc("e.planned_at") + ", " + utc("e.in_doubt_since") +
         ", " + utc("e.settled_at") + ", e.evidence, e.object, u.next_step, " + utc("u.next_at") + ", " + utc("e.key_valid_until") +
         ", e.worker, " + utc("e.claim_expires_at") + ", a.phase, a.answer, a.status, a.request_id, a.error";
}
constexpr int column_count = 22;
constexpr const char* from_effects =
    " from effect.effect e left join effect.unsettled u on u.id = e.id left join effect.attempt a on a.effect = e.id and a.epoch = e.epoch ";

Json json_of(const pqxx::row& row) {
  return Json{{"id", row[0].as<std::int64_t>()},
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
              {"last_attempt",
               {{"phase", text_or_null(row[17])},
                {"answer", text_or_null(row[18])},
                {"status", integer_or_null(row[19])},
                {"request_id", text_or_null(row[20])},
                {"error", text_or_null(row[21])}}}};
}

std::string text(const Json& j) { return j.is_string() ? escape(j.get<std::string>()) : j.is_null() ? "-" : j.dump(); }

// What the rule says, for a person.
std::string rule(const Json& e) {
  const std::string step = e["next_step"].is_null() ? "" : e["next_step"].get<std::string>();
  const std::string when = e["next_at"].is_null() ? "" : ", not before " + text(e["next_at"]);
  if (step == "late_answer") return "an answer came after its claim was over: it is taken at the next claim";
  if (step == "repeat" && !e["key_valid_until"].is_null()) return "the same request is repeated with the same key" + when;
  if (step == "repeat") return "it is sent again, as the provider's in_doubt_policy says: it may happen twice" + when;
  if (step == "lookup") return "the provider is asked for the outcome" + when;
  if (step == "operator") return "an operator has to decide: `outbox-relay effects resolve " + text(e["id"]) + "`";
  if (e["state"] == "planned") return "a worker will carry it out";
  if (e["state"] == "claimed") return "worker " + text(e["worker"]) + " carries it out, until " + text(e["claim_expires_at"]) + " at most";
  return "";
}

std::string last_words(const Json& e) {
  const Json& a = e["last_attempt"];
  if (a["phase"].is_null()) return e["attempts"] == 0 ? "not tried" : "no end of the last attempt is known";
  std::string out = a["answer"].is_null() ? "no answer, " + text(a["phase"]) + " was written" : "answer " + text(a["answer"]);
  if (!a["status"].is_null()) out += " " + text(a["status"]);
  if (!a["request_id"].is_null()) out += ", request " + text(a["request_id"]);
  if (!a["error"].is_null()) out += ": " + text(a["error"]);
  return out;
}

void print_effect(const Json& e) {
  const auto line = [&](const char* label, const char* name) {
    if (!e[name].is_null()) std::printf("  %-12s%s\n", label, text(e[name]).c_str());
  };
  std::printf("effect %s at %s: %s\n", text(e["id"]).c_str(), text(e["provider"]).c_str(), text(e["state"]).c_str());
  line("key", "effect_key");
  line("message", "dedup_key");
  line("what", "summary");
  line("asked at", "planned_at");
  line("doubt since", "in_doubt_since");
  line("settled at", "settled_at");
  line("known by", "evidence");
  line("object", "object");
  std::printf("  %-12s%s\n", "last", last_words(e).c_str());
  if (const std::string r = rule(e); !r.empty()) std::printf("  %-12s%s\n", "next", r.c_str());
}

// The attempts and decisions of one effect, oldest first.
Result<Json> history(postgres::PqxxSession& control, std::int64_t id, bool payload) {
  Json out = Json::array();
  auto attempts = control.run("looking at the attempts",
                              "select a.epoch, a.kind, a.worker, " + utc("a.started_at") + ", " + utc("a.finished_at") +
                                  ", a.phase, a.answer, a.status, a.request_id, a.object, a.error, a.late" +
                                  (payload ? ", encode(a.response, 'hex')" : "") + " from effect.attempt a where a.effect = $1 order by a.epoch",
                              id);
  if (!attempts) return attempts.error();
  for (const auto& row : *attempts) {
    Json a{{"attempt", row[0].as<std::int64_t>()}, {"kind", row[1].c_str()},          {"worker", row[2].c_str()},
           {"started_at", row[3].c_str()},         {"finished_at", text_or_null(row[4])}, {"phase", text_or_null(row[5])},
           {"answer", text_or_null(row[6])},       {"status", integer_or_null(row[7])},   {"request_id", text_or_null(row[8])},
           {"object", text_or_null(row[9])},       {"error", text_or_null(row[10])},      {"late", row[11].as<bool>()}};
    if (payload) add_bytes(a, "response", row[12]);
    out.push_back(std::move(a));
  }
  auto decisions = control.run("looking at the decisions",
                               "select " + utc("d.decided_at") +
                                   ", d.decided_by, d.why, d.resolution, d.from_state from effect.decision d where d.effect = $1 "
                                   "order by d.decided_at",
                               id);
  if (!decisions) return decisions.error();
  for (const auto& row : *decisions) {
    out.push_back({{"decision", row[3].c_str()}, {"decided_at", row[0].c_str()}, {"decided_by", row[1].c_str()}, {"why", row[2].c_str()},
                   {"from_state", row[4].c_str()}});
  }
  return out;
}

void print_history(const Json& history) {
  for (const Json& h : history) {
    if (h.contains("decision")) {
      std::printf("  %s  %s decided: %s (%s)\n", text(h["decided_at"]).c_str(), text(h["decided_by"]).c_str(), text(h["decision"]).c_str(),
                  text(h["why"]).c_str());
      continue;
    }
    std::printf("  %s  %s %s by %s: %s%s%s\n", text(h["started_at"]).c_str(), text(h["kind"]).c_str(), text(h["attempt"]).c_str(),
                text(h["worker"]).c_str(), last_words({{"last_attempt", h}, {"attempts", 1}}).c_str(),
                h["finished_at"].is_null() ? "" : (", " + text(h["finished_at"])).c_str(), h["late"] == true ? ", after its claim was over" : "");
    if (h.contains("response") && !h["response"].is_null()) std::printf("    %s\n", shown_bytes(h, "response").c_str());
  }
}

}  // namespace

int effects_list(const Config& config, const EffectsListOptions& options) {
  auto control = open_consumer_control(config);
  if (!control) return report(control.error());
  auto rows = (*control)->run("listing effects",
                              "select " + columns() + ", count(*) over ()" + from_effects +
                                  "where ($1 = '' or e.provider = $1) "
                                  "and case $2 when 'all' then true when '' then u.id is not null else e.state = $2 end "
                                  "order by e.state <> 'needs_review', coalesce(e.in_doubt_since, e.planned_at), e.id limit $3",
                              options.provider, options.state, options.limit);
  if (!rows) return report(for_person(rows.error(), "effect_observer"));
  const auto total = rows->empty() ? 0 : (*rows)[0][column_count].as<std::int64_t>();
  Json j = json_answer();
  j["total"] = total;
  j["effects"] = Json::array();
  for (const auto& row : *rows) j["effects"].push_back(json_of(row));
  if (options.json) {
    print_json(j);
    return 0;
  }
  for (const Json& e : j["effects"]) {
    std::printf("%s  %s  %s  %s  %s; %s; %s\n", text(e["id"]).c_str(), text(e["provider"]).c_str(), text(e["state"]).c_str(),
                text(e["effect_key"]).c_str(), text(e["summary"]).c_str(), last_words(e).c_str(), rule(e).c_str());
  }
  std::printf("%lld %s%s\n", static_cast<long long>(total), options.state.empty() ? "of which nobody knows" : "effects",
              static_cast<std::int64_t>(rows->size()) < total ? "; --limit shows more" : "");
  return 0;
}

int effects_show(const Config& config, const EffectsShowOptions& options) {
  auto control = open_consumer_control(config);
  if (!control) return report(control.error());
  auto rows = (*control)->run("looking for the effect",
                              "select " + columns() + (options.payload ? ", e.target::text, encode(e.body, 'hex')" : "") + from_effects +
                                  "where e.id = $1",
                              options.id);
  if (!rows) return report(for_person(rows.error(), options.payload ? "effect_operator" : "effect_observer"));
  if (rows->empty()) {
    return report({Fault::absent, "there is no effect " + std::to_string(options.id),
                   "`outbox-relay effects list --state all` lists them; effect.prune() has deleted what was settled long ago"});
  }
  Json e = json_of((*rows)[0]);
  if (options.payload) {
    e["target"] = Json::parse((*rows)[0][column_count].c_str());
    add_bytes(e, "body", (*rows)[0][column_count + 1]);
  }
  auto past = history(**control, options.id, options.payload);
  if (!past) return report(for_person(past.error(), options.payload ? "effect_operator" : "effect_observer"));
  e["history"] = std::move(*past);
  if (options.json) {
    Json j = json_answer();
    j["effect"] = std::move(e);
    print_json(j);
    return 0;
  }
  print_effect(e);
  if (options.payload) std::printf("  %-12s%s\n  %-12s%s\n", "target", escape(e["target"].dump()).c_str(), "body", shown_bytes(e, "body").c_str());
  print_history(e["history"]);
  return 0;
}

int effects_resolve(const Config& config, const EffectDecision& decision) {
  auto control = open_consumer_control(config);
  if (!control) return report(control.error());
  const std::string resolution = decision.done ? "done" : decision.failed ? "failed" : "resend";
  Json j = json_answer();
  j["resolved"] = Json::array();
  for (const std::int64_t id : decision.ids) {
    auto state = (*control)->run("writing the decision",
                                 "select effect.resolve($1, $2, coalesce(nullif($3, ''), session_user), $4, nullif($5, ''))", id, resolution,
                                 decision.by, decision.why, decision.object);
    if (!state) {
      Error e = for_person(state.error(), "effect_operator");
      for (const char* said : {"there is no effect", "is under way", "cannot become"}) {
        if (e.what.find(said) != std::string::npos) e.fault = Fault::absent;
      }
      e.what = "effect " + std::to_string(id) + " was not resolved: " + e.what;
      if (decision.json) print_json(j);  // those before it are resolved
      return report(e);
    }
    j["resolved"].push_back({{"id", id}, {"state", (*state)[0][0].c_str()}});
    if (!decision.json) std::printf("effect %lld is %s\n", static_cast<long long>(id), (*state)[0][0].c_str());
  }
  if (decision.json) print_json(j);
  else if (decision.resend) std::puts("a worker carries it out again, with another key: if it had been carried out, it happens twice");
  return 0;
}

}  // namespace outbox
