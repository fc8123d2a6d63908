// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/decisions.h"

namespace outbox::postgres {

Result<bool> any_releasable(Control& control, const Options& options) {
  auto rows = control.run("looking for decisions",
                          "select case when exists (select from outbox.parked p where p.released_in is null and p.resolution is not null) "
                          "then exists (select from outbox.releasable($1::boolean, 1, 1)) else false end",
                          options.order == KeyOrder::key);
  if (!rows) return rows.error();
  return (*rows)[0][0].as<bool>();
}

Result<std::vector<std::string>> missing_topics(Control& control, std::int64_t topics_max) {
  // From one topic to the next along the index: there may be a million messages of each.
  auto rows = control.run("looking for missing topics", R"(
    with recursive missing as (
      (select p.topic from outbox.parked p where p.released_in is null and p.resolution is null and p.error_class = 'topic_missing'
       order by p.topic limit 1)
      union all
      select (select p.topic from outbox.parked p where p.released_in is null and p.resolution is null
              and p.error_class = 'topic_missing' and p.topic > m.topic order by p.topic limit 1)
      from missing m where m.topic is not null)
    select m.topic from missing m where m.topic is not null limit $1)", topics_max);
  if (!rows) return rows.error();
  std::vector<std::string> topics;
  for (const auto& row : *rows) topics.emplace_back(row[0].c_str());
  return topics;
}

Result<std::int64_t> release_found_topic(Control& control, const Options& options, std::int64_t epoch, const std::string& topic,
                                         std::int64_t rows) {
  auto decided = control.run("releasing a topic", R"(
    with guard as materialized (select from outbox.lease l where l.epoch = $1 and l.holder = $2 for share)
    update outbox.parked p set resolution = 'release', decided_by = 'outbox-relay', decided_at = clock_timestamp(),
           decided_why = 'the topic exists now'
    from guard where (p.parked_for, p.seq) in (
      select w.parked_for, w.seq from outbox.parked w where w.released_in is null and w.resolution is null and w.topic = $3
      and w.error_class = 'topic_missing' order by w.parked_for, w.seq limit $4 for update of w skip locked))", epoch, options.holder, topic, rows);
  if (!decided) return decided.error();
  return static_cast<std::int64_t>(decided->affected_rows());
}

}  // namespace outbox::postgres
