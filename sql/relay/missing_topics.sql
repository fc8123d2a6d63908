-- SPDX-License-Identifier: Apache-2.0
-- Topics of undecided messages that were parked because their topic was missing. From one topic to
-- the next along the index: there may be a million messages of each.
--   $1 topics at most  $2 topic behind which to begin
with recursive missing as (
  (select p.topic from outbox.parked p
   where p.released_in is null and p.resolution is null and p.error_class = 'topic_missing'
     and p.topic > $2
   order by p.topic limit 1)
  union all
  select (select p.topic from outbox.parked p
          where p.released_in is null and p.resolution is null and p.error_class = 'topic_missing'
            and p.topic > m.topic
          order by p.topic limit 1)
  from missing m where m.topic is not null)
select m.topic from missing m where m.topic is not null limit $1
