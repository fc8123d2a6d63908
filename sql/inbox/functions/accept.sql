-- SPDX-License-Identifier: Apache-2.0
-- Accepting messages, in the transaction that handles them.

-- @include common/make_durable.sql

create or replace function inbox.span_of(sent_at timestamptz, span_seconds integer)
returns integer language sql immutable as $$
  select least(pg_catalog.floor(pg_catalog.date_part('epoch', sent_at)
                                operator(pg_catalog./) span_seconds::double precision),
               2147483647)::integer
$$;
comment on function inbox.span_of(timestamptz, integer) is
  'The number of the span that a time belongs to.';

create or replace function inbox.slot()
returns integer language sql stable
set search_path = pg_catalog, pg_temp as $$
  select pg_catalog.pg_backend_pid() % 64
$$;
comment on function inbox.slot() is
  'Which of the rows of a span this session locks: few sessions share one.';

-- No transaction can expire the span before this one ends: either a row of the span is locked,
-- or, for a new row, the row of the consumer.
create or replace function inbox.hold_span(consumer_id integer, span_number integer)
returns boolean language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  oldest  integer;
  my_slot constant integer := inbox.slot();
begin
  perform from inbox.span s
  where s.consumer = consumer_id and s.number = span_number and s.slot = my_slot
  for key share;
  if found then
    return true;
  end if;
  select c.oldest_span into oldest from inbox.consumer c where c.id = consumer_id for share;
  if span_number < oldest then
    return false;
  end if;
  insert into inbox.span (consumer, number, slot) values (consumer_id, span_number, my_slot)
    on conflict do nothing;
  return true;
end
$$;
comment on function inbox.hold_span(integer, integer) is
  'Holds a span in memory until the end of the transaction; false: it is expired.';

create or replace function inbox.topic_id(topic text)
returns integer language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  number integer;
begin
  if $1 is null then
    return 0;
  end if;
  select t.id into number from inbox.topic t where t.name = $1;
  if not found then
    insert into inbox.topic (name) values ($1) on conflict do nothing;
    select t.id into strict number from inbox.topic t where t.name = $1;
  end if;
  return number;
end
$$;
comment on function inbox.topic_id(text) is
  'The number of a topic, which is added if it is new; 0 for null.';

-- The first statement suffices for most calls: the consumer is registered, and its span exists.
create or replace function inbox.accept(
  consumer text, topic text, dedup_key text, sent_at timestamptz)
returns text language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  me      integer;
  number  integer;
  my_slot constant integer := inbox.slot();
begin
  if coalesce($3, '') = '' or $4 is null or not pg_catalog.isfinite($4) then
    raise exception 'a message has no deduplication key or no time'
      using errcode = 'null_value_not_allowed',
            hint = 'Give the header dedup-key and the timestamp of the Kafka record.';
  end if;
  if pg_catalog.current_setting('synchronous_commit') not in ('on', 'remote_apply') then
    perform inbox.make_durable();
  end if;
  select s.consumer, s.number into me, number
  from inbox.consumer c
  join inbox.span s on s.consumer = c.id and s.number = inbox.span_of($4, c.span_seconds)
                       and s.slot = my_slot
  where c.name = $1 for key share of s;
  if not found then
    select c.id, inbox.span_of($4, c.span_seconds) into me, number from inbox.known($1) c;
    if not inbox.hold_span(me, number) then
      insert into inbox.tally (consumer, duplicates, expired) values (me, 0, 1);
      return 'expired';
    end if;
  end if;
  insert into inbox.accepted (consumer, span, topic, dedup_key)
  values (me, number, inbox.topic_id($2), $3)
    on conflict do nothing;
  if found then
    return 'new';
  end if;
  insert into inbox.tally (consumer, duplicates, expired) values (me, 1, 0);
  return 'duplicate';
end
$$;
comment on function inbox.accept(text, text, text, timestamptz) is
  'To be called in the transaction that handles a message. new: handle it; duplicate: it was '
  'handled before, or is handled by an earlier message of this transaction; expired: it is '
  'older than the memory, so that either is possible. topic and sent_at are those of the Kafka '
  'record. One deduplication key in two topics is two messages; topic null: in all topics it '
  'is one.';

create or replace function inbox.accept_all(
  consumer text, topics text[], dedup_keys text[], sent_at timestamptz[])
returns text[] language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  me       inbox.consumer := inbox.known(accept_all.consumer);
  span     record;
  held     integer[] := '{}';
  verdicts text[];
  met      record;
begin
  perform inbox.make_durable();
  if pg_catalog.cardinality(dedup_keys) <> pg_catalog.cardinality(accept_all.sent_at)
     or pg_catalog.cardinality(dedup_keys) <> pg_catalog.cardinality(topics)
     or pg_catalog.array_position(dedup_keys, null) is not null
     or '' = any (dedup_keys)
     or exists (select from pg_catalog.unnest(accept_all.sent_at) t(at)
                where t.at is null or not pg_catalog.isfinite(t.at)) then
    raise exception 'a message has no deduplication key or no time'
      using errcode = 'null_value_not_allowed',
            hint = 'Give the topic, the header dedup-key and the timestamp of the Kafka record, '
                   'for each message.';
  end if;
  for span in
    select distinct inbox.span_of(t.at, me.span_seconds) as number
    from pg_catalog.unnest(accept_all.sent_at) t(at) order by 1
  loop
    if inbox.hold_span(me.id, span.number) then
      held := held || span.number;
    end if;
  end loop;
  -- Sorted, so that two consumers with the same messages wait for each other in one order.
  with numbered as materialized (
    select t.name, inbox.topic_id(t.name) as id
    from (select distinct g.name collate "C" as name from pg_catalog.unnest(topics) g(name)) t),
  given as materialized (
    select m.key, m.n, n.id as topic, inbox.span_of(m.at, me.span_seconds) as span
    from rows from (pg_catalog.unnest(topics), pg_catalog.unnest(dedup_keys),
                    pg_catalog.unnest(accept_all.sent_at)) with ordinality as m(topic, key, at, n)
    join numbered n on n.name is not distinct from m.topic collate "C"),
  fresh as (
    insert into inbox.accepted (consumer, span, topic, dedup_key)
    select me.id, d.span, d.topic, d.key
    from (select distinct on (g.key collate "C", g.topic) g.key, g.topic, g.span
          from given g where g.span = any (held) order by g.key collate "C", g.topic, g.n) d
    order by d.key collate "C", d.topic
    on conflict do nothing
    returning inbox.accepted.topic, inbox.accepted.dedup_key)
  select pg_catalog.array_agg(
           case when not (g.span = any (held)) then 'expired'
                when f.dedup_key is not null and g.turn = 1 then 'new'
                else 'duplicate' end order by g.n)
  into verdicts
  from (select given.key, given.topic, given.n, given.span,
               pg_catalog.row_number()
                 over (partition by given.key, given.topic, given.span = any (held)
                       order by given.n) as turn from given) g
  left join fresh f on f.dedup_key = g.key and f.topic = g.topic;

  select pg_catalog.count(*) filter (where v.verdict = 'duplicate') as duplicates,
         pg_catalog.count(*) filter (where v.verdict = 'expired') as expired
  into met from pg_catalog.unnest(verdicts) v(verdict);
  if met.duplicates + met.expired > 0 then
    insert into inbox.tally (consumer, duplicates, expired)
    values (me.id, met.duplicates, met.expired);
  end if;
  return coalesce(verdicts, '{}');
end
$$;
comment on function inbox.accept_all(text, text[], text[], timestamptz[]) is
  'As accept(), for a whole poll at once: the verdicts in the order of the messages. Equal to '
  'calling accept() for one after the other.';
