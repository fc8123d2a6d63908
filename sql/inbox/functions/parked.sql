-- SPDX-License-Identifier: Apache-2.0
-- Parked messages: parking, decisions, and handling what was released.

create or replace function inbox.keep_handled() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'parked message % was % and cannot be changed any more', old.id,
    case when old.handled_at is not null then 'handled' else 'discarded' end
    using errcode = 'object_not_in_prerequisite_state';
end
$$;
comment on function inbox.keep_handled() is
  'Refuses changes of parked messages that were handled or discarded.';

create or replace function inbox.keep_waiting() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'parked message % waits and cannot be deleted', old.id
    using errcode = 'object_not_in_prerequisite_state',
          hint = 'Release it, or discard it: select inbox.decide(...).';
end
$$;
comment on function inbox.keep_waiting() is
  'Refuses to delete parked messages that were neither handled nor discarded.';

do $trigger$
begin
  if not exists (select from pg_catalog.pg_trigger t
                 where t.tgrelid = 'inbox.parked'::regclass and t.tgname = 'keep_handled') then
    create trigger keep_handled before update on inbox.parked
      for each row when (old.handled_at is not null or old.resolution = 'discard')
      execute function inbox.keep_handled();
  end if;
  if not exists (select from pg_catalog.pg_trigger t
                 where t.tgrelid = 'inbox.parked'::regclass and t.tgname = 'keep_waiting') then
    create trigger keep_waiting before delete on inbox.parked
      for each row when (old.handled_at is null and old.resolution is distinct from 'discard')
      execute function inbox.keep_waiting();
  end if;
end
$trigger$;

create or replace function inbox.park(
  consumer text, topic text, "partition" integer, record_offset bigint, sent_at timestamptz,
  key bytea, payload bytea, headers jsonb, dedup_key text, error_class text, error_text text)
returns bigint language sql volatile
set search_path = pg_catalog, pg_temp as $$
  insert into inbox.parked (consumer, topic, "partition", record_offset, sent_at, key, payload,
                            headers, dedup_key, error_class, error_text)
  select c.id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 from inbox.known($1) c
  on conflict do nothing
  returning id
$$;
comment on function inbox.park(
  text, text, integer, bigint, timestamptz, bytea, bytea, jsonb, text, text, text) is
  'Parks a message, in the transaction that accepted it. Null: this very record is parked '
  'already, or was once.';

create or replace function inbox.blocked(consumer text, topics text[], keys bytea[])
returns boolean[] language sql stable
set search_path = pg_catalog, pg_temp as $$
  select coalesce(pg_catalog.array_agg(m.key is not null and exists (
           select from inbox.parked p
           where p.consumer = c.id and p.topic = m.topic
             and pg_catalog.sha256(p.key) = pg_catalog.sha256(m.key) and p.key = m.key
             and p.handled_at is null and p.resolution is distinct from 'discard')
           order by m.n), '{}')
  from inbox.known($1) c
  cross join lateral rows from (pg_catalog.unnest($2), pg_catalog.unnest($3))
             with ordinality as m(topic, key, n)
$$;
comment on function inbox.blocked(text, text[], bytea[]) is
  'For each (topic, key): whether a message of it is parked and neither handled nor discarded, '
  'so that later messages must wait if order matters.';

create or replace function inbox.decide(
  ids bigint[], resolution text, decided_by text, why text default null)
returns bigint language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  changed bigint;
begin
  update inbox.parked p
  set resolution = decide.resolution, decided_by = decide.decided_by,
      decided_at = pg_catalog.clock_timestamp(), decided_why = decide.why
  where p.id = any (ids) and p.handled_at is null and p.resolution is null;
  get diagnostics changed = row_count;
  return changed;
end
$$;
comment on function inbox.decide(bigint[], text, text, text) is
  'Decides about parked messages: release or discard. Returns how many; messages that were '
  'decided before are not changed.';

create or replace function inbox.next_released(
  consumer text, by_key boolean, behind bigint default 0)
returns setof inbox.parked language sql volatile
set search_path = pg_catalog, pg_temp as $$
  select p.*
  from inbox.parked p
  where p.consumer = (select c.id from inbox.known($1) c) and p.id > $3
    and p.handled_at is null
    and (p.resolution = 'release' or (p.resolution is null and p.error_class = 'key_blocked'))
    and (not by_key or p.key is null or not exists (
      select from inbox.parked e
      where e.consumer = p.consumer and e.topic = p.topic
        and pg_catalog.sha256(e.key) = pg_catalog.sha256(p.key) and e.key = p.key
        and e.handled_at is null and e.resolution is distinct from 'discard' and e.id < p.id))
  order by p.id limit 1 for update of p skip locked
$$;
comment on function inbox.next_released(text, boolean, bigint) is
  'The next parked message after number behind that is to be handled again, locked until the '
  'end of the transaction. Messages that only waited for an earlier message of their key '
  'follow without a decision.';

create or replace function inbox.handled(parked_id bigint)
returns void language sql volatile
set search_path = pg_catalog, pg_temp as $$
  update inbox.parked
  set handled_at = pg_catalog.clock_timestamp(), resolution = coalesce(resolution, 'release'),
      decided_by = coalesce(decided_by, current_user),
      decided_at = coalesce(decided_at, pg_catalog.clock_timestamp())
  where id = parked_id
$$;
comment on function inbox.handled(bigint) is
  'Records that a parked message was handled after all, in the transaction that handles it.';

create or replace function inbox.park_again(parked_id bigint, error_text text)
returns void language sql volatile
set search_path = pg_catalog, pg_temp as $$
  update inbox.parked
  set error_class = 'handler', error_text = $2, parked_at = pg_catalog.clock_timestamp(),
      resolution = null, decided_by = null, decided_at = null, decided_why = null
  where id = parked_id
$$;
comment on function inbox.park_again(bigint, text) is
  'Records that a released message could not be handled either: it waits for another decision.';
