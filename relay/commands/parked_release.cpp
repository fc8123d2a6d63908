// SPDX-License-Identifier: Apache-2.0
// parked release: parked messages are sent as they are.
#include "relay/commands/commands.h"
#include "relay/commands/parked_decision.h"

namespace relay {
namespace {

constexpr std::string_view parked_release_reference = R"(
Until the relay has executed a decision, another decision can replace it. With `--topic` and
`--all`, `key_blocked` messages are not selected and follow; their ids or `--class key_blocked`
select them. A message that still cannot be sent is parked again. A decided message whose key has an
earlier message that is not decided waits for that message (`delivery.order = "key"`).

JSON: `messages` (the number of messages), `dry_run`, `waiting` (the number of all decided messages
that wait for an earlier message of their key).
)";

}  // namespace

Command parked_release_command() {
  return parked_decision_command(
      {
          .name = "parked release",
          .summary = "Decides that parked messages are sent now, as they are.",
          .details =
              "The running relay executes the decision within a second, each key in its order. "
              "Messages that only wait for one of them (key_blocked) follow. Needs the role "
              "outbox_operator.",
          .reference = parked_release_reference,
          .examples = {{"parked release --class topic_missing --why \"topic created\"",
                        "Releases all messages whose topic was missing."}},
      },
      {"release", "released"});
}

}  // namespace relay
