-- SPDX-License-Identifier: Apache-2.0
-- Moves scheduled messages that are due into outbox.message. A transaction that cancels a message
-- may stay open: its rows are skipped, because a take-over waits for a statement that holds the
-- lock of the fence.
--   $1 epoch  $2 holder  $3 rows at most  $4 bytes after which to end
--   $5 time less  $6 and  $7 seq of the message behind which to look
-- Returns how many were moved, whether there may be more, and time and seq of the last one.
with
-- @include relay/fence.sql
, page as materialized (
  select p.place, sum(p.bytes) over (order by p.deliver_at, p.seq) - p.bytes as before
  from fence cross join lateral (
    select d.ctid as place, d.deliver_at, d.seq,
           outbox.record_bytes(d.key, d.payload, null) as bytes
    from outbox.scheduled d
    where (d.deliver_at, d.seq) > ($5::timestamptz - $6::interval, $7::bigint)
      and d.deliver_at <= (select clock_timestamp())
    order by d.deliver_at, d.seq limit $3) p),
due as (
  delete from outbox.scheduled s where s.ctid = any (array(
    select d.ctid from outbox.scheduled d
    where d.ctid = any (array(select p.place from page p where p.before < $4::bigint))
    for update of d skip locked))
  returning s.id, s.deliver_at, s.seq, s.topic, s.key, s.payload, s.headers, s.dedup_key,
            s.created_at),
moved as (
  insert into outbox.message (id, topic, key, payload, headers, dedup_key, created_at)
  select d.id, d.topic, d.key, d.payload, d.headers, d.dedup_key, d.created_at
  from due d order by d.deliver_at, d.seq
  returning 1)
select (select count(*) from moved),
       (select count(*) = $3 or coalesce(max(p.before) >= $4::bigint, false) from page p),
       last.deliver_at::text, last.seq
from (select) one
left join (
  select d.deliver_at, d.seq from due d order by d.deliver_at desc, d.seq desc limit 1) last on true
