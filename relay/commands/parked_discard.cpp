// SPDX-License-Identifier: Apache-2.0
// parked discard: parked messages are never sent.
#include "relay/commands/commands.h"
#include "relay/commands/parked_decision.h"

namespace relay {
namespace {

constexpr std::string_view parked_discard_reference = R"(
Selection of messages, replacement of decisions and JSON are as for `parked release`.
)";

}  // namespace

Command parked_discard_command() {
  return parked_decision_command(
      {
          .name = "parked discard",
          .summary = "Decides that parked messages are never sent.",
          .details =
              "They stay in outbox.parked, with the decision, until retention deletes them. "
              "Messages that only wait for one of them (key_blocked) are sent. Needs the role "
              "outbox_operator.",
          .reference = parked_discard_reference,
          .examples = {{"parked discard --topic test --why \"test data\" --dry-run",
                        "Counts the messages."}},
      },
      {"discard", "discarded"});
}

}  // namespace relay
