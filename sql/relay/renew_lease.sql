-- SPDX-License-Identifier: Apache-2.0
-- Renews the lease. No row: another relay has it.
--   $1 ttl  $2 epoch  $3 holder
update outbox.lease l set expires_at = pg_catalog.clock_timestamp() + $1::interval
where l.epoch = $2 and l.holder = $3
returning 1
