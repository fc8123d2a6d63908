-- SPDX-License-Identifier: Apache-2.0
-- Topics of which unreleased messages with a key are parked. From one topic to the next along the
-- index: there may be millions of messages of each.
--   $1 topics at most
with recursive blocked as (
  (select p.topic from outbox.parked p
   where p.released_in is null and p.key is not null
   order by p.topic limit 1)
  union all
  select (select p.topic from outbox.parked p
          where p.released_in is null and p.key is not null and p.topic > b.topic
          order by p.topic limit 1)
  from blocked b where b.topic is not null)
select b.topic from blocked b where b.topic is not null limit $1
