-- SPDX-License-Identifier: Apache-2.0
-- The condition that the batch b is not needed: the newest two stream batches, every open one, and
-- those that parked messages point at are.
b.delivered_at is not null
and b.number < (select min(k.number) from (
  select s.number from outbox.batch s where s.kind = 'stream' order by s.number desc limit 2) k)
and not exists (select from outbox.parked p where p.parked_for = b.number)
and not exists (select from outbox.parked p where p.released_in = b.number)
