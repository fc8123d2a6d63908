-- SPDX-License-Identifier: Apache-2.0
-- Takes the lease, on the condition that it is as it was seen: of several standbys, one wins. No
-- row: another one did. Only FOR UPDATE waits for the writes that hold the fence.
--   $1 holder  $2 ttl  $3 relay  $4 epoch and  $5 expiry that were seen  $6 cluster, or 0
with seen as materialized (
  select l.only_row from outbox.lease l
  where l.epoch = $4 and l.expires_at = $5::timestamptz and coalesce(l.relay, $3) = $3
  for update)
update outbox.lease l
set epoch = l.epoch + 1, holder = $1, expires_at = pg_catalog.clock_timestamp() + $2::interval,
    relay = $3, cluster = coalesce(l.cluster, nullif($6::bigint, 0))
from seen s
where l.only_row = s.only_row
returning l.epoch
