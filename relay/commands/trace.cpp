// SPDX-License-Identifier: Apache-2.0
// trace: where a message is. PostgreSQL shows its state; a delivered message is read back from
// Kafka. Gathering is in trace_lookup.h and trace_consumers.h, printing in trace_text.h.
#include <algorithm>
#include <memory>

#include "relay/base/escape.h"
#include "relay/base/uuid.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"
#include "relay/commands/trace_consumers.h"
#include "relay/commands/trace_lookup.h"
#include "relay/commands/trace_text.h"

namespace relay {
namespace {

struct TraceOptions {
  TraceSelection selection;
  bool json = false;
};

std::string described(const TraceSelection& selection) {
  if (selection.id) return "the id " + *selection.id;
  if (selection.key) return "the deduplication key \"" + escape(*selection.key) + "\"";
  return "the seq " + std::to_string(*selection.seq);
}

// Everything about one message. A failure of the consumers' database sets the exit code, and the
// rest is still shown.
Result<TracedMessage> trace_message(const Config& config, postgres::PqxxSession& control,
                                    const TraceConsumers* consumers, const pqxx::row& row) {
  auto traced = look_up_message(config, control, row);
  if (!traced) return traced;
  Json& j = traced->json;
  j["consumed"] = nullptr;
  j["effects"] = nullptr;
  if (consumers != nullptr) {
    if (auto added = consumers->add_to(j); !added) {
      traced->code = std::max(traced->code, report(added.error()));
    }
  }
  j["explanation"] = explain(*traced);
  return traced;
}

int trace(const Config& config, const TraceOptions& options) {
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto rows = find_messages(**control, options.selection);
  if (!rows) return report(rows.error());
  int code = rows->empty() ? exit_code(Fault::absent) : 0;
  std::optional<TraceConsumers> consumers;
  if (!rows->empty()) {
    auto opened = TraceConsumers::open(config);
    if (opened) consumers.emplace(std::move(*opened));
    else code = report(opened.error());
  }
  Json answer = json_answer();
  answer["messages"] = Json::array();
  for (const auto& row : *rows) {
    auto traced = trace_message(config, **control, consumers ? &*consumers : nullptr, row);
    if (!traced) return report(traced.error());
    if (!options.json) print_message(traced->json);
    code = std::max(code, traced->code);
    answer["messages"].push_back(std::move(traced->json));
  }
  if (options.json) {
    print_json(answer);
  } else if (rows->empty()) {
    return report(
        {Fault::absent, "no committed message has " + described(options.selection),
         "its transaction was rolled back or is still open, or retention (retention.keep) has "
         "deleted the message"});
  }
  return code;
}

std::optional<Error> validate(const TraceSelection& s) {
  if (int{s.id.has_value()} + int{s.key.has_value()} + int{s.seq.has_value()} != 1) {
    return Error{Fault::usage, "trace: exactly one of ID, --key and --seq is needed"};
  }
  if (!s.id || Uuid::parse(*s.id)) return std::nullopt;
  return Error{
      Fault::usage, "\"" + escape(*s.id) + "\" is no message id",
      "an id is a UUID of 36 characters; --key selects by deduplication key, --seq by number"};
}

constexpr std::string_view trace_reference = R"(
JSON: `messages`, each with `id`, `seq`, `topic`, `dedup_key`, `state`, `explanation` (sentences for
an operator), `created_at`, `deliver_at` (if scheduled), `batch` (`number`, `mode`, `opened_at`,
`delivered_at`), `kafka` (`verdict`, `partition`, `offset`), and `parked`, oldest first
(`parked_for`, `parked_at`, `error_class`, `error_text`, `released_in`, `resolution`, `decided_by`,
`decided_at`, `decided_why`).

It also follows the message to its consumers, by its deduplication key, in the database of
`consumer.dsn`: `consumed` (`consumer`, `accepted_at`, `state`: `handled`, `parked` or `discarded`;
`reason`) and `effects` (`id`, `provider`, `summary`, `state`, `evidence`, `object`, `settled_at`,
`request_id`, `attempts`). They are null if the schemas `inbox` and `effect` do not exist, if the
login has neither `inbox_observer` nor `effect_observer`, and, with exit code 3, if that database is
not reachable.

| `state` | meaning |
| --- | --- |
| `scheduled` | committed, to be delivered later |
| `pending` | committed, and in no batch yet |
| `sending` | its batch is being sent |
| `in_doubt` | its batch was being sent when the relay ended; the next relay resolves it |
| `delivered` | its batch is delivered |
| `parked` | it could not be sent, and waits for a decision |
| `discarded` | it could not be sent, and an operator decided never to send it |

| `kafka.verdict` | meaning | exit code if delivered |
| --- | --- | --- |
| `found` | read back at this partition and offset | 0 |
| `expired` | the retention of the topic has deleted its segment | 0 |
| `absent` | nothing was deleted from the start: the topic was compacted or created again | 1 |
| `no_topic` | the topic does not exist any more | 1 |
| `undecided` | an open transaction hides the end of the topic | 4 |
| `unreachable` | Kafka is not reachable | 4 |

If the journal has no offsets of a batch (recovery found it delivered), the topic is read from the
end of the batches before it. That, and a topic without those batches, can take up to a minute.
)";

std::vector<CommandOption> command_options(TraceOptions& o) {
  return {
      {.name = "ID",
       .value = &o.selection.id,
       .text = "The id of the message, as outbox.enqueue() returned it."},
      {.name = "--key",
       .value = &o.selection.key,
       .placeholder = "DEDUP_KEY",
       .text = "Every message with this deduplication key, which consumers read in the header "
               "dedup-key."},
      {.name = "--seq",
       .value = &o.selection.seq,
       .placeholder = "N",
       .text = "The message with this seq in outbox.message."},
      json_option(&o.json),
  };
}

}  // namespace

Command trace_command() {
  const auto options = std::make_shared<TraceOptions>();
  return {
      .name = "trace",
      .summary =
          "Shows where a message is: whether it was committed, in which batch it was sent, and "
          "where Kafka has it.",
      .details =
          "A delivered message is read back from its topic each time. Give exactly one of ID, "
          "--key and --seq. Needs the role outbox_observer in the database, and the rights Read "
          "and Describe on the topic.",
      .options = command_options(*options),
      .exit_codes = {{0, "found"},
                     {1, "no such message, or a delivered message that is not in Kafka"},
                     usage_code,
                     postgres_code,
                     {4, "Kafka is not reachable"},
                     right_missing_code},
      .reference = trace_reference,
      .examples = {{"trace 01976b1e-7c00-7000-8000-000000000001",
                    "Shows the message with this id."},
                   {"trace --key order-7 --json", "Prints all messages with this key as JSON."}},
      .validate = [options] { return validate(options->selection); },
      .run = with_config([options](const Config& config) { return trace(config, *options); }),
  };
}

}  // namespace relay
