-- SPDX-License-Identifier: Apache-2.0
-- The first part of every write of the relay: no row of the lease with our epoch, no write. The row
-- lock makes a take-over, which takes the row FOR UPDATE, wait for a write under way, and then see
-- it. Comparing the epoch without the lock would let the write appear after the take-over. The
-- lock is the weakest that does so: it does not hold up a renewal of the lease.
--   $1 epoch  $2 holder
fence as materialized (
  select l.epoch from outbox.lease l
  where l.epoch = $1::bigint and l.holder = $2::text for key share)
