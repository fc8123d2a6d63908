// SPDX-License-Identifier: Apache-2.0
// parked edit: a parked message is sent with another topic, key, payload or headers.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>

#include "common/hex.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"
#include "relay/commands/parked_decision.h"

namespace relay {
namespace {

// What is not given stays as it is.
struct ParkedEdit {
  std::string id;
  std::optional<std::string> topic;
  std::optional<std::string> key;  // text
  bool no_key = false;
  std::optional<std::string> payload_file;  // "-": standard input
  bool tombstone = false;
  std::optional<std::string> headers;  // a JSON object of strings
  bool no_headers = false;
  std::string why;
  std::string by;
  bool json = false;
};

// $5, $7 and $9 say for key, payload and headers: new, none, or old, which includes an earlier
// edit.
constexpr const char* edit_sql = R"(
    with before as materialized (
      select p.parked_for, p.seq,
             case when p.resolution = 'edit' then p.edited_topic else p.topic end as topic,
             case when p.resolution = 'edit' then p.edited_key else p.key end as key,
             case when p.resolution = 'edit' then p.edited_payload else p.payload end as payload,
             case when p.resolution = 'edit' then p.edited_headers else p.headers end as headers
      from outbox.parked p where p.id = $1::uuid and p.released_in is null for update)
    update outbox.parked p set resolution = 'edit',
           decided_by = coalesce(nullif($2, ''), session_user), decided_at = clock_timestamp(),
           decided_why = $3, edited_topic = coalesce(nullif($4, ''), b.topic),
           edited_key = case $5 when 'new' then decode($6, 'hex') when 'old' then b.key end,
           edited_payload = case $7 when 'new' then decode($8, 'hex') when 'old' then b.payload end,
           edited_headers = case $9 when 'new' then nullif($10, '')::jsonb
                                    when 'old' then b.headers end
    from before b where p.parked_for = b.parked_for and p.seq = b.seq and p.released_in is null)";

Result<std::string> read_payload(const std::string& file) {
  const Error unreadable{Fault::usage, "the file " + file + " cannot be read",
                         "name a readable file, or - for standard input"};
  std::ifstream opened;
  if (file != "-") {
    opened.open(file, std::ios::binary);
    if (!opened) return unreadable;
  }
  std::istream& in = file == "-" ? std::cin : opened;
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) return unreadable;
  return bytes;
}

std::optional<Error> bad_headers(const std::string& text) {
  const auto headers = Json::parse(text);
  bool good = headers && headers->is_object();
  if (good) {
    for (const auto& [name, value] : headers->members()) good = good && value.is_text();
  }
  if (good) return std::nullopt;
  return Error{Fault::usage, "--headers: not a JSON object of strings",
               "write it as '{\"trace\": \"7\"}', in quotes of the shell"};
}

Result<std::int64_t> write_edit(postgres::PqxxSession& control, const ParkedEdit& edit,
                                const std::string& payload) {
  const auto choice = [](bool given, bool none) { return given ? "new" : none ? "none" : "old"; };
  auto rows = control.run(
      "writing the decision", edit_sql, edit.id, edit.by, edit.why, edit.topic.value_or(""),
      choice(edit.key.has_value(), edit.no_key), outbox::common::hex(edit.key.value_or("")),
      choice(edit.payload_file.has_value(), edit.tombstone), outbox::common::hex(payload),
      choice(edit.headers.has_value(), edit.no_headers), edit.headers.value_or(""));
  if (!rows) return for_operator(rows.error(), "outbox_operator");
  return static_cast<std::int64_t>(rows->affected_rows());
}

int edit_message(const Config& config, const ParkedEdit& edit) {
  if (const auto id = id_array({edit.id}); !id) return report(id.error());
  if (edit.headers) {
    if (auto error = bad_headers(*edit.headers)) return report(*error);
  }
  auto payload = edit.payload_file ? read_payload(*edit.payload_file) : Result<std::string>("");
  if (!payload) return report(payload.error());
  auto control = open_control(config);
  if (!control) return report(control.error());
  const auto messages = write_edit(**control, edit, *payload);
  if (!messages) return report(messages.error());
  if (edit.json) {
    Json j = json_answer();
    j["messages"] = *messages;
    print_json(j);
    return *messages == 0 ? exit_code(Fault::absent) : 0;
  }
  if (*messages == 0) {
    return report({Fault::absent, "no parked message has the id " + edit.id,
                   "`outbox-relay trace` shows where it is; a released message can no longer be "
                   "changed"});
  }
  std::printf("the message is to be sent as edited\n%s", decision_is_executed);
  return 0;
}

std::vector<CommandOption> command_options(ParkedEdit& e) {
  return {
      {.name = "ID",
       .value = &e.id,
       .text = "The id of the message, as `parked list` prints it.",
       .required = true},
      {.name = "--topic", .value = &e.topic, .placeholder = "TOPIC", .text = "The new topic."},
      {.name = "--key", .value = &e.key, .placeholder = "TEXT", .text = "The new key, as text."},
      {.name = "--no-key", .value = &e.no_key, .text = "Remove the key.", .excludes = {"--key"}},
      {.name = "--payload-file",
       .value = &e.payload_file,
       .placeholder = "FILE",
       .text = "The new payload: the bytes of this file; - is standard input."},
      {.name = "--tombstone",
       .value = &e.tombstone,
       .text = "Remove the payload.",
       .excludes = {"--payload-file"}},
      {.name = "--headers",
       .value = &e.headers,
       .placeholder = "JSON",
       .text = "The new headers: a JSON object of strings."},
      {.name = "--no-headers",
       .value = &e.no_headers,
       .text = "Remove the headers.",
       .excludes = {"--headers"}},
      why_option(&e.why, true),
      by_option(&e.by),
      json_option(&e.json),
  };
}

constexpr std::string_view parked_edit_reference = R"(
The id and the deduplication key do not change. The message is sent at once: a new key or topic does
not give it a position among the messages of that key.

JSON: `messages`.
)";

}  // namespace

Command parked_edit_command() {
  const auto options = std::make_shared<ParkedEdit>();
  return {
      .name = "parked edit",
      .summary =
          "Decides that a parked message is sent with another topic, key, payload or headers.",
      .details =
          "What is not given stays as it is. The original message stays in outbox.parked. Needs "
          "the role outbox_operator.",
      .options = command_options(*options),
      .exit_codes = {done_code,
                     {1, "no parked message has this id"},
                     usage_code,
                     postgres_code,
                     right_missing_code},
      .reference = parked_edit_reference,
      .examples =
          {{"parked edit 01976b1e-7c00-7000-8000-000000000001 --topic orders --why \"typo\"",
            "Sends the message to the topic orders."}},
      .run = with_database([options](const Config& c) { return edit_message(c, *options); }),
  };
}

}  // namespace relay
