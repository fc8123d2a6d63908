-- SPDX-License-Identifier: Apache-2.0
-- Consumers: registration, and expiry of what they accepted.

create or replace function inbox.register(
  consumer text, keep interval default interval '7 days', span_seconds integer default 600)
returns integer language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  registered inbox.consumer;
begin
  insert into inbox.consumer (name, keep, span_seconds)
  values (register.consumer, register.keep, register.span_seconds)
    on conflict (name) do nothing;
  select c.* into registered from inbox.consumer c where c.name = register.consumer;
  if registered.span_seconds <> register.span_seconds then
    raise exception 'consumer % has spans of % s, which cannot be changed',
      register.consumer, registered.span_seconds
      using errcode = 'invalid_parameter_value', hint = 'Register it with the same span_seconds.';
  end if;
  if registered.keep <> register.keep then
    update inbox.consumer c set keep = register.keep where c.id = registered.id;
  end if;
  return registered.id;
end
$$;
comment on function inbox.register(text, interval, integer) is
  'Registers a consumer, or changes how far back it remembers. Can be repeated. A longer keep '
  'does not bring back what was expired.';

create or replace function inbox.known(consumer text)
returns inbox.consumer language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
declare
  found_one inbox.consumer;
begin
  select c.* into found_one from inbox.consumer c where c.name = $1;
  if not found then
    raise exception 'consumer "%" is not registered', $1
      using errcode = 'undefined_object',
            hint = 'select inbox.register(name, keep) once, before it accepts anything.';
  end if;
  return found_one;
end
$$;
comment on function inbox.known(text) is 'The consumer of this name, or an error.';

-- Sorted, so that two calls with the same partitions wait for each other in one order.
create or replace function inbox.report(
  consumer text, topics text[], partitions integer[], read_to timestamptz[])
returns void language sql volatile
set search_path = pg_catalog, pg_temp as $$
  insert into inbox.position as p (consumer, topic, "partition", read_to)
  select c.id, r.topic, r.number,
         least(coalesce(r.read_to, pg_catalog.to_timestamp(0)), pg_catalog.clock_timestamp())
  from inbox.known($1) c
  cross join rows from (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4))
             as r(topic, number, read_to)
  order by r.topic collate "C", r.number
  on conflict on constraint position_pkey do update
  set read_to = case when excluded.read_to > pg_catalog.to_timestamp(0) then excluded.read_to
                     else p.read_to end,
      reported_at = pg_catalog.clock_timestamp()
$$;
comment on function inbox.report(text, text[], integer[], timestamptz[]) is
  'Reports partitions that this consumer reads, and how far: all messages that were sent before '
  'read_to. For a partition that was read to its end, pass the present; null: it is read, and '
  'how far is not known yet. Call it before prune(), for each partition that is assigned.';

-- keep is counted back from the newest message, not from now: a consumer that was down for a week
-- loses nothing. And it is counted back from the partition that was read least far, if partitions
-- are reported: its messages are not expired because others were read sooner. A message from the
-- future is remembered until its time has passed, and expires nothing before that.
--
-- The spans are deleted again at each call: under a repeatable snapshot, an earlier call does not
-- see a span that was inserted while it waited.
--
-- Deleted rows stay in the index as long as anybody has an old snapshot open, so that each call
-- begins at the span where the last one ended. What an earlier call expired was accepted before:
-- once a call finds no more of it, nothing of it is left.
create or replace function inbox.prune(
  consumer text, rows_max integer default 10000, keep_done interval default interval '90 days')
returns bigint language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  me      inbox.consumer := inbox.known(prune.consumer);
  target  integer;
  newest  integer;
  slowest timestamptz;
  before  constant integer := me.oldest_span;
  gone    bigint;
  last    integer;
  until   constant timestamptz := pg_catalog.clock_timestamp() - me.keep;
  done_by constant timestamptz := pg_catalog.clock_timestamp() - keep_done;
begin
  delete from inbox.position p where p.consumer = me.id and p.reported_at < until;
  select pg_catalog.min(p.read_to) into slowest from inbox.position p where p.consumer = me.id;
  select pg_catalog.max(s.number) into newest from inbox.span s
  where s.consumer = me.id
    and s.number <= inbox.span_of(pg_catalog.clock_timestamp(), me.span_seconds);
  if slowest is not null and inbox.span_of(slowest, me.span_seconds) < newest then
    newest := inbox.span_of(slowest, me.span_seconds);
  end if;
  target := newest - pg_catalog.ceil(extract(epoch from me.keep) / me.span_seconds)::integer;
  if target > me.oldest_span then
    update inbox.consumer c set oldest_span = target where c.id = me.id and c.oldest_span < target;
    me.oldest_span := target;
  end if;
  delete from inbox.span s where s.consumer = me.id and s.number < me.oldest_span;
  with deleted as (
    delete from inbox.accepted a where a.ctid = any (array(
      select d.ctid from inbox.accepted d
      where d.consumer = me.id and d.span >= me.pruned_to and d.span < me.oldest_span
      order by d.span limit rows_max))
    returning a.span)
  select pg_catalog.count(*), pg_catalog.max(d.span) into gone, last from deleted d;
  if gone > 0 or before > me.pruned_to then
    update inbox.consumer c
    set forgotten = c.forgotten + gone,
        pruned_to = greatest(c.pruned_to, case when gone < rows_max then before
                                               else least(before, last) end)
    where c.id = me.id;
  end if;
  delete from inbox.tally t where t.consumer = me.id and t.seen_at < until;
  delete from inbox.parked p where p.ctid = any (array(
    select d.ctid from inbox.parked d
    where d.consumer = me.id and (d.handled_at is not null or d.resolution = 'discard')
      and coalesce(d.handled_at, d.decided_at) < done_by
    limit rows_max));
  return gone;
end
$$;
comment on function inbox.prune(text, integer, interval) is
  'Expires what is older than keep. Deletes at most rows_max rows and returns how many. Call '
  'it periodically, each time until it returns less. Parked messages that were handled or '
  'discarded longer than keep_done ago are deleted as well.';
