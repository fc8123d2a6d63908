-- SPDX-License-Identifier: Apache-2.0
-- Where is one message? The state is computed from the journal, so that delivery writes no row.

create or replace function outbox.batch_covers(
  b outbox.batch, message_txid xid8, message_seq bigint)
returns boolean language sql immutable as $$
  select pg_catalog.pg_visible_in_snapshot(message_txid, b.base)
      or (pg_catalog.pg_visible_in_snapshot(message_txid, b.upto)
          and (b.exhausted or message_seq operator(pg_catalog.<=) b.upto_seq))
$$;
comment on function outbox.batch_covers(outbox.batch, xid8, bigint) is
  'Whether the message is in this batch or in an earlier one. Monotone in the number of the '
  'batch.';

create or replace function outbox.batch_of(message_txid xid8, message_seq bigint)
returns bigint language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
declare
  low    bigint;
  high   bigint;
  middle bigint;
  b      outbox.batch;
begin
  select x.* into b from outbox.batch x order by x.number desc limit 1;
  if b.number is null or not outbox.batch_covers(b, message_txid, message_seq) then
    return null;
  end if;
  high := b.number;
  select x.number into low from outbox.batch x order by x.number limit 1;
  while low < high loop  -- the first batch that covers the message is in [low, high]
    middle := low + (high - low) / 2;
    select x.* into b from outbox.batch x where x.number <= middle order by x.number desc limit 1;
    if outbox.batch_covers(b, message_txid, message_seq) then
      high := b.number;
    else
      select x.number into low from outbox.batch x
      where x.number > middle order by x.number limit 1;
    end if;
  end loop;
  return low;
end
$$;
comment on function outbox.batch_of(xid8, bigint) is
  'The batch that a message belongs to, found by bisecting the journal; null: not read yet.';

create or replace function outbox.batch_state(b outbox.batch, l outbox.lease)
returns text language sql stable
set search_path = pg_catalog, pg_temp as $$
  select case when b.number is null then 'pending'
              when b.delivered_at is not null then 'delivered'
              when l.epoch = b.epoch and l.expires_at > pg_catalog.clock_timestamp() then 'sending'
              else 'in_doubt' end
$$;
comment on function outbox.batch_state(outbox.batch, outbox.lease) is
  'The state of the messages of this batch; no batch: pending.';

-- A parked message has the state of its newest row in outbox.parked, also when retention has
-- removed its row of outbox.message: an open decision stays visible. A released message has the
-- state of its release batch, and an edited one the topic that it was sent to.
create or replace function outbox.status_of_seq(message_seq bigint)
returns setof outbox.message_state language sql stable
set search_path = pg_catalog, pg_temp as $$
  select coalesce(m.id, p.id), message_seq, coalesce(p.sent_to, m.topic),
         coalesce(m.dedup_key, p.dedup_key),
         case when p.seq is not null and p.released_in is null then 'parked'
              when p.resolution = 'discard' then 'discarded'
              else outbox.batch_state(b, l) end,
         b.number, b.opened_at, b.delivered_at,
         case when p.released_in is null then p.error_class || ': ' || p.error_text
              when p.resolution = 'discard'
                then 'discarded by ' || p.decided_by || coalesce(': ' || p.decided_why, '') end
  from outbox.lease l
  left join (select w.id, w.txid, w.topic, w.dedup_key
             from outbox.message w where w.seq = message_seq) m on true
  left join (select k.seq, k.id, k.dedup_key, k.parked_for, k.released_in, k.error_class,
                    k.error_text, k.resolution, k.decided_by, k.decided_why,
                    case when k.released_in is null then k.topic
                         else coalesce(k.edited_topic, k.topic) end as sent_to
             from outbox.parked k where k.seq = message_seq
             order by k.parked_for desc limit 1) p on true
  left join outbox.batch b
    on b.number = coalesce(p.released_in, p.parked_for, outbox.batch_of(m.txid, message_seq))
  where m.id is not null or p.id is not null
$$;
comment on function outbox.status_of_seq(bigint) is
  'The state of the message with this seq; no row: no committed message has it, or retention '
  'removed it.';

create or replace function outbox.status_of(message_id uuid)
returns setof outbox.message_state language sql stable
set search_path = pg_catalog, pg_temp as $$
  select s.* from (select m.seq from outbox.message m where m.id = message_id
                   union select p.seq from outbox.parked p where p.id = message_id) f
  cross join lateral outbox.status_of_seq(f.seq) s
  union all
  select w.id, null, w.topic, w.dedup_key, 'scheduled', null, null, null,
         'due at ' || w.deliver_at::text from outbox.scheduled w where w.id = message_id
$$;
comment on function outbox.status_of(uuid) is
  'The state of the message with this id; no row: no committed message has it, or retention '
  'removed it.';

create or replace function outbox.status_of_key(message_dedup_key text)
returns setof outbox.message_state language sql stable
set search_path = pg_catalog, pg_temp as $$
  select s.* from (select m.seq from outbox.message m where m.dedup_key = message_dedup_key
                   union select p.seq from outbox.parked p where p.dedup_key = message_dedup_key) f
  cross join lateral outbox.status_of_seq(f.seq) s
  union all
  select w.id, null, w.topic, w.dedup_key, 'scheduled', null, null, null,
         'due at ' || w.deliver_at::text from outbox.scheduled w
  where w.dedup_key = message_dedup_key
$$;
comment on function outbox.status_of_key(text) is
  'The states of the messages with this dedup_key.';

-- PostgreSQL's own answer: a backend that has written its commit and waits for a standby has not
-- ended, so that nobody takes it for aborted.
create or replace function outbox.commit_status(transaction xid8)
returns text language sql volatile
set search_path = pg_catalog, pg_temp as $$
  select coalesce(pg_catalog.pg_xact_status(transaction), 'unknown')
$$;
comment on function outbox.commit_status(xid8) is
  'What became of a transaction: committed, aborted, in progress, or unknown if it is too old. Ask '
  'for pg_current_xact_id() before COMMIT; if the connection breaks in COMMIT, ask this on a new '
  'one until the answer is not "in progress". It holds as long as the server is the same, or a '
  'successor that has all its commits.';
