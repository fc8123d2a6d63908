// SPDX-License-Identifier: Apache-2.0
// parked release, discard and edit: write an operator's decision. The running relay carries it out.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include "relay/base/hex.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"

namespace outbox {
namespace {

constexpr const char* carried_out = "the running relay does it within a second; `outbox-relay trace ID` shows it\n";

// $1 ids $2 topic $3 class. What only waits for another message is meant where it is named.
constexpr const char* chosen_sql =
    "p.released_in is null and ($1 = '{}' or p.id = any ($1::uuid[])) and ($2 = '' or p.topic = $2) and ($3 = '' or p.error_class = $3) "
    "and (p.error_class <> 'key_blocked' or $1 <> '{}' or $3 <> '')";

// How many of the messages that are decided wait for an earlier one of their key that is not.
constexpr const char* waiting_sql = R"(
  select count(*) from outbox.parked p where p.released_in is null and p.resolution is not null and p.key is not null and exists (
    select from outbox.parked u where u.topic = p.topic and sha256(u.key) = sha256(p.key) and u.key = p.key and u.seq < p.seq
    and u.released_in is null and u.resolution is null and u.error_class <> 'key_blocked'))";

Result<std::int64_t> decide(postgres::PqxxSession& control, const ParkedDecision& d, const std::string& ids, const std::string& resolution) {
  const std::string sql =
      d.dry_run ? std::string("select from outbox.parked p where ") + chosen_sql
                : std::string("with chosen as materialized (select p.parked_for, p.seq from outbox.parked p where ") + chosen_sql +
                      " order by p.parked_for, p.seq for update) "  // in one order, whoever else decides
                      "update outbox.parked p set resolution = $4, decided_by = coalesce(nullif($5, ''), session_user), "
                      "decided_at = clock_timestamp(), decided_why = $6, edited_topic = null, edited_key = null, "
                      "edited_payload = null, edited_headers = null from chosen c "
                      "where p.parked_for = c.parked_for and p.seq = c.seq and p.released_in is null";
  auto rows = d.dry_run ? control.run("looking for parked messages", sql, ids, d.topic, d.error_class)
                        : control.run("writing the decision", sql, ids, d.topic, d.error_class, resolution, d.by, d.why);
  if (!rows) return for_person(rows.error(), "outbox_operator");
  return static_cast<std::int64_t>(d.dry_run ? rows->size() : rows->affected_rows());
}

int decided(const Config& config, const ParkedDecision& d, const char* resolution, const char* participle) {
  const auto ids = id_array(d.ids);
  if (!ids) return report(ids.error());
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto messages = decide(**control, d, *ids, resolution);
  if (!messages) return report(messages.error());
  auto waiting = (*control)->run("looking for what waits", waiting_sql);
  if (!waiting) return report(for_person(waiting.error(), "outbox_operator"));
  const auto wait = config.delivery.order == KeyOrder::key ? (*waiting)[0][0].as<std::int64_t>() : 0;
  if (d.json) {
    Json j = json_answer();
    j["messages"] = *messages;
    j["dry_run"] = d.dry_run;
    j["waiting"] = wait;
    print_json(j);
  }
  if (*messages == 0) {
    if (d.json) return exit_code(Fault::absent);
    return report({Fault::absent, "nothing that is parked matches",
                   "`outbox-relay parked list` shows what is; what was released cannot be decided any more, and what waits for another "
                   "message of its key (key_blocked) follows that one"});
  }
  if (d.json) return 0;
  std::printf("%lld messages %s %s\n", static_cast<long long>(*messages), d.dry_run ? "would be" : "are to be", participle);
  if (d.dry_run) return 0;
  if (wait > 0) {
    std::printf("%lld decided messages wait for an earlier one of their key that is not decided: see `outbox-relay parked list`\n",
                static_cast<long long>(wait));
  }
  std::fputs(carried_out, stdout);
  return 0;
}

Result<std::string> read_payload(const std::string& file) {
  std::ifstream opened;
  if (file != "-") {
    opened.open(file, std::ios::binary);
    if (!opened) return Error{Fault::usage, "the file " + file + " cannot be read", "name a file that you may read, or - for standard input"};
  }
  std::istream& in = file == "-" ? std::cin : opened;
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) return Error{Fault::usage, "the file " + file + " cannot be read", "name a file that you may read, or - for standard input"};
  return bytes;
}

std::optional<Error> bad_headers(const std::string& text) {
  const Json headers = Json::parse(text, nullptr, false);
  bool good = headers.is_object();
  for (const auto& value : good ? headers : Json::object()) good = good && value.is_string();
  if (good) return std::nullopt;
  return Error{Fault::usage, "--headers: it is no JSON object of strings", "write it like {\"trace\": \"7\"}, in quotes of the shell"};
}

}  // namespace

int parked_release(const Config& config, const ParkedDecision& decision) { return decided(config, decision, "release", "released"); }

int parked_discard(const Config& config, const ParkedDecision& decision) { return decided(config, decision, "discard", "discarded"); }

int parked_edit(const Config& config, const ParkedEdit& edit) {
  if (const auto id = id_array({edit.id}); !id) return report(id.error());
  if (edit.headers) {
    if (auto error = bad_headers(*edit.headers)) return report(*error);
  }
  std::string payload;
  if (edit.payload_file) {
    auto read = read_payload(*edit.payload_file);
    if (!read) return report(read.error());
    payload = std::move(*read);
  }
  auto control = open_control(config);
  if (!control) return report(control.error());
  // Of each part: what is new, nothing, or what it was, an earlier edit included.
  const auto choice = [](bool given, bool none) { return given ? "new" : none ? "none" : "old"; };
  auto rows = (*control)->run("writing the decision", R"(
    with before as materialized (
      select p.parked_for, p.seq, case when p.resolution = 'edit' then p.edited_topic else p.topic end as topic,
             case when p.resolution = 'edit' then p.edited_key else p.key end as key,
             case when p.resolution = 'edit' then p.edited_payload else p.payload end as payload,
             case when p.resolution = 'edit' then p.edited_headers else p.headers end as headers
      from outbox.parked p where p.id = $1::uuid and p.released_in is null for update)
    update outbox.parked p set resolution = 'edit', decided_by = coalesce(nullif($2, ''), session_user), decided_at = clock_timestamp(),
           decided_why = $3, edited_topic = coalesce(nullif($4, ''), b.topic),
           edited_key = case $5 when 'new' then decode($6, 'hex') when 'old' then b.key end,
           edited_payload = case $7 when 'new' then decode($8, 'hex') when 'old' then b.payload end,
           edited_headers = case $9 when 'new' then nullif($10, '')::jsonb when 'old' then b.headers end
    from before b where p.parked_for = b.parked_for and p.seq = b.seq and p.released_in is null)",
                              edit.id, edit.by, edit.why, edit.topic.value_or(""), choice(edit.key.has_value(), edit.no_key),
                              hex(edit.key.value_or("")), choice(edit.payload_file.has_value(), edit.tombstone), hex(payload),
                              choice(edit.headers.has_value(), edit.no_headers), edit.headers.value_or(""));
  if (!rows) return report(for_person(rows.error(), "outbox_operator"));
  const auto messages = static_cast<std::int64_t>(rows->affected_rows());
  if (edit.json) {
    Json j = json_answer();
    j["messages"] = messages;
    print_json(j);
    return messages == 0 ? exit_code(Fault::absent) : 0;
  }
  if (messages == 0) {
    return report({Fault::absent, "no message with the id " + edit.id + " is parked",
                   "`outbox-relay trace` says where it is; what was released cannot be changed any more"});
  }
  std::printf("the message is to be sent as edited\n%s", carried_out);
  return 0;
}

}  // namespace outbox
