-- SPDX-License-Identifier: Apache-2.0
-- Opens a release batch: decided parked messages, and those that waited for them. The position is
-- that of the batch before. What waited for a message that is released now is released without a
-- decision of its own. Rows that an operator is changing are not waited for, which could be a
-- deadlock: then nothing is released for the moment. No row: that, nothing to release, or fenced.
--   $1 epoch  $2 holder  $3 number  $4 token  $5 mode  $6 by key  $7 messages at most
--   $8 bytes at most  $9 number of the confirmed batch, or 0  $10 its offsets as JSON, or empty
-- Returns how many batches were marked delivered (0, 1), and the batch.
with
-- @include relay/fence.sql
, durable as materialized (
  select f.epoch from fence f
  where current_setting('synchronous_commit') in ('on', 'remote_apply')),
chosen as materialized (
  select r.* from durable d
  cross join lateral outbox.releasable($6::boolean, $7::integer, $8::bigint) r),
locked as materialized (
  select p.seq from chosen c
  join outbox.parked p on p.parked_for = c.parked_for and p.seq = c.seq
  for update of p skip locked),
unlocked as materialized (
  select d.epoch from durable d
  where (select count(*) from locked) = (select count(*) from chosen)),
followers as (
  update outbox.parked p
  set resolution = coalesce(p.resolution, 'release'),
      decided_by = coalesce(p.decided_by, 'outbox-relay'),
      decided_at = coalesce(p.decided_at, clock_timestamp()),
      decided_why = case when p.resolution is null then 'what it waited for was decided'
                         else p.decided_why end
  from unlocked cross join chosen c
  where c.next_leader and p.parked_for = c.parked_for and p.seq = c.seq),
released as (
  update outbox.parked p
  set released_in = $3::bigint,
      resolution = coalesce(p.resolution, 'release'),
      decided_by = coalesce(p.decided_by, 'outbox-relay'),
      decided_at = coalesce(p.decided_at, clock_timestamp()),
      decided_why = case when p.resolution is null then 'what it waited for was decided'
                         else p.decided_why end
  from unlocked cross join chosen c
  where not c.next_leader and p.parked_for = c.parked_for and p.seq = c.seq
  returning case when p.resolution <> 'discard' then c.bytes end as bytes),
marked as (
  update outbox.batch b set delivered_at = clock_timestamp(), offsets = nullif($10, '')::jsonb
  where b.number = $9::bigint and b.delivered_at is null and exists (select from released)
  returning 1)
insert into outbox.batch as b (number, epoch, token, kind, mode, base, upto, fresh_from, after_seq,
                               upto_seq, exhausted, messages, bytes)
select $3::bigint, d.epoch, $4::uuid, 'release', $5, n.base, n.upto, n.fresh_from, n.after_seq,
       n.upto_seq, n.exhausted, (select count(r.bytes) from released r),
       (select coalesce(sum(r.bytes), 0) from released r)
from durable d
cross join (select x.* from outbox.batch x order by x.number desc limit 1) n
where exists (select from released)
returning (select count(*) from marked),
-- @include relay/batch_columns.sql
