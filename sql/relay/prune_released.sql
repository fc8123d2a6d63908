-- SPDX-License-Identifier: Apache-2.0
-- Deletes one page of parked messages that were released before the horizon. No message that is
-- kept is visible in the base of the horizon, so none belongs to a batch before it.
--   $1 epoch  $2 holder  $3 number of the horizon  $4 how long messages are kept  $5 rows at most
--   $6 number of the first release to look at: those before it are deleted
-- Returns how many were deleted, and the number of the last one's release.
with
-- @include relay/fence.sql
, old as materialized (
  select p.parked_for, p.seq, p.released_in from fence cross join lateral (
    select p.parked_for, p.seq, p.released_in from outbox.parked p
    where p.released_in >= $6 and p.released_in < $3 and not exists (
      select from outbox.batch b
      where b.number = p.released_in and b.opened_at > clock_timestamp() - $4::interval)
    order by p.released_in limit $5) p),
gone as (
  delete from outbox.parked p using old o where p.parked_for = o.parked_for and p.seq = o.seq)
select count(*), coalesce(max(o.released_in), $6) from old o
