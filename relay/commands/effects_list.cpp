// SPDX-License-Identifier: Apache-2.0
// effects list: the effects whose outcome is unknown, or those in one state.
#include <cstdio>
#include <memory>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/effects.h"
#include "relay/commands/output.h"

namespace relay {
namespace {

struct ListOptions {
  std::string provider;  // empty: all
  std::string state;     // empty: those with an unknown outcome; "all"
  std::int64_t limit = 100;
  bool json = false;
};

Result<pqxx::result> find(postgres::PqxxSession& control, const ListOptions& options) {
  auto rows = control.run("listing effects",
                          "select " + effect_columns() + ", count(*) over ()" + from_effects +
                              "where ($1 = '' or e.provider = $1) "
                              "and case $2 when 'all' then true when '' then u.id is not null "
                              "else e.state = $2 end "
                              "order by e.state <> 'needs_review', "
                              "coalesce(e.in_doubt_since, e.planned_at), e.id limit $3",
                          options.provider, options.state, options.limit);
  if (!rows) return for_operator(rows.error(), "effect_observer");
  return rows;
}

int list(const Config& config, const ListOptions& options) {
  auto control = open_consumer_control(config);
  if (!control) return report(control.error());
  const auto rows = find(**control, options);
  if (!rows) return report(rows.error());
  const auto total = rows->empty() ? 0 : (*rows)[0][effect_column_count].as<std::int64_t>();
  Json effects = Json::array();
  for (const auto& row : *rows) effects.push_back(effect_json(row));
  if (options.json) {
    Json j = json_answer();
    j["total"] = total;
    j["effects"] = std::move(effects);
    print_json(j);
    return 0;
  }
  for (const Json& e : effects) {
    std::printf("%s  %s  %s  %s  %s; %s; %s\n", shown(e["id"]).c_str(),
                shown(e["provider"]).c_str(), shown(e["state"]).c_str(),
                shown(e["effect_key"]).c_str(), shown(e["summary"]).c_str(), last_answer(e).c_str(),
                next_step(e).c_str());
  }
  std::printf("%lld effects%s%s\n", static_cast<long long>(total),
              options.state.empty() ? " with an unknown outcome" : "",
              static_cast<std::int64_t>(rows->size()) < total ? "; --limit lists more" : "");
  return 0;
}

constexpr std::string_view effects_list_reference = R"(
JSON: `total`, and `effects`, each with `id`, `provider`, `effect_key`, `dedup_key`, `summary`,
`state`, `attempts`, `planned_at`, `in_doubt_since`, `settled_at`, `evidence`, `object`,
`next_step`, `next_at`, `key_valid_until`, `worker`, `claim_expires_at`, and `last_attempt`
(`phase`, `answer`, `status`, `request_id`, `error`).
)";

std::vector<CommandOption> command_options(ListOptions& o) {
  return {
      {.name = "--provider",
       .value = &o.provider,
       .placeholder = "NAME",
       .text = "Only effects of this provider. Defaults to all providers."},
      {.name = "--state",
       .value = &o.state,
       .placeholder = "STATE",
       .text = "List the effects in this state instead: planned, claimed, in_doubt, needs_review, "
               "done, "
               "failed, or all.",
       .choices = {"planned", "claimed", "in_doubt", "needs_review", "done", "failed", "all"}},
      limit_option(&o.limit),
      json_option(&o.json),
  };
}

}  // namespace

Command effects_list_command() {
  const auto options = std::make_shared<ListOptions>();
  return {
      .name = "effects list",
      .summary =
          "Lists the effects whose outcome is unknown; those that need an operator's decision come "
          "first.",
      .details =
          "For each effect it prints the last attempt and what resolves it. Like all commands on "
          "effects, it reads the database of consumer.dsn, which defaults to the database of the "
          "outbox. Needs the role effect_observer.",
      .options = command_options(*options),
      .exit_codes = {done_code, usage_code, postgres_code, right_missing_code},
      .reference = effects_list_reference,
      .examples = {{"effects list --state failed --provider mail", "Lists the failed effects."}},
      .run = with_database([options](const Config& config) { return list(config, *options); }),
  };
}

}  // namespace relay
