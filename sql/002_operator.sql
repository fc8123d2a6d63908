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

-- What the relay may release next: whole keys from their first message on. A message whose fault was another one's
-- (key_blocked) follows the one that it waited for; one that has a fault of its own, and is not decided, ends the run of its key.
create function outbox.releasable(by_key boolean, rows_max integer, bytes_max bigint)
returns table (parked_for bigint, seq bigint, bytes bigint, beyond boolean) language plpgsql stable as $$
declare
  lead  record;
  r     record;
  stop  bigint;
  taken integer := 0;
  total bigint := 0;
begin
  for lead in
    select min(d.seq) as seq, min(d.parked_for) as parked_for, d.topic, d.key
    from (select x.seq, x.parked_for, x.topic, x.key from outbox.parked x
          where x.released_in is null and x.resolution is not null
            and (not by_key or x.key is null or not exists (
              select from outbox.parked u
              where u.topic = x.topic and pg_catalog.sha256(u.key) = pg_catalog.sha256(x.key) and u.key = x.key and u.seq < x.seq
                and u.released_in is null and u.resolution is null and u.error_class <> 'key_blocked'))
          order by x.seq limit rows_max) d
    group by d.topic, d.key, case when not by_key or d.key is null then d.seq end
    order by 1
  loop
    if by_key and lead.key is not null then
      select u.seq into stop from outbox.parked u
      where u.topic = lead.topic and pg_catalog.sha256(u.key) = pg_catalog.sha256(lead.key) and u.key = lead.key
        and u.released_in is null and u.resolution is null and u.error_class <> 'key_blocked'
      order by u.seq limit 1;
    else
      stop := lead.seq + 1;
    end if;
    for r in
      select p.parked_for, p.seq, p.resolution,
             coalesce(pg_catalog.octet_length(case when p.resolution = 'edit' then p.edited_payload else p.payload end), 0) as bytes
      from outbox.parked p
      where p.topic = lead.topic and pg_catalog.sha256(p.key) = pg_catalog.sha256(lead.key) and p.key = lead.key
        and by_key and p.released_in is null and p.seq < coalesce(stop, 9223372036854775807)
      union all
      select p.parked_for, p.seq, p.resolution,
             coalesce(pg_catalog.octet_length(case when p.resolution = 'edit' then p.edited_payload else p.payload end), 0)
      from outbox.parked p
      where p.parked_for = lead.parked_for and p.seq = lead.seq and not (by_key and lead.key is not null)
      order by 2 limit rows_max - taken + 1
    loop
      parked_for := r.parked_for;
      seq := r.seq;
      bytes := r.bytes;
      beyond := taken >= rows_max or total >= bytes_max;
      if beyond and r.resolution is not null then
        return;  -- its decision will lead it
      end if;
      return next;
      if beyond then
        return;
      end if;
      taken := taken + 1;
      if r.resolution is distinct from 'discard' then
        total := total + r.bytes;
      end if;
    end loop;
  end loop;
end
$$;
comment on function outbox.releasable(boolean, integer, bigint) is
  'Parked messages that a release batch may take now. A last row with beyond is not of the batch: it waited for one that is, and comes next.';

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
  why         text        not null,
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
  check (headers is null or not headers ? 'outbox-replay' or has_table_privilege('outbox.replay', 'insert')) not valid;
alter table outbox.scheduled add constraint replay_not_scheduled
  check (headers is null or not headers ? 'outbox-replay') not valid;
