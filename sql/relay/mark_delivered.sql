-- SPDX-License-Identifier: Apache-2.0
-- Marks a batch delivered, outside of the opening of the next one. No row: fenced.
--   $1 epoch  $2 holder  $3 number  $4 offsets as JSON, or empty
with
-- @include relay/fence.sql
update outbox.batch b
set delivered_at = pg_catalog.clock_timestamp(), offsets = nullif($4, '')::jsonb
where b.number = $3 and b.delivered_at is null and exists (select from fence)
returning 1
