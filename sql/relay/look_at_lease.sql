-- SPDX-License-Identifier: Apache-2.0
-- The lease, and whether it is free by the clock of the database.
--   $1 holder
select l.epoch, l.expires_at::text,
       l.holder is null or l.holder = $1 or l.expires_at <= pg_catalog.clock_timestamp()
from outbox.lease l
