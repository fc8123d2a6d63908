// SPDX-License-Identifier: Apache-2.0
// effects show: one effect, with its attempts and decisions.
#include <cstdio>
#include <memory>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/effects.h"
#include "relay/commands/output.h"

namespace relay {
namespace {

struct ShowOptions {
  std::int64_t id = 0;
  bool payload = false;  // with request and responses
  bool json = false;

  const char* role() const { return payload ? "effect_operator" : "effect_observer"; }
};

Json attempt_json(const pqxx::row& row) {
  return Json::object({{"attempt", row[0].as<std::int64_t>()},
                       {"kind", row[1].c_str()},
                       {"worker", row[2].c_str()},
                       {"started_at", row[3].c_str()},
                       {"finished_at", text_or_null(row[4])},
                       {"phase", text_or_null(row[5])},
                       {"answer", text_or_null(row[6])},
                       {"status", integer_or_null(row[7])},
                       {"request_id", text_or_null(row[8])},
                       {"object", text_or_null(row[9])},
                       {"error", text_or_null(row[10])},
                       {"late", row[11].as<bool>()}});
}

Json decision_json(const pqxx::row& row) {
  return Json::object({{"decision", row[3].c_str()},
                       {"decided_at", row[0].c_str()},
                       {"decided_by", row[1].c_str()},
                       {"why", row[2].c_str()},
                       {"from_state", row[4].c_str()}});
}

// The attempts, oldest first, then the decisions, oldest first.
Result<Json> history(postgres::PqxxSession& control, const ShowOptions& options) {
  Json out = Json::array();
  auto attempts = control.run("reading the attempts",
                              "select a.epoch, a.kind, a.worker, " + utc("a.started_at") + ", " +
                                  utc("a.finished_at") +
                                  ", a.phase, a.answer, a.status, a.request_id, a.object, a.error, "
                                  "a.late" +
                                  (options.payload ? ", encode(a.response, 'hex')" : "") +
                                  " from effect.attempt a where a.effect = $1 order by a.epoch",
                              options.id);
  if (!attempts) return for_operator(attempts.error(), options.role());
  for (const auto& row : *attempts) {
    Json attempt = attempt_json(row);
    if (options.payload) add_bytes(attempt, "response", row[12]);
    out.push_back(std::move(attempt));
  }
  auto decisions = control.run("reading the decisions",
                               "select " + utc("d.decided_at") +
                                   ", d.decided_by, d.why, d.resolution, d.from_state "
                                   "from effect.decision d where d.effect = $1 "
                                   "order by d.decided_at",
                               options.id);
  if (!decisions) return for_operator(decisions.error(), options.role());
  for (const auto& row : *decisions) out.push_back(decision_json(row));
  return out;
}

Result<Json> find(postgres::PqxxSession& control, const ShowOptions& options) {
  const std::string payload = options.payload ? ", e.target::text, encode(e.body, 'hex')" : "";
  auto rows = control.run("looking for the effect",
                          "select " + effect_columns() + payload + from_effects + "where e.id = $1",
                          options.id);
  if (!rows) return for_operator(rows.error(), options.role());
  if (rows->empty()) {
    return Error{
        Fault::absent, "there is no effect " + std::to_string(options.id),
        "`outbox-relay effects list --state all` lists the effects; effect.prune() deletes "
        "settled effects"};
  }
  const auto row = (*rows)[0];
  Json effect = effect_json(row);
  if (options.payload) {
    effect["target"] = Json::parse(row[effect_column_count].c_str()).value_or(Json());
    add_bytes(effect, "body", row[effect_column_count + 1]);
  }
  auto past = history(control, options);
  if (!past) return past.error();
  effect["history"] = std::move(*past);
  return effect;
}

void print_effect(const Json& e, bool payload) {
  const auto line = [&](const char* label, const char* name) {
    if (!e[name].is_null()) print_field(label, shown(e[name]));
  };
  std::printf("effect %s at %s: %s\n", shown(e["id"]).c_str(), shown(e["provider"]).c_str(),
              shown(e["state"]).c_str());
  line("key", "effect_key");
  line("message", "dedup_key");
  line("summary", "summary");
  line("planned at", "planned_at");
  line("doubt since", "in_doubt_since");
  line("settled at", "settled_at");
  line("evidence", "evidence");
  line("object", "object");
  print_field("last", last_answer(e));
  if (const std::string next = next_step(e); !next.empty()) print_field("next", next);
  if (!payload) return;
  print_field("target", shown(e["target"]));
  print_field("body", shown_bytes(e, "body"));
}

void print_decision(const Json& d) {
  std::printf("  %s  %s decided: %s (%s)\n", shown(d["decided_at"]).c_str(),
              shown(d["decided_by"]).c_str(), shown(d["decision"]).c_str(),
              shown(d["why"]).c_str());
}

void print_attempt(const Json& a) {
  const Json as_effect = Json::object({{"last_attempt", a}, {"attempts", 1}});
  const std::string end = a["finished_at"].is_null() ? "" : ", " + shown(a["finished_at"]);
  std::printf("  %s  %s %s by %s: %s%s%s\n", shown(a["started_at"]).c_str(),
              shown(a["kind"]).c_str(), shown(a["attempt"]).c_str(), shown(a["worker"]).c_str(),
              last_answer(as_effect).c_str(), end.c_str(),
              a["late"].is_true() ? ", after its claim had expired" : "");
  if (!a["response"].is_null()) std::printf("    %s\n", shown_bytes(a, "response").c_str());
}

int show(const Config& config, const ShowOptions& options) {
  auto control = open_consumer_control(config);
  if (!control) return report(control.error());
  auto effect = find(**control, options);
  if (!effect) return report(effect.error());
  if (options.json) {
    Json j = json_answer();
    j["effect"] = std::move(*effect);
    print_json(j);
    return 0;
  }
  const Json& e = *effect;
  print_effect(e, options.payload);
  for (const Json& entry : e["history"]) {
    entry.contains("decision") ? print_decision(entry) : print_attempt(entry);
  }
  return 0;
}

constexpr std::string_view effects_show_reference = R"(
JSON: `effect` as in `effects list`, and `history`: first the attempts (`attempt`, `kind`, `worker`,
`started_at`, `finished_at`, `phase`, `answer`, `status`, `request_id`, `object`, `error`, `late`),
then the decisions (`decision`, `decided_at`, `decided_by`, `why`, `from_state`). With `--payload`
also `target`, `body` and `response`, the last two with `body_encoding` and `response_encoding`
(`utf-8` or `hex`).
)";

}  // namespace

Command effects_show_command() {
  const auto options = std::make_shared<ShowOptions>();
  return {
      .name = "effects show",
      .summary =
          "Shows one effect: its state, each attempt with the answer of the provider, the "
          "decisions "
          "of operators, and the next step.",
      .details = "Needs the role effect_observer.",
      .options = {{.name = "ID",
                   .value = &options->id,
                   .text = "The number of the effect, as `effects list` prints it.",
                   .required = true},
                  {.name = "--payload",
                   .value = &options->payload,
                   .text =
                       "Include the request and the responses. Needs the role effect_operator."},
                  json_option(&options->json)},
      .exit_codes = {done_code, not_found_code, usage_code, postgres_code, right_missing_code},
      .reference = effects_show_reference,
      .examples = {{"effects show 42", "Shows effect 42."}},
      .run = with_database([options](const Config& config) { return show(config, *options); }),
  };
}

}  // namespace relay
