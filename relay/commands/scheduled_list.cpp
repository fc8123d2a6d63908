// SPDX-License-Identifier: Apache-2.0
// scheduled list: messages that are delivered at a later time.
#include <cstdio>
#include <memory>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"

namespace relay {
namespace {

struct ListOptions {
  std::string topic;  // empty: all
  std::int64_t limit = 100;
  bool json = false;
};

int list(const Config& config, const ListOptions& options) {
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto rows =
      (*control)->run("listing scheduled messages",
                      "select s.id::text, " + utc("s.deliver_at") +
                          ", s.topic, coalesce(s.dedup_key, s.id::text), " + utc("s.created_at") +
                          " from outbox.scheduled s where ($1 = '' or s.topic = $1) "
                          "order by s.deliver_at, s.seq limit $2",
                      options.topic, options.limit);
  if (!rows) return report(for_operator(rows.error(), "outbox_observer"));
  if (!options.json) {
    for (const auto& row : *rows) {
      std::printf("%s  %s  %s\n", row[0].c_str(), row[1].c_str(), shown(row[2]).c_str());
    }
    std::printf("%zu listed, by due time; --limit lists more\n",
                static_cast<std::size_t>(rows->size()));
    return 0;
  }
  Json j = json_answer();
  j["scheduled"] = Json::array();
  for (const auto& row : *rows) {
    j["scheduled"].push_back(Json::object({{"id", row[0].c_str()},
                                           {"deliver_at", row[1].c_str()},
                                           {"topic", row[2].c_str()},
                                           {"dedup_key", row[3].c_str()},
                                           {"created_at", row[4].c_str()}}));
  }
  print_json(j);
  return 0;
}

constexpr std::string_view scheduled_list_reference = R"(
JSON: `scheduled`, each with `id`, `deliver_at`, `topic`, `dedup_key`, `created_at`.
)";

}  // namespace

Command scheduled_list_command() {
  const auto options = std::make_shared<ListOptions>();
  return {
      .name = "scheduled list",
      .summary = "Lists scheduled messages in the order in which they are due.",
      .details = "Needs the role outbox_observer.",
      .options = {list_topic_option(&options->topic), limit_option(&options->limit),
                  json_option(&options->json)},
      .exit_codes = {done_code, usage_code, postgres_code, right_missing_code},
      .reference = scheduled_list_reference,
      .examples = {{"scheduled list --topic reminders",
                    "Lists the scheduled messages of a topic."}},
      .run = with_database([options](const Config& config) { return list(config, *options); }),
  };
}

}  // namespace relay
