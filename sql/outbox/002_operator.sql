-- SPDX-License-Identifier: Apache-2.0
-- What operators do: decisions about parked messages, which the relay carries out as batches of kind release; and replay.

alter table outbox.parked
  add column edited_topic   text,
  add column edited_key     bytea,
  add column edited_payload bytea,
  add column edited_headers jsonb,
  add constraint edited_or_not check ((resolution is not distinct from 'edit') = (edited_topic is not null)),
  add constraint decided_by_somebody check (resolution is null or (decided_by is not null and decided_at is not null)),
  add constraint released_by_decision check (released_in is null or resolution is not null);
comment on column outbox.parked.edited_topic is
  'With resolution edit: what is sent in place of topic, key, payload and headers, which stay as they were.';
comment on column outbox.parked.edited_key is 'See edited_topic.';
comment on column outbox.parked.edited_payload is 'See edited_topic.';
comment on column outbox.parked.edited_headers is 'See edited_topic.';

drop index outbox.parked_key;
create index parked_key on outbox.parked (topic, pg_catalog.sha256(key), seq) where released_in is null and key is not null;
create index parked_undecided on outbox.parked (topic, pg_catalog.sha256(key), seq)
  where released_in is null and resolution is null and error_class <> 'key_blocked' and key is not null;
create index parked_decided on outbox.parked (seq) where released_in is null and resolution is not null;
comment on index outbox.parked_key is 'Finds what blocks a key, and its messages in their order.';
comment on index outbox.parked_undecided is 'Finds the first message of a key that waits for a decision.';
comment on index outbox.parked_decided is 'Finds decisions that are not carried out.';

create function outbox.keep_released() returns trigger language plpgsql as $$
begin
  raise exception 'message % was released in batch % and cannot be changed any more', old.id, old.released_in
    using errcode = 'object_not_in_prerequisite_state';
end
$$;
comment on function outbox.keep_released() is 'Refuses changes of parked messages that were released: a batch that is read again must be the same.';
create trigger keep_released before update on outbox.parked
  for each row when (old.released_in is not null) execute function outbox.keep_released();

create index parked_followers on outbox.parked (topic, pg_catalog.sha256(key), seq)
  where released_in is null and resolution is null and error_class = 'key_blocked' and key is not null;
comment on index outbox.parked_followers is 'Finds what waits only for another message of its key.';

-- What the relay may release next, by seq. A message whose only fault is another one's (key_blocked) follows the one that it waited
-- for; one that has a fault of its own, and is not decided, ends the run of its key.
create function outbox.releasable(by_key boolean, rows_max integer, bytes_max bigint)
returns table (parked_for bigint, seq bigint, bytes bigint, beyond boolean) language sql stable as $$
  with decided as materialized (
    select d.parked_for, d.seq, d.topic, d.key, case when by_key then pg_catalog.sha256(d.key) end as digest,
           case when d.resolution = 'discard' then 0
                else coalesce(pg_catalog.octet_length(case when d.resolution = 'edit' then d.edited_payload else d.payload end), 0) end as bytes
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
      select p.parked_for, p.seq, k.topic, k.key, k.digest, coalesce(pg_catalog.octet_length(p.payload), 0) as bytes from outbox.parked p
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

-- A released message is answered for by what became of it; an edited one by what it became.
create or replace function outbox.status_of_seq(message_seq bigint)
returns setof outbox.message_state language sql stable as $$
  select coalesce(m.id, p.id), message_seq, coalesce(p.sent_to, m.topic), coalesce(m.dedup_key, p.dedup_key),
         case when p.seq is not null and p.released_in is null then 'parked'
              when p.resolution = 'discard' then 'discarded'
              else outbox.batch_state(b, l) end,
         b.number, b.opened_at, b.delivered_at,
         case when p.released_in is null then p.error_class || ': ' || p.error_text
              when p.resolution = 'discard' then 'discarded by ' || p.decided_by || coalesce(': ' || p.decided_why, '') end
  from outbox.lease l
  left join (select w.id, w.txid, w.topic, w.dedup_key from outbox.message w where w.seq = message_seq) m on true
  left join (select k.seq, k.id, k.dedup_key, k.parked_for, k.released_in, k.error_class, k.error_text, k.resolution, k.decided_by,
                    k.decided_why, case when k.released_in is null then k.topic else coalesce(k.edited_topic, k.topic) end as sent_to
             from outbox.parked k where k.seq = message_seq order by k.parked_for desc limit 1) p on true
  left join outbox.batch b on b.number = coalesce(p.released_in, p.parked_for, outbox.batch_of(m.txid, message_seq))
  where m.id is not null or p.id is not null
$$;
comment on function outbox.status_of_seq(bigint) is
  'The state of the message with this seq; no row: no committed message has it, or retention removed it.';
comment on type outbox.message_state is
  'state is pending, sending, in_doubt, delivered, parked, discarded or scheduled; reason says why a message is parked or discarded.';

-- replay -------------------------------------------------------------------------------------------------------------

create table outbox.replay (
  number      bigint      generated always as identity primary key,
  since       timestamptz not null,
  until       timestamptz not null,
  topic       text,
  asked_by    text        not null,
  asked_at    timestamptz not null default pg_catalog.clock_timestamp(),
  why         text,
  upto_batch  bigint,
  messages    bigint      not null default 0,
  finished_at timestamptz
);
comment on table outbox.replay is
  'Replays: delivered messages that were enqueued again, each with the number of its replay in the header outbox-replay.';
comment on column outbox.replay.number is 'Number of the replay.';
comment on column outbox.replay.since is 'Messages of batches opened at this time or later …';
comment on column outbox.replay.until is '… and before this one.';
comment on column outbox.replay.topic is 'Only of this topic; null: of all.';
comment on column outbox.replay.asked_by is 'Who asked for it.';
comment on column outbox.replay.asked_at is 'When.';
comment on column outbox.replay.why is 'Why, in the words of the operator.';
comment on column outbox.replay.upto_batch is 'The last batch whose messages were enqueued again, in the same commit.';
comment on column outbox.replay.messages is 'How many messages were enqueued again.';
comment on column outbox.replay.finished_at is 'When it was complete; null: it was interrupted, or goes on.';

-- Only who may record a replay can say that a message is one. Not validated, like own_txid: nothing is there to be checked.
alter table outbox.message add constraint replay_by_operator
  check (headers is null or not headers ? 'outbox-replay' or has_any_column_privilege('outbox.replay', 'insert')) not valid;
-- The relay must be able to move what it finds there, and may not record a replay.
update outbox.scheduled set headers = case pg_catalog.jsonb_typeof(headers) when 'string' then '""' else headers - 'outbox-replay' end
where headers ? 'outbox-replay';
alter table outbox.scheduled add constraint replay_not_scheduled
  check (headers is null or not headers ? 'outbox-replay') not valid;
