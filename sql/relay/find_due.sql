-- SPDX-License-Identifier: Apache-2.0
-- Whether a scheduled message is due, looked at before move_due, whose lock costs a transaction id.
-- Returns no row, or whether the relay may lock scheduled messages. The time in a subquery can be
-- looked for in the index; a volatile one would be compared with every message of the future.
--   $1 time less  $2 and  $3 seq of the message behind which to look
select has_any_column_privilege('outbox.scheduled', 'update') from outbox.scheduled d
where (d.deliver_at, d.seq) > ($1::timestamptz - $2::interval, $3::bigint)
  and d.deliver_at <= (select clock_timestamp())
order by d.deliver_at, d.seq limit 1
