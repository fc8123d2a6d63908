// SPDX-License-Identifier: Apache-2.0
// parked list: which messages wait for a decision, and why.
#include <cstdio>
#include <memory>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"
#include "relay/commands/parked.h"

namespace relay {
namespace {

struct ListOptions {
  std::string topic;        // empty: all
  std::string error_class;  // empty: all
  std::int64_t limit = 100;
  bool json = false;
};

void print_lines(const pqxx::result& rows, std::int64_t total) {
  for (const auto& row : rows) {
    const std::string decision = row[10].is_null() ? "" : " [decided: " + shown(row[10]) + "]";
    std::printf("%s  %s  %s  %s: %s%s\n", row[2].c_str(), row[6].c_str(), shown(row[3]).c_str(),
                shown(row[7]).c_str(), shown(row[8]).c_str(), decision.c_str());
  }
  const auto listed = static_cast<std::int64_t>(rows.size());
  std::printf("%lld parked", static_cast<long long>(total));
  if (listed < total) {
    std::printf("; the oldest %lld are listed, --limit lists more", static_cast<long long>(listed));
  }
  std::printf("\n");
}

int list(const Config& config, const ListOptions& options) {
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto rows =
      (*control)->run("listing parked messages",
                      "select " + parked_columns() +
                          ", count(*) over () from outbox.parked p "
                          "where p.released_in is null "
                          "and ($1 = '' or p.topic = $1) and ($2 = '' or p.error_class = $2) "
                          "order by p.parked_for, p.seq limit $3",
                      options.topic, options.error_class, options.limit);
  if (!rows) return report(for_operator(rows.error(), "outbox_observer"));
  const auto total = rows->empty() ? 0 : (*rows)[0][parked_column_count].as<std::int64_t>();
  if (!options.json) {
    print_lines(*rows, total);
    return 0;
  }
  Json j = json_answer();
  j["total"] = total;
  j["parked"] = Json::array();
  for (const auto& row : *rows) j["parked"].push_back(parked_json(row));
  print_json(j);
  return 0;
}

constexpr std::string_view parked_list_reference = R"(
JSON: `total`, and `parked`, each with `id`, `seq`, `topic`, `dedup_key`, `created_at`,
`parked_for`, `parked_at`, `error_class`, `error_text`, `released_in`, `resolution`, `decided_by`,
`decided_at`, `decided_why`.
)";

}  // namespace

Command parked_list_command() {
  const auto options = std::make_shared<ListOptions>();
  return {
      .name = "parked list",
      .summary = "Lists the messages that are parked and not released, oldest first.",
      .details = "Needs the role outbox_observer.",
      .options = {list_topic_option(&options->topic),
                  {.name = "--class",
                   .value = &options->error_class,
                   .placeholder = "CLASS",
                   .text =
                       "Only messages parked with this error class, such as too_large. Defaults to "
                       "all classes."},
                  limit_option(&options->limit),
                  json_option(&options->json)},
      .exit_codes = {done_code, usage_code, postgres_code, right_missing_code},
      .reference = parked_list_reference,
      .examples = {{"parked list --class too_large", "Lists the messages that are too large."}},
      .run = with_database([options](const Config& config) { return list(config, *options); }),
  };
}

}  // namespace relay
