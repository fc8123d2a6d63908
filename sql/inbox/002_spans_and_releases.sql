-- SPDX-License-Identifier: Apache-2.0
-- Forgetting at every isolation level; looking for what was released, and forgetting repeats, at a cost that does not grow.

create index parked_due on inbox.parked (consumer, id)
  where handled_at is null and (resolution = 'release' or (resolution is null and error_class = 'key_blocked'));
comment on index inbox.parked_due is 'Finds what is to be handled after all.';
create index tally_seen on inbox.tally (consumer, seen_at);
comment on index inbox.tally_seen is 'Finds what is to be forgotten.';

-- A span that was new while an earlier call waited for it is not in that call's snapshot if it is a repeatable one: it goes now, and
-- with it what was accepted into it.
create or replace function inbox.prune(consumer text, rows_max integer default 10000) returns bigint language plpgsql volatile as $$
declare
  me     inbox.consumer := inbox.known(prune.consumer);
  target integer;
  gone   bigint;
  until  constant timestamptz := pg_catalog.clock_timestamp() - me.keep;
begin
  select least(pg_catalog.max(s.number), inbox.span_of(pg_catalog.clock_timestamp(), me.span_seconds))
         - pg_catalog.ceil(extract(epoch from me.keep) / me.span_seconds)::integer
  into target from inbox.span s where s.consumer = me.id
  having pg_catalog.max(s.number) is not null;  -- least() passes over nulls
  if target > me.oldest_span then
    update inbox.consumer c set oldest_span = target where c.id = me.id and c.oldest_span < target;
    me.oldest_span := target;
  end if;
  delete from inbox.span s where s.consumer = me.id and s.number < me.oldest_span;
  delete from inbox.accepted a where a.ctid = any (array(
    select d.ctid from inbox.accepted d where d.consumer = me.id and d.span < me.oldest_span limit rows_max));
  get diagnostics gone = row_count;
  if gone > 0 then
    update inbox.consumer c set forgotten = c.forgotten + gone where c.id = me.id;
  end if;
  delete from inbox.tally t where t.consumer = me.id and t.seen_at < until;
  return gone;
end
$$;
comment on function inbox.prune(text, integer) is
  'Forgets what is older than keep; deletes at most so many rows and says how many. Call it now and then, each time until it returns less.';

drop function inbox.next_released(text, boolean);
create function inbox.next_released(consumer text, by_key boolean, behind bigint default 0) returns setof inbox.parked language sql volatile as $$
  select p.*
  from inbox.parked p
  where p.consumer = (select c.id from inbox.known($1) c) and p.id > $3
    and p.handled_at is null and (p.resolution = 'release' or (p.resolution is null and p.error_class = 'key_blocked'))
    and (not by_key or p.key is null or not exists (
      select from inbox.parked e
      where e.consumer = p.consumer and e.topic = p.topic and pg_catalog.sha256(e.key) = pg_catalog.sha256(p.key) and e.key = p.key
        and e.handled_at is null and e.resolution is distinct from 'discard' and e.id < p.id))
  order by p.id limit 1 for update of p skip locked
$$;
comment on function inbox.next_released(text, boolean, bigint) is
  'The next parked message behind that number to be handled after all, held until the end of the transaction. What only waited for an '
  'earlier message of its key follows by itself.';
