// SPDX-License-Identifier: Apache-2.0
// scheduled cancel: removes scheduled messages.
#include <cstdio>
#include <memory>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"

namespace relay {
namespace {

struct CancelOptions {
  std::vector<std::string> ids;
  bool json = false;
};

int cancel(const Config& config, const CancelOptions& options) {
  const auto list = id_array(options.ids);
  if (!list) return report(list.error());
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto rows =
      (*control)->run("canceling scheduled messages",
                      "delete from outbox.scheduled s where s.id = any ($1::uuid[])", *list);
  if (!rows) return report(for_operator(rows.error(), "outbox_operator"));
  const auto canceled = static_cast<std::int64_t>(rows->affected_rows());
  if (options.json) {
    Json j = json_answer();
    j["cancelled"] = canceled;
    print_json(j);
    return canceled == 0 ? exit_code(Fault::absent) : 0;
  }
  if (canceled == 0) {
    return report({Fault::absent, "none of the messages is scheduled",
                   "they are due, or were canceled: see `outbox-relay trace ID`"});
  }
  std::printf("%lld canceled\n", static_cast<long long>(canceled));
  return 0;
}

constexpr std::string_view scheduled_cancel_reference = R"(
An application can cancel its own messages with `delete from outbox.scheduled where id = …`, in
any transaction.

JSON: `cancelled` (the number of messages).
)";

}  // namespace

Command scheduled_cancel_command() {
  const auto options = std::make_shared<CancelOptions>();
  return {
      .name = "scheduled cancel",
      .summary = "Removes scheduled messages, so that they are never delivered.",
      .details = "Needs the role outbox_operator.",
      .options = {{.name = "ID",
                   .value = &options->ids,
                   .text = "Ids of messages, as `scheduled list` prints them.",
                   .required = true},
                  json_option(&options->json)},
      .exit_codes = {done_code,
                     {1, "none of the messages is scheduled"},
                     usage_code,
                     postgres_code,
                     right_missing_code},
      .reference = scheduled_cancel_reference,
      .examples = {{"scheduled cancel 01976b1e-7c00-7000-8000-000000000001",
                    "Cancels one scheduled message."}},
      .run = with_database([options](const Config& config) { return cancel(config, *options); }),
  };
}

}  // namespace relay
