-- SPDX-License-Identifier: Apache-2.0
-- Moves scheduled messages that are due into outbox.message. A transaction that cancels a message
-- may stay open: its rows are skipped, because a statement that holds the lock of the fence and
-- waits would hold up the lease.
--   $1 epoch  $2 holder  $3 rows at most
with
-- @include relay/fence.sql
, due as (
  delete from outbox.scheduled s using fence where s.ctid = any (array(
    select d.ctid from outbox.scheduled d where d.deliver_at <= (select clock_timestamp())
    order by d.deliver_at, d.seq limit $3 for update of d skip locked))
  returning s.id, s.deliver_at, s.seq, s.topic, s.key, s.payload, s.headers, s.dedup_key,
            s.created_at)
insert into outbox.message (id, topic, key, payload, headers, dedup_key, created_at)
select d.id, d.topic, d.key, d.payload, d.headers, d.dedup_key, d.created_at
from due d order by d.deliver_at, d.seq
