-- SPDX-License-Identifier: Apache-2.0
-- The base up to which messages are not kept, and the number of the first batch that has it. It is
-- the base of the oldest stream batch younger than cutoff.until; if none is younger, of the newest.
-- From there back to the first batch of its difference, because the messages of a difference are
-- kept together. The journal is bisected: there can be millions of old batches, and before
-- cutoff.first_number the index entries of millions that were deleted. Whatever the clock did, a
-- stream batch is found.
search(lo, hi) as (
  select (select b.number from outbox.batch b
          where b.kind = 'stream' and b.number >= (select c.first_number from cutoff c)
          order by b.number limit 1),
         (select b.number + 1 from outbox.batch b where b.kind = 'stream'
          order by b.number desc limit 1)
  union all
  select case when x.opened_at <= (select c.until from cutoff c) then x.number + 1 else s.lo end,
         case when x.opened_at <= (select c.until from cutoff c) then s.hi
              else (s.lo + s.hi) / 2 end
  from search s left join lateral (
    select b.number, b.opened_at from outbox.batch b
    where b.number >= (s.lo + s.hi) / 2 and b.number < s.hi and b.kind = 'stream'
    order by b.number limit 1) x on true
  where s.lo < s.hi),
horizon as materialized (
  select coalesce((select p.number + 1 from outbox.batch p
                   where p.number < h.number and p.base::text <> h.base::text
                   order by p.number desc limit 1), 0) as number,
         h.number as batch, h.base
  from outbox.batch h
  where h.number = coalesce(
    (select b.number from outbox.batch b
     where b.kind = 'stream' and b.number >= (select max(s.lo) from search s)
     order by b.number limit 1),
    (select b.number from outbox.batch b where b.kind = 'stream' order by b.number desc limit 1)))
