-- SPDX-License-Identifier: Apache-2.0
-- Deletes one page of messages before the horizon of retention. Everything visible in a base is
-- delivered or parked, so that whatever the clock says, no undelivered message is deleted.
--   $1 epoch  $2 holder  $3 how long messages are kept  $4 rows at most
-- Returns how many were deleted, 0 if fenced and else 1, and the number of the horizon.
with recursive
-- @include relay/fence.sql
, cutoff as materialized (select clock_timestamp() - $3::interval as until),
-- @include relay/horizon.sql
, old as materialized (
  select m.seq from fence cross join horizon h cross join lateral (
    select m.seq from outbox.message m
    where m.txid < pg_snapshot_xmax(h.base) and pg_visible_in_snapshot(m.txid, h.base)
    order by m.txid, m.seq limit $4) m),
gone as (
  delete from outbox.message m using old o where m.seq = o.seq returning 1)
select (select count(*) from gone), (select count(*) from fence),
       (select h.number from horizon h)
