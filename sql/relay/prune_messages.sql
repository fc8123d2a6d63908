-- SPDX-License-Identifier: Apache-2.0
-- Deletes messages before the horizon of retention. Everything visible in a base of the journal is
-- delivered or parked, so that whatever the clock says, and whatever became of the server since
-- they were found, no undelivered message is deleted.
--   $1 epoch  $2 holder  $3 their seqs  $4 the batch that has the base of the horizon
-- Returns how many were deleted, and 0 if fenced and else 1.
with
-- @include relay/fence.sql
, horizon as materialized (
  select b.base from fence cross join outbox.batch b where b.number = $4::bigint),
gone as (
  delete from outbox.message m using horizon h
  where m.seq = any ($3::bigint[]) and pg_visible_in_snapshot(m.txid, h.base)
  returning 1)
select (select count(*) from gone), (select count(*) from fence)
