// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/parked_decision.h"

#include <cstdio>
#include <memory>

#include "relay/commands/context.h"
#include "relay/commands/output.h"

namespace relay {
namespace {

// Which parked messages, and why. Messages that only wait for another message of their key
// (key_blocked) are selected only by their ids or their class: otherwise they follow that message.
struct ParkedDecision {
  std::vector<std::string> ids;
  std::string topic;
  std::string error_class;
  bool all = false;
  std::string why;
  std::string by;  // empty: the login of the database
  bool dry_run = false;
  bool json = false;
};

// $1 ids, $2 topic, $3 class.
constexpr const char* chosen_sql =
    "p.released_in is null and ($1 = '{}' or p.id = any ($1::uuid[])) and ($2 = '' or p.topic = "
    "$2) "
    "and ($3 = '' or p.error_class = $3) "
    "and (p.error_class <> 'key_blocked' or $1 <> '{}' or $3 <> '')";

// How many decided messages wait for an earlier message of their key that is not decided.
constexpr const char* waiting_sql = R"(
  select count(*) from outbox.parked p
  where p.released_in is null and p.resolution is not null and p.key is not null and exists (
    select from outbox.parked u
    where u.topic = p.topic and sha256(u.key) = sha256(p.key) and u.key = p.key and u.seq < p.seq
      and u.released_in is null and u.resolution is null and u.error_class <> 'key_blocked'))";

// Rows are locked in one order, so that concurrent decisions do not deadlock.
std::string decide_sql() {
  return std::string(
             "with chosen as materialized (select p.parked_for, p.seq from outbox.parked p "
             "where ") +
         chosen_sql +
         " order by p.parked_for, p.seq for update) "
         "update outbox.parked p set resolution = $4, "
         "decided_by = coalesce(nullif($5, ''), session_user), "
         "decided_at = clock_timestamp(), decided_why = $6, edited_topic = null, edited_key = "
         "null, "
         "edited_payload = null, edited_headers = null from chosen c "
         "where p.parked_for = c.parked_for and p.seq = c.seq and p.released_in is null";
}

// The number of messages that are decided or, with --dry-run, would be.
Result<std::int64_t> decide(postgres::PqxxSession& control, const ParkedDecision& d,
                            const std::string& ids, const std::string& resolution) {
  const auto count_sql = std::string("select from outbox.parked p where ") + chosen_sql;
  auto rows =
      d.dry_run ? control.run("looking for parked messages", count_sql, ids, d.topic, d.error_class)
                : control.run("writing the decision", decide_sql(), ids, d.topic, d.error_class,
                              resolution, d.by, d.why);
  if (!rows) return for_operator(rows.error(), "outbox_operator");
  return static_cast<std::int64_t>(d.dry_run ? rows->size() : rows->affected_rows());
}

int print_result(const ParkedDecision& d, std::int64_t messages, std::int64_t waiting,
                 const char* participle) {
  if (d.json) {
    Json j = json_answer();
    j["messages"] = messages;
    j["dry_run"] = d.dry_run;
    j["waiting"] = waiting;
    print_json(j);
    return messages == 0 ? exit_code(Fault::absent) : 0;
  }
  if (messages == 0) {
    return report(
        {Fault::absent, "no parked message matches",
         "`outbox-relay parked list` lists parked messages; released messages can no longer "
         "be decided, and messages that wait for another message of their key (key_blocked) "
         "follow that message"});
  }
  std::printf("%lld messages %s %s\n", static_cast<long long>(messages),
              d.dry_run ? "would be" : "are to be", participle);
  if (d.dry_run) return 0;
  if (waiting > 0) {
    std::printf(
        "%lld decided messages wait for an earlier message of their key that is not decided: "
        "see `outbox-relay parked list`\n",
        static_cast<long long>(waiting));
  }
  std::fputs(decision_is_executed, stdout);
  return 0;
}

int decide_and_print(const Config& config, const ParkedDecision& d, ParkedResolution resolution) {
  const auto ids = id_array(d.ids);
  if (!ids) return report(ids.error());
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto messages = decide(**control, d, *ids, resolution.name);
  if (!messages) return report(messages.error());
  auto rows = (*control)->run("looking for waiting messages", waiting_sql);
  if (!rows) return report(for_operator(rows.error(), "outbox_operator"));
  const bool by_key = config.delivery.order == KeyOrder::key;
  const auto waiting = by_key ? (*rows)[0][0].as<std::int64_t>() : 0;
  return print_result(d, *messages, waiting, resolution.participle);
}

std::optional<Error> validate(const ParkedDecision& d) {
  const bool filtered = !d.topic.empty() || !d.error_class.empty();
  if (int{!d.ids.empty()} + int{filtered} + int{d.all} == 1) return std::nullopt;
  return Error{Fault::usage, "select messages by their ids, by --topic and --class, or by --all"};
}

std::vector<CommandOption> decision_options(ParkedDecision& d) {
  return {
      {.name = "ID", .value = &d.ids, .text = "Ids of messages, as `parked list` prints them."},
      {.name = "--topic",
       .value = &d.topic,
       .placeholder = "TOPIC",
       .text = "All messages of this topic.",
       .check = ValueCheck::not_empty},
      {.name = "--class",
       .value = &d.error_class,
       .placeholder = "CLASS",
       .text =
           "All messages parked with this error class, such as too_large; with --topic, both must "
           "match.",
       .check = ValueCheck::not_empty},
      {.name = "--all", .value = &d.all, .text = "All parked messages."},
      {.name = "--dry-run", .value = &d.dry_run, .text = "Only count the messages."},
      why_option(&d.why, true),
      by_option(&d.by),
      json_option(&d.json),
  };
}

}  // namespace

Command parked_decision_command(Command command, ParkedResolution resolution) {
  const auto decision = std::make_shared<ParkedDecision>();
  command.options = decision_options(*decision);
  command.exit_codes = {
      done_code, {1, "no message matches"}, usage_code, postgres_code, right_missing_code};
  command.validate = [decision] { return validate(*decision); };
  command.run = with_database([decision, resolution](const Config& config) {
    return decide_and_print(config, *decision, resolution);
  });
  return command;
}

}  // namespace relay
