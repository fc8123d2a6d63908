-- SPDX-License-Identifier: Apache-2.0
-- Bounds of what enters the relay whole: a payload above delivery.message_bytes_max does not. Not validated where there may be many rows.

-- The relay must be able to move what it finds there.
alter table outbox.scheduled
  add constraint topic_at_most_1024_bytes check (pg_catalog.octet_length(topic) <= 1024),
  add constraint key_at_most_1_mib check (pg_catalog.octet_length(key) <= 1048576),
  add constraint headers_at_most_1_mib check (pg_catalog.octet_length(headers::text) <= 1048576);
alter table outbox.parked
  add constraint topic_at_most_1024_bytes check (pg_catalog.octet_length(edited_topic) <= 1024),
  add constraint key_at_most_1_mib check (pg_catalog.octet_length(edited_key) <= 1048576),
  add constraint headers_at_most_1_mib
    check (pg_catalog.octet_length(edited_headers::text) <= 1048576 or edited_headers ? 'outbox-replay');
-- Last, because applications wait from here on. A replay, which only operators may write, repeats what there is, and adds a header.
alter table outbox.message
  add constraint topic_at_most_1024_bytes check (pg_catalog.octet_length(topic) <= 1024) not valid,
  add constraint key_at_most_1_mib
    check (pg_catalog.octet_length(key) <= 1048576 or coalesce(headers ? 'outbox-replay', false)) not valid,
  add constraint headers_at_most_1_mib
    check (pg_catalog.octet_length(headers::text) <= 1048576 or headers ? 'outbox-replay') not valid;
comment on column outbox.message.topic is 'Kafka topic. At most 1024 bytes; Kafka takes 249.';
comment on column outbox.message.key is
  'Kafka record key (at most 1 MiB); messages of one (topic, key) keep their order. Null: no order.';
comment on column outbox.message.headers is
  'JSON object of strings: further Kafka headers (at most 1 MiB). dedup-key, sent-at, outbox-* and effect-* are reserved.';

create function outbox.record_bytes(key bytea, payload bytea, headers jsonb) returns integer language sql immutable as $$
  select coalesce(pg_catalog.octet_length(key), 0) + coalesce(pg_catalog.octet_length(payload), 0)
         + coalesce(pg_catalog.octet_length(headers::text), 0)
$$;
comment on function outbox.record_bytes(bytea, bytea, jsonb) is 'What a record takes, nearly.';

-- As it was, but keys and headers count as well.
create or replace function outbox.releasable(by_key boolean, rows_max integer, bytes_max bigint)
returns table (parked_for bigint, seq bigint, bytes bigint, beyond boolean) language sql stable as $$
  with decided as materialized (
    select d.parked_for, d.seq, d.topic, d.key, case when by_key then pg_catalog.sha256(d.key) end as digest,
           case d.resolution when 'discard' then 0
             when 'edit' then outbox.record_bytes(d.edited_key, d.edited_payload, d.edited_headers)
             else outbox.record_bytes(d.key, d.payload, d.headers) end as bytes
    from outbox.parked d
    where d.released_in is null and d.resolution is not null
      and (not by_key or d.key is null or not exists (
        select from outbox.parked u where u.topic = d.topic and pg_catalog.sha256(u.key) = pg_catalog.sha256(d.key) and u.key = d.key
          and u.seq < d.seq and u.released_in is null and u.resolution is null and u.error_class <> 'key_blocked'))
    order by d.seq limit rows_max),
  keys as materialized (
    select k.topic, k.key, k.digest,
           (select u.seq from outbox.parked u where u.topic = k.topic and pg_catalog.sha256(u.key) = k.digest and u.key = k.key
              and u.released_in is null and u.resolution is null and u.error_class <> 'key_blocked' order by u.seq limit 1) as stop
    from (select distinct d.topic, d.key, d.digest from decided d where d.digest is not null) k
    where exists (select from outbox.parked f where f.topic = k.topic and pg_catalog.sha256(f.key) = k.digest and f.key = k.key
                    and f.released_in is null and f.resolution is null and f.error_class = 'key_blocked')),
  followers as materialized (
    select f.*
    from keys k cross join lateral (
      select p.parked_for, p.seq, k.topic, k.key, k.digest, outbox.record_bytes(p.key, p.payload, p.headers) as bytes from outbox.parked p
      where p.topic = k.topic and pg_catalog.sha256(p.key) = k.digest and p.key = k.key
        and p.released_in is null and p.resolution is null and p.error_class = 'key_blocked' and p.seq < coalesce(k.stop, 9223372036854775807)
      order by p.seq limit rows_max + 1) f
    order by f.seq limit rows_max),
  candidates as (
    select c.*, pg_catalog.row_number() over (order by c.seq) as place, sum(c.bytes) over (order by c.seq) - c.bytes as before
    from (select d.* from decided d union all select f.* from followers f) c),
  chosen as materialized (
    select c.* from candidates c where c.place <= rows_max and c.before < bytes_max)
  select c.parked_for, c.seq, c.bytes::bigint, false from chosen c
  union all
  -- The next follower of each key that was cut short: it is decided from now on, so that it leads the rest.
  select n.parked_for, n.seq, 0, true
  from keys k cross join lateral (
    select p.parked_for, p.seq from outbox.parked p
    where p.topic = k.topic and pg_catalog.sha256(p.key) = k.digest and p.key = k.key
      and p.released_in is null and p.resolution is null and p.error_class = 'key_blocked' and p.seq < coalesce(k.stop, 9223372036854775807)
      and p.seq > (select max(c.seq) from chosen c)
    order by p.seq limit 1) n
$$;
comment on function outbox.releasable(boolean, integer, bigint) is
  'Parked messages that a release batch may take now. Rows with beyond are not of the batch: they waited for one that is, and come next.';
