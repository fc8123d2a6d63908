// SPDX-License-Identifier: Apache-2.0
// parked show: one parked message, and the decision about it.
#include <cstdio>
#include <memory>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"
#include "relay/commands/parked.h"

namespace relay {
namespace {

struct ShowOptions {
  std::string id;
  bool payload = false;  // with key, headers and payload
  bool json = false;
};

void print_details(const Json& j, bool payload) {
  const auto line = [&](const char* label, const char* name) {
    if (!j[name].is_null()) print_field(label, shown(j[name]));
  };
  std::printf("message %s\n", shown(j["id"]).c_str());
  line("topic", "topic");
  line("dedup key", "dedup_key");
  line("seq", "seq");
  line("written at", "created_at");
  line("parked at", "parked_at");
  line("of batch", "parked_for");
  line("reason", "error_class");
  line("", "error_text");
  line("decision", "resolution");
  line("by", "decided_by");
  line("at", "decided_at");
  line("why", "decided_why");
  line("released in", "released_in");
  if (!payload) return;
  print_field("key", shown_bytes(j, "key"));
  print_field("headers", shown(j["headers"]));
  print_field("payload", shown_bytes(j, "payload"));
}

int show(const Config& config, const ShowOptions& options) {
  if (const auto id = id_array({options.id}); !id) return report(id.error());
  auto control = open_control(config);
  if (!control) return report(control.error());
  const std::string bytes =
      options.payload ? ", encode(p.key, 'hex'), p.headers::text, encode(p.payload, 'hex')" : "";
  auto rows =
      (*control)->run("looking for the parked message",
                      "select " + parked_columns() + bytes +
                          " from outbox.parked p where p.id = $1::uuid order by p.parked_for",
                      options.id);
  if (!rows) {
    const char* const role = options.payload ? "outbox_operator" : "outbox_observer";
    return report(for_operator(rows.error(), role));
  }
  if (rows->empty() && !options.json) {
    return report({Fault::absent, "no parked message has the id " + options.id,
                   "`outbox-relay trace` shows where a message is"});
  }
  Json j = json_answer();
  j["parked"] = Json::array();
  for (const auto& row : *rows) {
    Json message = parked_json(row);
    if (options.payload) {
      add_bytes(message, "key", row[parked_column_count]);
      const auto headers = row[parked_column_count + 1];
      message["headers"] =
          headers.is_null() ? Json() : Json::parse(headers.c_str()).value_or(Json());
      add_bytes(message, "payload", row[parked_column_count + 2]);
    }
    if (!options.json) print_details(message, options.payload);
    j["parked"].push_back(std::move(message));
  }
  if (options.json) print_json(j);
  return rows->empty() ? exit_code(Fault::absent) : 0;
}

constexpr std::string_view parked_show_reference = R"(
JSON: `parked` as in `parked list`; with `--payload` also `headers`, and `key` and `payload` with
`key_encoding` and `payload_encoding` (`utf-8` or `hex`).
)";

}  // namespace

Command parked_show_command() {
  const auto options = std::make_shared<ShowOptions>();
  return {
      .name = "parked show",
      .summary = "Shows one parked message and the decision about it.",
      .details = "Needs the role outbox_observer.",
      .options = {{.name = "ID",
                   .value = &options->id,
                   .text = "The id of the message, as `parked list` prints it.",
                   .required = true},
                  {.name = "--payload",
                   .value = &options->payload,
                   .text = "Include key, headers and payload. Needs the role outbox_operator."},
                  json_option(&options->json)},
      .exit_codes = {done_code, not_found_code, usage_code, postgres_code, right_missing_code},
      .reference = parked_show_reference,
      .examples = {{"parked show 01976b1e-7c00-7000-8000-000000000001 --payload",
                    "Shows the message with its payload."}},
      .run = with_database([options](const Config& config) { return show(config, *options); }),
  };
}

}  // namespace relay
