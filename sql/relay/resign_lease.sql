-- SPDX-License-Identifier: Apache-2.0
-- Gives the lease back, so that a standby need not wait for its end.
--   $1 epoch  $2 holder
update outbox.lease l set expires_at = '-infinity', holder = null
where l.epoch = $1 and l.holder = $2
returning 1
