-- SPDX-License-Identifier: Apache-2.0
-- How many messages and batches retention would delete in the end. Reads only: needs no lease.
--   $1 how long messages are kept
with recursive
cutoff as materialized (
  select clock_timestamp() - $1::interval as until, 0::bigint as first_number),
-- @include relay/horizon.sql
select (select count(*) from horizon h join outbox.message m
        on m.txid < pg_snapshot_xmax(h.base) and pg_visible_in_snapshot(m.txid, h.base)),
       (select count(*) from horizon h join outbox.batch b on b.number < h.number and
-- @include relay/unneeded_batch.sql
       )
