-- SPDX-License-Identifier: Apache-2.0
-- The horizon of retention. Reads only.
--   $1 how long messages are kept  $2 number of the first batch to look at
-- Returns the number of the horizon, the batch that has its base, its base, and the base of the
-- oldest stream batch: retention deletes messages before the batches after which they were visible,
-- so that nothing visible in that base is left.
with recursive
cutoff as materialized (
  select clock_timestamp() - $1::interval as until, $2::bigint as first_number),
-- @include relay/horizon.sql
select h.number, h.batch, h.base::text,
       (select b.base::text from outbox.batch b
        where b.kind = 'stream' and b.number >= (select c.first_number from cutoff c)
        order by b.number limit 1)
from horizon h
