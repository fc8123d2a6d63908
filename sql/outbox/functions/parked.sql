-- SPDX-License-Identifier: Apache-2.0
-- Parked messages: decided rows that were released stay as they are, and what the relay releases
-- next.

create or replace function outbox.keep_released() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'message % was released in batch % and cannot be changed any more',
    old.id, old.released_in using errcode = 'object_not_in_prerequisite_state';
end
$$;
comment on function outbox.keep_released() is
  'Refuses changes of parked messages that were released: a batch that is read again must be '
  'the same.';

do $trigger$
begin
  if not exists (select from pg_catalog.pg_trigger t
                 where t.tgrelid = 'outbox.parked'::regclass and t.tgname = 'keep_released') then
    create trigger keep_released before update on outbox.parked
      for each row when (old.released_in is not null) execute function outbox.keep_released();
  end if;
end
$trigger$;

create or replace function outbox.record_bytes(key bytea, payload bytea, headers jsonb)
returns integer language sql immutable as $$
  select coalesce(pg_catalog.octet_length(key), 0)
         operator(pg_catalog.+) coalesce(pg_catalog.octet_length(payload), 0)
         operator(pg_catalog.+) coalesce(pg_catalog.octet_length(headers::pg_catalog.text), 0)
$$;
comment on function outbox.record_bytes(bytea, bytea, jsonb) is
  'Size of a record, approximately.';

-- What the relay may release next, by seq. A message that waits only for another one (key_blocked)
-- follows the message that it waited for. An undecided message with an error of its own ends the
-- run of its key. Planned again for each call: the plan depends on rows_max.
create or replace function outbox.releasable(by_key boolean, rows_max integer, bytes_max bigint)
returns table (parked_for bigint, seq bigint, bytes bigint, next_leader boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
begin
  return query with decided as materialized (
    select d.parked_for, d.seq, d.topic, d.key,
           case when by_key then pg_catalog.sha256(d.key) end as digest,
           case d.resolution when 'discard' then 0
             when 'edit'
               then outbox.record_bytes(d.edited_key, d.edited_payload, d.edited_headers)
             else outbox.record_bytes(d.key, d.payload, d.headers) end as bytes
    from outbox.parked d
    where d.released_in is null and d.resolution is not null
      and (not by_key or d.key is null or not exists (
        select from outbox.parked u
        where u.topic = d.topic and pg_catalog.sha256(u.key) = pg_catalog.sha256(d.key)
          and u.key = d.key and u.seq < d.seq and u.released_in is null and u.resolution is null
          and u.error_class <> 'key_blocked'))
    order by d.seq limit rows_max),
  keys as materialized (
    select k.topic, k.key, k.digest,
           (select u.seq from outbox.parked u
            where u.topic = k.topic and pg_catalog.sha256(u.key) = k.digest and u.key = k.key
              and u.released_in is null and u.resolution is null
              and u.error_class <> 'key_blocked' order by u.seq limit 1) as stop
    from (select distinct d.topic, d.key, d.digest from decided d where d.digest is not null) k
    where exists (
      select from outbox.parked f
      where f.topic = k.topic and pg_catalog.sha256(f.key) = k.digest and f.key = k.key
        and f.released_in is null and f.resolution is null and f.error_class = 'key_blocked')),
  followers as materialized (
    select f.*
    from keys k cross join lateral (
      select p.parked_for, p.seq, k.topic, k.key, k.digest,
             outbox.record_bytes(p.key, p.payload, p.headers) as bytes
      from outbox.parked p
      where p.topic = k.topic and pg_catalog.sha256(p.key) = k.digest and p.key = k.key
        and p.released_in is null and p.resolution is null and p.error_class = 'key_blocked'
        and p.seq < coalesce(k.stop, 9223372036854775807)
      order by p.seq limit rows_max + 1) f
    order by f.seq limit rows_max),
  candidates as (
    select c.*, pg_catalog.row_number() over (order by c.seq) as place,
           sum(c.bytes) over (order by c.seq) - c.bytes as before
    from (select d.* from decided d union all select f.* from followers f) c),
  chosen as materialized (
    select c.* from candidates c where c.place <= rows_max and c.before < bytes_max)
  select c.parked_for, c.seq, c.bytes::bigint, false from chosen c
  union all
  -- The next follower of each key that was cut short: it counts as decided, so that it leads the
  -- rest of its key.
  select n.parked_for, n.seq, 0, true
  from keys k cross join lateral (
    select p.parked_for, p.seq from outbox.parked p
    where p.topic = k.topic and pg_catalog.sha256(p.key) = k.digest and p.key = k.key
      and p.released_in is null and p.resolution is null and p.error_class = 'key_blocked'
      and p.seq < coalesce(k.stop, 9223372036854775807)
      and p.seq > (select max(c.seq) from chosen c)
    order by p.seq limit 1) n;
end
$$;
comment on function outbox.releasable(boolean, integer, bigint) is
  'Parked messages that a release batch may take now. Rows with next_leader are not in the '
  'batch: they waited for a message of the batch, and come next.';
