// SPDX-License-Identifier: Apache-2.0
// effects resolve: an operator's decision about effects in doubt.
#include <cstdio>
#include <memory>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"

namespace relay {
namespace {

struct EffectDecision {
  std::vector<std::int64_t> ids;
  bool done = false;  // exactly one of the three is set
  bool failed = false;
  bool resend = false;
  std::string object;
  std::string why;
  std::string by;  // empty: the login of the database
  bool json = false;
};

// Resolves one effect; returns its new state.
Result<std::string> resolve_one(postgres::PqxxSession& control, const EffectDecision& d,
                                std::int64_t id) {
  const std::string resolution = d.done ? "done" : d.failed ? "failed" : "resend";
  auto state = control.run("writing the decision",
                           "select effect.resolve($1, $2, coalesce(nullif($3, ''), session_user), "
                           "$4, nullif($5, ''))",
                           id, resolution, d.by, d.why, d.object);
  if (state) return std::string((*state)[0][0].c_str());
  Error e = for_operator(state.error(), "effect_operator");
  for (const char* reason : {"there is no effect", "is under way", "cannot become"}) {
    if (e.what.find(reason) != std::string::npos) e.fault = Fault::absent;
  }
  e.what = "effect " + std::to_string(id) + " was not resolved: " + e.what;
  return e;
}

int resolve(const Config& config, const EffectDecision& d) {
  auto control = open_consumer_control(config);
  if (!control) return report(control.error());
  Json j = json_answer();
  j["resolved"] = Json::array();
  for (const std::int64_t id : d.ids) {
    const auto state = resolve_one(**control, d, id);
    if (!state) {
      if (d.json) print_json(j);  // the effects before this one are resolved
      return report(state.error());
    }
    j["resolved"].push_back(Json::object({{"id", id}, {"state", *state}}));
    if (!d.json) std::printf("effect %lld is %s\n", static_cast<long long>(id), state->c_str());
  }
  if (d.json) print_json(j);
  else if (d.resend) {
    std::puts(
        "a worker executes it again, with a new idempotency key; if it was executed before, it is "
        "executed twice");
  }
  return 0;
}

std::optional<Error> validate(const EffectDecision& d) {
  if (int{d.done} + int{d.failed} + int{d.resend} == 1) return std::nullopt;
  return Error{Fault::usage, "exactly one of --done, --failed and --resend is needed"};
}

std::vector<CommandOption> command_options(EffectDecision& d) {
  return {
      {.name = "ID",
       .value = &d.ids,
       .text = "Numbers of effects, as `effects list` prints them.",
       .required = true},
      {.name = "--done", .value = &d.done, .text = "The provider executed it."},
      {.name = "--failed",
       .value = &d.failed,
       .text = "The provider did not execute it, and it is not sent again."},
      {.name = "--resend",
       .value = &d.resend,
       .text = "A worker executes it again, with a new idempotency key. If it was executed before, "
               "it is "
               "executed twice."},
      {.name = "--object",
       .value = &d.object,
       .placeholder = "TEXT",
       .text = "With --done: the provider's identifier of the object that it created.",
       .needs = {"--done"}},
      why_option(&d.why, true),
      by_option(&d.by),
      json_option(&d.json),
  };
}

constexpr std::string_view effects_resolve_reference = R"(
`effect.decision` records the decision, with operator and reason. A `claimed` effect is being
executed and cannot be decided. A `planned` effect can be canceled with `--failed`.

JSON: `resolved`, each with `id` and `state`. If one effect cannot be resolved, the effects before
it are resolved and listed, and those after it are not.
)";

}  // namespace

Command effects_resolve_command() {
  const auto options = std::make_shared<EffectDecision>();
  return {
      .name = "effects resolve",
      .summary = "Decides about effects in doubt, when the provider's records show their outcome.",
      .details = "A planned effect can be canceled with --failed. Needs the role effect_operator.",
      .options = command_options(*options),
      .exit_codes = {done_code,
                     {1, "there is no such effect, or it is not in doubt"},
                     usage_code,
                     postgres_code,
                     right_missing_code},
      .reference = effects_resolve_reference,
      .examples = {{"effects resolve 42 --done --object ch-9 --why \"in the bank's list\"",
                    "Records that the provider executed effect 42."}},
      .validate = [options] { return validate(*options); },
      .run = with_database([options](const Config& config) { return resolve(config, *options); }),
  };
}

}  // namespace relay
