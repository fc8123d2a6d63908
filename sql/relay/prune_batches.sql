-- SPDX-License-Identifier: Apache-2.0
-- Deletes one page of batches before the horizon that nothing needs.
--   $1 epoch  $2 holder  $3 number of the horizon  $4 rows at most
--   $5 number of the first batch to look at
-- Returns how many were deleted, and the number of the last one.
with
-- @include relay/fence.sql
, old as materialized (
  select b.number from fence cross join lateral (
    select b.number from outbox.batch b
    where b.number >= $5 and b.number < $3 and
-- @include relay/unneeded_batch.sql
    order by b.number limit $4) b),
gone as (
  delete from outbox.batch b using old o where b.number = o.number)
select count(*), coalesce(max(o.number), $5) from old o
