-- SPDX-License-Identifier: Apache-2.0
-- What operators see of the inbox.

create or replace view inbox.statistics as
select c.name as consumer, c.keep,
       case when c.oldest_span > 0
            then pg_catalog.to_timestamp(c.oldest_span::double precision * c.span_seconds)
            end as remembers_since,
       (select pg_catalog.to_timestamp(pg_catalog.max(s.number)::double precision * c.span_seconds)
        from inbox.span s where s.consumer = c.id) as newest_span,
       (select pg_catalog.min(p.read_to) from inbox.position p
        where p.consumer = c.id) as read_to,
       c.forgotten, coalesce(t.duplicates, 0) as duplicates, coalesce(t.expired, 0) as expired,
       t.last_repeat_at,
       (select pg_catalog.count(*) from inbox.parked p
        where p.consumer = c.id and p.handled_at is null
          and p.resolution is distinct from 'discard') as parked
from inbox.consumer c
left join (select y.consumer, pg_catalog.sum(y.duplicates) as duplicates,
                  pg_catalog.sum(y.expired) as expired, pg_catalog.max(y.seen_at) as last_repeat_at
           from inbox.tally y group by y.consumer) t on t.consumer = c.id;
comment on view inbox.statistics is 'What each consumer remembers, and which duplicates it met.';
comment on column inbox.statistics.consumer is 'Name of the consumer.';
comment on column inbox.statistics.keep is 'How far back it is to remember.';
comment on column inbox.statistics.remembers_since is
  'Messages sent before are expired; null: nothing was expired yet.';
comment on column inbox.statistics.newest_span is
  'Begin of the newest span with an accepted message.';
comment on column inbox.statistics.read_to is
  'Where the slowest partition was read to (see inbox.position); null: no partition is reported.';
comment on column inbox.statistics.forgotten is 'Accepted messages that were expired.';
comment on column inbox.statistics.duplicates is 'Duplicates met within the last keep.';
comment on column inbox.statistics.expired is
  'Messages met within the last keep that were older than the memory.';
comment on column inbox.statistics.last_repeat_at is
  'When the last duplicate or expired message was met.';
comment on column inbox.statistics.parked is
  'Messages that wait for a decision, or for the consumer to execute it.';
