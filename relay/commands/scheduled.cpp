// SPDX-License-Identifier: Apache-2.0
// scheduled list and cancel: what is to be delivered later.
#include <cstdio>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"

namespace outbox {

int scheduled_list(const Config& config, const ScheduledListOptions& options) {
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto rows = (*control)->run("listing scheduled messages",
                              "select s.id::text, " + utc("s.deliver_at") + ", s.topic, coalesce(s.dedup_key, s.id::text), " +
                                  utc("s.created_at") + " from outbox.scheduled s where ($1 = '' or s.topic = $1) "
                                  "order by s.deliver_at, s.seq limit $2",
                              options.topic, options.limit);
  if (!rows) return report(for_person(rows.error(), "outbox_observer"));
  Json j = json_answer();
  j["scheduled"] = Json::array();
  for (const auto& row : *rows) {
    if (!options.json) std::printf("%s  %s  %s\n", row[0].c_str(), row[1].c_str(), shown(row[2]).c_str());
    j["scheduled"].push_back({{"id", row[0].c_str()}, {"deliver_at", row[1].c_str()}, {"topic", row[2].c_str()},
                              {"dedup_key", row[3].c_str()}, {"created_at", row[4].c_str()}});
  }
  if (options.json) print_json(j);
  else std::printf("%zu listed, the first to fall due; --limit shows more\n", static_cast<std::size_t>(rows->size()));
  return 0;
}

int scheduled_cancel(const Config& config, const std::vector<std::string>& ids, bool json) {
  const auto list = id_array(ids);
  if (!list) return report(list.error());
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto rows = (*control)->run("cancelling scheduled messages", "delete from outbox.scheduled s where s.id = any ($1::uuid[])", *list);
  if (!rows) return report(for_person(rows.error(), "outbox_operator"));
  const auto cancelled = static_cast<std::int64_t>(rows->affected_rows());
  if (json) {
    Json j = json_answer();
    j["cancelled"] = cancelled;
    print_json(j);
    return cancelled == 0 ? exit_code(Fault::absent) : 0;
  }
  if (cancelled == 0) {
    return report({Fault::absent, "none of them is scheduled", "they fell due, or were cancelled: `outbox-relay trace ID` tells"});
  }
  std::printf("%lld cancelled\n", static_cast<long long>(cancelled));
  return 0;
}

}  // namespace outbox
