-- SPDX-License-Identifier: Apache-2.0
-- The inbox: which messages a consumer has accepted, how far back it remembers, and messages that it could not handle.
--
-- accept() runs in the handler's own transaction. What it remembers is kept in spans of time (of sent_at, the timestamp of the
-- Kafka record). Forgetting a span deletes its row, which waits for every transaction that accepts into it, and whoever comes
-- later finds that the span is gone: a repeat that is older than the memory is `expired`, never taken for new. It holds at each
-- isolation level, whatever the clock does.

comment on schema inbox is 'Inbox of consumers: each message is handled once by each consumer.';

create table inbox.schema_version (
  number     integer     primary key,
  name       text        not null,
  applied_at timestamptz not null default pg_catalog.clock_timestamp()
);
comment on table inbox.schema_version is 'Migrations that have been applied.';
comment on column inbox.schema_version.number is 'Number of the migration.';
comment on column inbox.schema_version.name is 'Its name.';
comment on column inbox.schema_version.applied_at is 'When it was applied.';

create table inbox.consumer (
  id            integer     generated always as identity primary key,
  name          text        not null unique check (name <> ''),
  keep          interval    not null check (keep > interval '0'),
  span_seconds  integer     not null default 600 check (span_seconds between 1 and 86400),
  oldest_span   integer     not null default 0,
  forgotten     bigint      not null default 0,
  registered_at timestamptz not null default pg_catalog.clock_timestamp()
);
comment on table inbox.consumer is 'Who consumes. Each consumer has a memory of its own.';
comment on column inbox.consumer.id is 'Its number in the other tables.';
comment on column inbox.consumer.name is 'Its name, as accept() is called with it.';
comment on column inbox.consumer.keep is 'How far it remembers, counted back from the newest message that it accepted.';
comment on column inbox.consumer.span_seconds is 'Length of a span; fixed, because it decides which span a message belongs to.';
comment on column inbox.consumer.oldest_span is 'First span that it remembers; a message of an earlier one is expired.';
comment on column inbox.consumer.forgotten is 'How many messages were forgotten.';
comment on column inbox.consumer.registered_at is 'When it was registered.';

create table inbox.span (
  consumer integer not null references inbox.consumer,
  number   integer not null,
  primary key (consumer, number)
);
comment on table inbox.span is 'Spans of time that a consumer remembers. A transaction that accepts into a span holds its row.';
comment on column inbox.span.consumer is 'Who remembers.';
comment on column inbox.span.number is 'Seconds since 1970 divided by the length of a span.';

-- Without foreign keys: their checks would cost as much as the row.
create table inbox.accepted (
  consumer    integer     not null,
  span        integer     not null,
  accepted_at timestamptz not null default pg_catalog.clock_timestamp(),
  dedup_key   text        collate "C" not null check (pg_catalog.octet_length(dedup_key) <= 1024),
  primary key (consumer, dedup_key)
);
create index accepted_span on inbox.accepted (consumer, span);
comment on table inbox.accepted is 'One row for each message that a consumer accepted.';
comment on column inbox.accepted.consumer is 'Who accepted it.';
comment on column inbox.accepted.span is 'Span of the message; the row is deleted some time after the span was forgotten.';
comment on column inbox.accepted.accepted_at is 'When it was accepted, by the clock of the database.';
comment on column inbox.accepted.dedup_key is 'Deduplication key of the message (at most 1024 bytes).';
comment on index inbox.accepted_span is 'Finds what is to be deleted.';

create table inbox.tally (
  consumer   integer     not null references inbox.consumer,
  seen_at    timestamptz not null default pg_catalog.clock_timestamp(),
  duplicates integer     not null,
  expired    integer     not null
);
comment on table inbox.tally is 'One row for each call of accept that met repeats, so that counting them makes nobody wait.';
comment on column inbox.tally.consumer is 'Who met them.';
comment on column inbox.tally.seen_at is 'When.';
comment on column inbox.tally.duplicates is 'Messages that had been accepted before.';
comment on column inbox.tally.expired is 'Messages that were older than the memory.';

create function inbox.register(consumer text, keep interval default interval '7 days', span_seconds integer default 600)
returns integer language plpgsql volatile as $$
declare
  registered inbox.consumer;
begin
  insert into inbox.consumer (name, keep, span_seconds) values (register.consumer, register.keep, register.span_seconds)
    on conflict (name) do nothing;
  select c.* into registered from inbox.consumer c where c.name = register.consumer;
  if registered.span_seconds <> register.span_seconds then
    raise exception 'consumer % has spans of % s, which cannot be changed', register.consumer, registered.span_seconds
      using errcode = 'invalid_parameter_value', hint = 'Register it with the same span_seconds.';
  end if;
  if registered.keep <> register.keep then
    update inbox.consumer c set keep = register.keep where c.id = registered.id;
  end if;
  return registered.id;
end
$$;
comment on function inbox.register(text, interval, integer) is
  'Makes a consumer known, and says how far back it remembers. Can be repeated; a longer keep brings nothing back.';

create function inbox.make_durable() returns void language plpgsql volatile as $$
begin
  if pg_catalog.current_setting('synchronous_commit') not in ('on', 'remote_apply') then
    perform pg_catalog.set_config('synchronous_commit', 'on', true);
  end if;
end
$$;
comment on function inbox.make_durable() is
  'Makes the current transaction wait for its commit to be durable, whatever the session says: what is forgotten is done twice.';

create function inbox.known(consumer text) returns inbox.consumer language plpgsql stable as $$
declare
  found_one inbox.consumer;
begin
  select c.* into found_one from inbox.consumer c where c.name = $1;
  if not found then
    raise exception 'consumer "%" is not registered', $1
      using errcode = 'undefined_object', hint = 'select inbox.register(name, keep) once, before it accepts anything.';
  end if;
  return found_one;
end
$$;
comment on function inbox.known(text) is 'The consumer of this name, or an error.';

create function inbox.span_of(sent_at timestamptz, span_seconds integer) returns integer language sql immutable as $$
  select least(pg_catalog.floor(pg_catalog.date_part('epoch', sent_at) / span_seconds), 2147483647)::integer
$$;
comment on function inbox.span_of(timestamptz, integer) is 'The number of the span that a time belongs to.';

-- Nobody can forget the span until the transaction ends: either its own row is held, or, for a new one, the consumer's.
create function inbox.hold_span(consumer_id integer, span_number integer) returns boolean language plpgsql volatile as $$
declare
  oldest integer;
begin
  perform from inbox.span s where s.consumer = consumer_id and s.number = span_number for key share;
  if found then
    return true;
  end if;
  select c.oldest_span into oldest from inbox.consumer c where c.id = consumer_id for share;
  if span_number < oldest then
    return false;
  end if;
  insert into inbox.span (consumer, number) values (consumer_id, span_number) on conflict do nothing;
  return true;
end
$$;
comment on function inbox.hold_span(integer, integer) is 'Holds a span in memory until the end of the transaction; false: it is forgotten.';

-- The first statement is all that most calls need: the consumer is known and its span is there.
create function inbox.accept(consumer text, dedup_key text, sent_at timestamptz) returns text language plpgsql volatile as $$
declare
  me     integer;
  number integer;
begin
  if pg_catalog.current_setting('synchronous_commit') not in ('on', 'remote_apply') then
    perform inbox.make_durable();
  end if;
  select s.consumer, s.number into me, number
  from inbox.consumer c join inbox.span s on s.consumer = c.id and s.number = inbox.span_of($3, c.span_seconds)
  where c.name = $1 for key share of s;
  if not found then
    select c.id, inbox.span_of($3, c.span_seconds) into me, number from inbox.known($1) c;
    if number is not null and not inbox.hold_span(me, number) then
      insert into inbox.tally (consumer, duplicates, expired) values (me, 0, 1);
      return 'expired';
    end if;
  end if;
  if number is null or $2 is null then
    raise exception 'a message has no deduplication key or no time' using errcode = 'null_value_not_allowed',
      hint = 'Give the header dedup-key and the timestamp of the Kafka record.';
  end if;
  insert into inbox.accepted (consumer, span, dedup_key) values (me, number, $2) on conflict do nothing;
  if found then
    return 'new';
  end if;
  insert into inbox.tally (consumer, duplicates, expired) values (me, 1, 0);
  return 'duplicate';
end
$$;
comment on function inbox.accept(text, text, timestamptz) is
  'In the transaction that handles a message: new, it is to be handled; duplicate, it was handled before, or is by an earlier message '
  'of this transaction; expired, it is older than the memory, and nobody knows. sent_at is the timestamp of the Kafka record.';

create function inbox.accept_all(consumer text, dedup_keys text[], sent_at timestamptz[]) returns text[] language plpgsql volatile as $$
declare
  me       inbox.consumer := inbox.known(accept_all.consumer);
  span     record;
  held     integer[] := '{}';
  verdicts text[];
  met      record;
begin
  perform inbox.make_durable();
  if pg_catalog.cardinality(dedup_keys) <> pg_catalog.cardinality(accept_all.sent_at)
     or pg_catalog.array_position(dedup_keys, null) is not null or pg_catalog.array_position(accept_all.sent_at, null) is not null then
    raise exception 'a message has no deduplication key or no time' using errcode = 'null_value_not_allowed',
      hint = 'Give the header dedup-key and the timestamp of the Kafka record, for each message.';
  end if;
  for span in
    select distinct inbox.span_of(t.at, me.span_seconds) as number from pg_catalog.unnest(accept_all.sent_at) t(at) order by 1
  loop
    if inbox.hold_span(me.id, span.number) then
      held := held || span.number;
    end if;
  end loop;
  -- Sorted, so that two consumers that were given the same messages wait for each other in one order.
  with given as materialized (
    select m.key, m.n, inbox.span_of(m.at, me.span_seconds) as span
    from rows from (pg_catalog.unnest(dedup_keys), pg_catalog.unnest(accept_all.sent_at)) with ordinality as m(key, at, n)),
  fresh as (
    insert into inbox.accepted (consumer, span, dedup_key)
    select me.id, d.span, d.key
    from (select distinct on (g.key collate "C") g.key, g.span from given g where g.span = any (held) order by g.key collate "C", g.n) d
    order by d.key collate "C"
    on conflict do nothing
    returning inbox.accepted.dedup_key)
  select pg_catalog.array_agg(case when not (g.span = any (held)) then 'expired' when f.dedup_key is not null and g.turn = 1 then 'new'
                                   else 'duplicate' end order by g.n)
  into verdicts
  from (select given.key, given.n, given.span,
               pg_catalog.row_number() over (partition by given.key, given.span = any (held) order by given.n) as turn from given) g
  left join fresh f on f.dedup_key = g.key;

  select pg_catalog.count(*) filter (where v.verdict = 'duplicate') as duplicates, pg_catalog.count(*) filter (where v.verdict = 'expired') as expired
  into met from pg_catalog.unnest(verdicts) v(verdict);
  if met.duplicates + met.expired > 0 then
    insert into inbox.tally (consumer, duplicates, expired) values (me.id, met.duplicates, met.expired);
  end if;
  return coalesce(verdicts, '{}');
end
$$;
comment on function inbox.accept_all(text, text[], timestamptz[]) is
  'As accept(), for a whole poll at once: the verdicts in the order of the messages. Equal to calling accept() for one after the other.';

-- The memory is counted back from the newest message, not from now: a consumer that was away for a week has forgotten nothing.
-- The clock only keeps a message from the future from emptying the memory.
create function inbox.prune(consumer text, rows_max integer default 10000) returns bigint language plpgsql volatile as $$
declare
  me     inbox.consumer := inbox.known(prune.consumer);
  target integer;
  gone   bigint;
begin
  select least(pg_catalog.max(s.number), inbox.span_of(pg_catalog.clock_timestamp(), me.span_seconds))
         - pg_catalog.ceil(extract(epoch from me.keep) / me.span_seconds)::integer
  into target from inbox.span s where s.consumer = me.id
  having pg_catalog.max(s.number) is not null;  -- least() passes over nulls
  if target > me.oldest_span then
    update inbox.consumer c set oldest_span = target where c.id = me.id and c.oldest_span < target;
    delete from inbox.span s where s.consumer = me.id and s.number < target;
    me.oldest_span := target;
  end if;
  delete from inbox.accepted a where a.ctid = any (array(
    select d.ctid from inbox.accepted d where d.consumer = me.id and d.span < me.oldest_span limit rows_max));
  get diagnostics gone = row_count;
  if gone > 0 then
    update inbox.consumer c set forgotten = c.forgotten + gone where c.id = me.id;
  end if;
  delete from inbox.tally t where t.consumer = me.id and t.seen_at < pg_catalog.clock_timestamp() - me.keep;
  return gone;
end
$$;
comment on function inbox.prune(text, integer) is
  'Forgets what is older than keep; deletes at most so many rows and says how many. Call it now and then, each time until it returns less.';

-- parked messages ----------------------------------------------------------------------------------------------------

create table inbox.parked (
  id            bigint      generated always as identity primary key,
  consumer      integer     not null references inbox.consumer,
  topic         text        not null,
  "partition"   integer     not null,
  record_offset bigint      not null,
  sent_at       timestamptz not null,
  key           bytea,
  payload       bytea,
  headers       jsonb,
  dedup_key     text,
  error_class   text        not null check (error_class in ('handler', 'malformed', 'expired', 'key_blocked')),
  error_text    text        not null,
  parked_at     timestamptz not null default pg_catalog.clock_timestamp(),
  resolution    text        check (resolution in ('release', 'discard')),
  decided_by    text,
  decided_at    timestamptz,
  decided_why   text,
  handled_at    timestamptz,
  constraint decided_by_somebody check ((resolution is null) = (decided_by is null) and (resolution is null) = (decided_at is null)),
  constraint handled_or_discarded check (handled_at is null or resolution is distinct from 'discard')
);
create index parked_key on inbox.parked (consumer, topic, pg_catalog.sha256(key), id)
  where handled_at is null and resolution is distinct from 'discard' and key is not null;
create index parked_waiting on inbox.parked (consumer, id) where handled_at is null and resolution is distinct from 'discard';
create unique index parked_place on inbox.parked (consumer, topic, "partition", record_offset, sent_at);
comment on table inbox.parked is 'Messages that a consumer accepted and could not handle, each with its reason, until a person decides.';
comment on column inbox.parked.id is 'Number of the parked message; rises in the order of a key.';
comment on column inbox.parked.consumer is 'Who could not handle it.';
comment on column inbox.parked.topic is 'Kafka topic.';
comment on column inbox.parked."partition" is 'Kafka partition.';
comment on column inbox.parked.record_offset is 'Offset of the record.';
comment on column inbox.parked.sent_at is 'Timestamp of the record.';
comment on column inbox.parked.key is 'Key of the record.';
comment on column inbox.parked.payload is 'Value of the record.';
comment on column inbox.parked.headers is 'Headers of the record: an array of [name, value in hexadecimal digits or null].';
comment on column inbox.parked.dedup_key is 'Deduplication key; null: the record has none that could be used.';
comment on column inbox.parked.error_class is
  'handler: the handler refused it; malformed: no usable deduplication key or time; expired: older than the memory; '
  'key_blocked: it waits for an earlier message of its key.';
comment on column inbox.parked.error_text is 'The reason, for a person.';
comment on column inbox.parked.parked_at is 'When it was parked.';
comment on column inbox.parked.resolution is 'release: handle it again; discard: never; null: nobody has decided.';
comment on column inbox.parked.decided_by is 'Who decided.';
comment on column inbox.parked.decided_at is 'When.';
comment on column inbox.parked.decided_why is 'Why.';
comment on column inbox.parked.handled_at is 'When it was handled after all.';
comment on index inbox.parked_key is 'Finds what blocks a key.';
comment on index inbox.parked_place is 'Keeps a record that cannot be accepted, and comes again, from being parked twice.';
comment on index inbox.parked_waiting is 'Finds what waits for a decision, or for the consumer to carry it out.';

create function inbox.keep_handled() returns trigger language plpgsql as $$
begin
  raise exception 'parked message % was % and cannot be changed any more', old.id,
    case when old.handled_at is not null then 'handled' else 'discarded' end using errcode = 'object_not_in_prerequisite_state';
end
$$;
comment on function inbox.keep_handled() is 'Refuses changes of parked messages that are done with.';
create trigger keep_handled before update on inbox.parked
  for each row when (old.handled_at is not null or old.resolution = 'discard') execute function inbox.keep_handled();

create function inbox.park(consumer text, topic text, "partition" integer, record_offset bigint, sent_at timestamptz, key bytea,
                           payload bytea, headers jsonb, dedup_key text, error_class text, error_text text)
returns bigint language sql volatile as $$
  insert into inbox.parked (consumer, topic, "partition", record_offset, sent_at, key, payload, headers, dedup_key, error_class, error_text)
  select c.id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 from inbox.known($1) c
  on conflict do nothing
  returning id
$$;
comment on function inbox.park(text, text, integer, bigint, timestamptz, bytea, bytea, jsonb, text, text, text) is
  'Parks a message, in the transaction that accepted it. Null: this very record is parked already, or was once.';

create function inbox.blocked(consumer text, topics text[], keys bytea[]) returns boolean[] language sql stable as $$
  select coalesce(pg_catalog.array_agg(m.key is not null and exists (
           select from inbox.parked p
           where p.consumer = c.id and p.topic = m.topic and pg_catalog.sha256(p.key) = pg_catalog.sha256(m.key) and p.key = m.key
             and p.handled_at is null and p.resolution is distinct from 'discard') order by m.n), '{}')
  from inbox.known($1) c
  cross join lateral rows from (pg_catalog.unnest($2), pg_catalog.unnest($3)) with ordinality as m(topic, key, n)
$$;
comment on function inbox.blocked(text, text[], bytea[]) is
  'For each (topic, key): whether a message of it is parked and not done with, so that later ones have to wait if order matters.';

create function inbox.decide(ids bigint[], resolution text, decided_by text, why text default null) returns bigint language plpgsql volatile as $$
declare
  changed bigint;
begin
  update inbox.parked p set resolution = decide.resolution, decided_by = decide.decided_by, decided_at = pg_catalog.clock_timestamp(),
                            decided_why = decide.why
  where p.id = any (ids) and p.handled_at is null and p.resolution is null;
  get diagnostics changed = row_count;
  return changed;
end
$$;
comment on function inbox.decide(bigint[], text, text, text) is
  'Decides about parked messages: release or discard. Says how many; those already decided are left out.';

create function inbox.next_released(consumer text, by_key boolean) returns setof inbox.parked language sql volatile as $$
  select p.*
  from inbox.known($1) c
  join inbox.parked p on p.consumer = c.id
  where p.handled_at is null and (p.resolution = 'release' or (p.resolution is null and p.error_class = 'key_blocked'))
    and (not by_key or p.key is null or not exists (
      select from inbox.parked e
      where e.consumer = p.consumer and e.topic = p.topic and pg_catalog.sha256(e.key) = pg_catalog.sha256(p.key) and e.key = p.key
        and e.handled_at is null and e.resolution is distinct from 'discard' and e.id < p.id))
  order by p.id limit 1 for update of p skip locked
$$;
comment on function inbox.next_released(text, boolean) is
  'The next parked message to be handled after all, held until the end of the transaction. What only waited for an earlier message of its '
  'key follows by itself.';

create function inbox.handled(parked_id bigint) returns void language sql volatile as $$
  update inbox.parked set handled_at = pg_catalog.clock_timestamp(),
                          resolution = coalesce(resolution, 'release'), decided_by = coalesce(decided_by, current_user),
                          decided_at = coalesce(decided_at, pg_catalog.clock_timestamp())
  where id = parked_id
$$;
comment on function inbox.handled(bigint) is 'In the transaction that handles a parked message after all: it is done with.';

create function inbox.park_again(parked_id bigint, error_text text) returns void language sql volatile as $$
  update inbox.parked set error_class = 'handler', error_text = $2, parked_at = pg_catalog.clock_timestamp(),
                          resolution = null, decided_by = null, decided_at = null, decided_why = null
  where id = parked_id
$$;
comment on function inbox.park_again(bigint, text) is 'A released message could not be handled either: it waits for another decision.';

create view inbox.statistics as
select c.name as consumer, c.keep,
       case when c.oldest_span > 0 then pg_catalog.to_timestamp(c.oldest_span::double precision * c.span_seconds) end as remembers_since,
       (select pg_catalog.to_timestamp(pg_catalog.max(s.number)::double precision * c.span_seconds) from inbox.span s
        where s.consumer = c.id) as newest_span,
       c.forgotten, coalesce(t.duplicates, 0) as duplicates, coalesce(t.expired, 0) as expired, t.last_repeat_at,
       (select pg_catalog.count(*) from inbox.parked p where p.consumer = c.id and p.handled_at is null and p.resolution is distinct from 'discard')
         as parked
from inbox.consumer c
left join (select y.consumer, pg_catalog.sum(y.duplicates) as duplicates, pg_catalog.sum(y.expired) as expired,
                  pg_catalog.max(y.seen_at) as last_repeat_at from inbox.tally y group by y.consumer) t on t.consumer = c.id;
comment on view inbox.statistics is 'What each consumer remembers, and what it met that it had seen before.';
comment on column inbox.statistics.consumer is 'Name of the consumer.';
comment on column inbox.statistics.keep is 'How far back it is to remember.';
comment on column inbox.statistics.remembers_since is 'Messages sent before are expired; null: nothing was forgotten yet.';
comment on column inbox.statistics.newest_span is 'Begin of the newest span with an accepted message.';
comment on column inbox.statistics.forgotten is 'Messages that were forgotten.';
comment on column inbox.statistics.duplicates is 'Repeats met within the last keep.';
comment on column inbox.statistics.expired is 'Messages met within the last keep that were older than the memory.';
comment on column inbox.statistics.last_repeat_at is 'When the last of either was met.';
comment on column inbox.statistics.parked is 'Messages that wait for a decision, or for the consumer to carry it out.';
