// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/scheduler.h"

#include "relay/postgres/fence.h"

namespace outbox::postgres {

Result<std::int64_t> move_due(PqxxSession& control, const Options& options, std::int64_t epoch,
                              std::int64_t rows) {
  // Looked at first, because the row lock of the fence costs a transaction id. The time in a
  // subquery can be looked for in the index; by itself it would be compared with all that lies in
  // the future.
  auto due = control.run(
      "looking for scheduled messages",
      "select has_any_column_privilege('outbox.scheduled', 'update') from outbox.scheduled d "
      "where d.deliver_at <= (select clock_timestamp()) order by d.deliver_at limit 1");
  if (!due) return due.error();
  if (due->empty()) return std::int64_t{0};
  // An application that cancels a message may keep its transaction open. The fence's lock must not
  // wait for that: it holds up the lease. Schemas before version 3 do not give the right to lock a
  // row.
  const char* const locked_by_nobody =
      (*due)[0][0].as<bool>() ? " for update of d skip locked" : "";
  auto moved = control.run("moving scheduled messages",
                           fence_sql("$1", "$2") + R"(,
    due as (
      delete from outbox.scheduled s using fence where s.ctid = any (array(
        select d.ctid from outbox.scheduled d where d.deliver_at <= (select clock_timestamp())
        order by d.deliver_at, d.seq limit $3)" +
                               locked_by_nobody + R"())
      returning s.id, s.deliver_at, s.seq, s.topic, s.key, s.payload, s.headers, s.dedup_key, s.created_at)
    insert into outbox.message (id, topic, key, payload, headers, dedup_key, created_at)
    select d.id, d.topic, d.key, d.payload, d.headers, d.dedup_key, d.created_at from due d order by d.deliver_at, d.seq)",
                           epoch, options.holder, rows);
  if (!moved) return moved.error();
  return static_cast<std::int64_t>(moved->affected_rows());
}

}  // namespace outbox::postgres
