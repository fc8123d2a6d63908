-- SPDX-License-Identifier: Apache-2.0
-- The outbox: messages, the journal of batches, the lease, parked and scheduled messages.

-- The schema itself exists already: init creates it, because its owner need not have rights on the database.
comment on schema outbox is 'Transactional outbox: messages written here are published to Kafka by outbox-relay.';

create table outbox.schema_version (
  number     integer     primary key,
  name       text        not null,
  applied_at timestamptz not null default pg_catalog.clock_timestamp()
);
comment on table outbox.schema_version is 'Migrations that have been applied; outbox-relay refuses a number that it does not know.';
comment on column outbox.schema_version.number is 'Number of the migration.';
comment on column outbox.schema_version.name is 'Its name.';
comment on column outbox.schema_version.applied_at is 'When it was applied.';

-- PostgreSQL 18 has a version 7 generator of its own; before it, the time goes into the first 48 bits of a random UUID.
do $uuid7$
begin
  if pg_catalog.current_setting('server_version_num')::integer >= 180000 then
    execute $f$
      create function outbox.uuid7() returns uuid language sql volatile parallel safe
      return pg_catalog.uuidv7() $f$;
  else
    execute $f$
      create function outbox.uuid7() returns uuid language sql volatile parallel safe as $b$
        select pg_catalog.encode(
                 pg_catalog.set_bit(pg_catalog.set_bit(
                   pg_catalog.overlay(pg_catalog.uuid_send(pg_catalog.gen_random_uuid()),
                     pg_catalog.substr(pg_catalog.int8send(
                       (extract(epoch from pg_catalog.clock_timestamp()) * 1000)::bigint), 3),
                     1, 6), 52, 1), 53, 1), 'hex')::uuid $b$ $f$;
  end if;
end
$uuid7$;
comment on function outbox.uuid7() is 'A new time-ordered UUID (version 7), so that the index on message ids grows at one end.';

create table outbox.message (
  seq        bigint      generated always as identity (cache 1) primary key,
  txid       xid8        not null default pg_catalog.pg_current_xact_id(),
  id         uuid        not null default outbox.uuid7(),
  topic      text        not null,
  key        bytea,
  payload    bytea,
  headers    jsonb,
  dedup_key  text        check (pg_catalog.octet_length(dedup_key) <= 1024),
  created_at timestamptz not null default pg_catalog.clock_timestamp()
);
create index message_txid_seq on outbox.message (txid, seq);
create index message_id on outbox.message (id);
create index message_dedup_key on outbox.message (dedup_key) where dedup_key is not null;
-- Rows that come from elsewhere (logical replication, a careless restore or UPDATE) would carry a foreign transaction id
-- and be skipped in silence. Not validated, so that pg_dump writes it after the data.
alter table outbox.message add constraint own_txid check (txid = pg_catalog.pg_current_xact_id()) not valid;

comment on table outbox.message is 'One row per message. Rows are only inserted, and later deleted by retention: never updated, locked or claimed.';
comment on column outbox.message.seq is 'Order of the message within its difference of snapshots; drawn before commit.';
comment on column outbox.message.txid is 'The transaction that wrote the row; decides in which difference of snapshots it is delivered.';
comment on column outbox.message.id is 'Identity of the message; the deduplication key unless dedup_key is given.';
comment on column outbox.message.topic is 'Kafka topic.';
comment on column outbox.message.key is 'Kafka record key; messages of one (topic, key) keep their order. Null: no order.';
comment on column outbox.message.payload is 'Kafka record value. Null: a tombstone.';
comment on column outbox.message.headers is 'JSON object of strings: further Kafka headers. dedup-key, sent-at, outbox-* and effect-* are reserved.';
comment on column outbox.message.dedup_key is 'Deduplication key (at most 1024 bytes) that consumers see in the header dedup-key. Null: the id.';
comment on column outbox.message.created_at is 'When the row was written, by the clock of the database.';

create table outbox.batch (
  number       bigint      primary key,
  epoch        bigint      not null,
  token        uuid        not null unique,
  kind         text        not null check (kind in ('stream', 'release')),
  mode         text        not null check (mode in ('exactly-once', 'at-least-once')),
  base         pg_snapshot not null,
  upto         pg_snapshot not null,
  fresh_from   bigint,
  after_seq    bigint      not null,
  upto_seq     bigint      not null,
  exhausted    boolean     not null,
  messages     integer     not null,
  bytes        bigint      not null,
  opened_at    timestamptz not null default pg_catalog.clock_timestamp(),
  delivered_at timestamptz,
  offsets      jsonb
) with (fillfactor = 80);
create index batch_open on outbox.batch (number) where delivered_at is null;

comment on table outbox.batch is 'The journal: one row per batch. The newest stream batch is the whole position of the relay.';
comment on column outbox.batch.number is 'Rises with time; gaps are allowed.';
comment on column outbox.batch.epoch is 'Epoch of the lease under which the batch was opened.';
comment on column outbox.batch.token is 'Identity of the batch; the progress record in Kafka carries it.';
comment on column outbox.batch.kind is 'stream: read from outbox.message by snapshots; release: parked messages sent after a decision.';
comment on column outbox.batch.mode is 'The mode in which the batch was opened decides how it is recovered.';
comment on column outbox.batch.base is 'Everything visible in this snapshot is delivered or parked.';
comment on column outbox.batch.upto is 'The batch holds rows visible in this snapshot and not in base.';
comment on column outbox.batch.fresh_from is
  'Smallest seq of the fresh rows of the difference, less one; null where they are few and found by transaction id.';
comment on column outbox.batch.after_seq is 'The batch holds rows of the difference with a seq above this.';
comment on column outbox.batch.upto_seq is 'Seq of the last row of the batch.';
comment on column outbox.batch.exhausted is 'True: nothing of the difference is left; the next base is upto.';
comment on column outbox.batch.messages is 'Rows of the page, those parked for this batch included.';
comment on column outbox.batch.bytes is 'Bytes of keys, payloads and headers of the page.';
comment on column outbox.batch.opened_at is 'When the batch was opened; the timestamp of its Kafka records.';
comment on column outbox.batch.delivered_at is 'When the batch was known to be delivered; null: in flight or in doubt.';
comment on column outbox.batch.offsets is 'Topic, partition, [first offset, last offset]; null where recovery found the batch delivered.';
comment on index outbox.batch_open is 'Finds the batch in flight or in doubt.';

create table outbox.lease (
  only_row   boolean     primary key default true check (only_row),
  relay      text,
  holder     text,
  epoch      bigint      not null default 0,
  expires_at timestamptz not null default '-infinity',
  cluster    bigint
) with (fillfactor = 20);
insert into outbox.lease default values;

comment on table outbox.lease is 'One row: which relay process may write to the journal. Each write locks it and compares the epoch.';
comment on column outbox.lease.only_row is 'Keeps the table at one row.';
comment on column outbox.lease.relay is 'Name of the relay that this outbox belongs to; set by its first run.';
comment on column outbox.lease.holder is 'Process that holds the lease.';
comment on column outbox.lease.epoch is 'Rises with each take-over; never falls.';
comment on column outbox.lease.expires_at is 'By the clock of the database.';
comment on column outbox.lease.cluster is 'System identifier of the database cluster to which the transaction ids belong.';

create table outbox.parked (
  parked_for  bigint      not null,
  seq         bigint      not null,
  txid        xid8        not null,
  id          uuid        not null,
  topic       text        not null,
  key         bytea,
  payload     bytea,
  headers     jsonb,
  dedup_key   text,
  created_at  timestamptz not null,
  released_in bigint,
  error_class text        not null,
  error_text  text        not null,
  parked_at   timestamptz not null default pg_catalog.clock_timestamp(),
  resolution  text        check (resolution in ('release', 'discard', 'edit')),
  decided_by  text,
  decided_at  timestamptz,
  decided_why text,
  primary key (parked_for, seq)
);
create index parked_id on outbox.parked (id);
create index parked_seq on outbox.parked (seq);
create index parked_dedup_key on outbox.parked (dedup_key) where dedup_key is not null;
create index parked_released on outbox.parked (released_in, seq) where released_in is not null;
create index parked_key on outbox.parked (topic, pg_catalog.sha256(key)) where released_in is null and key is not null;
create index parked_unreleased on outbox.parked (topic, error_class) where released_in is null;

comment on table outbox.parked is 'Messages that could not be sent, each with its reason, until a person decides. Nothing is dropped.';
comment on column outbox.parked.parked_for is 'Number of the batch to which the message belonged.';
comment on column outbox.parked.seq is 'As in outbox.message, like the columns after it.';
comment on column outbox.parked.txid is 'As in outbox.message.';
comment on column outbox.parked.id is 'As in outbox.message.';
comment on column outbox.parked.topic is 'As in outbox.message.';
comment on column outbox.parked.key is 'As in outbox.message.';
comment on column outbox.parked.payload is 'As in outbox.message.';
comment on column outbox.parked.headers is 'As in outbox.message.';
comment on column outbox.parked.dedup_key is 'As in outbox.message.';
comment on column outbox.parked.created_at is 'As in outbox.message.';
comment on column outbox.parked.released_in is 'Number of the release batch that carried it out; the row is immutable from then on.';
comment on column outbox.parked.error_class is
  'too_large, bad_headers, topic_invalid, topic_not_allowed, topic_missing, topic_unauthorized, refused or key_blocked.';
comment on column outbox.parked.error_text is 'What happened, for a person.';
comment on column outbox.parked.parked_at is 'When it was parked.';
comment on column outbox.parked.resolution is 'The decision of an operator.';
comment on column outbox.parked.decided_by is 'Who decided.';
comment on column outbox.parked.decided_at is 'When it was decided.';
comment on column outbox.parked.decided_why is 'Why, in the words of the operator.';

create table outbox.scheduled (
  id         uuid        primary key default outbox.uuid7(),
  deliver_at timestamptz not null,
  seq        bigint      generated always as identity,
  topic      text        not null,
  key        bytea,
  payload    bytea,
  headers    jsonb,
  dedup_key  text        check (pg_catalog.octet_length(dedup_key) <= 1024),
  created_at timestamptz not null default pg_catalog.clock_timestamp()
);
create index scheduled_due on outbox.scheduled (deliver_at, seq);
create index scheduled_dedup_key on outbox.scheduled (dedup_key) where dedup_key is not null;

comment on table outbox.scheduled is 'Messages that are to be delivered later; the relay moves them into outbox.message when they are due.';
comment on column outbox.scheduled.id is 'Kept by the message.';
comment on column outbox.scheduled.deliver_at is 'Not to be delivered before, by the clock of the database.';
comment on column outbox.scheduled.seq is 'Order among messages due at the same time.';
comment on column outbox.scheduled.topic is 'As in outbox.message, like the columns after it.';
comment on column outbox.scheduled.key is 'As in outbox.message.';
comment on column outbox.scheduled.payload is 'As in outbox.message.';
comment on column outbox.scheduled.headers is 'As in outbox.message.';
comment on column outbox.scheduled.dedup_key is 'As in outbox.message.';
comment on column outbox.scheduled.created_at is 'When it was scheduled.';

-- enqueue ------------------------------------------------------------------------------------------------------------

create function outbox.enqueue(topic text, key bytea, payload bytea, headers jsonb default null,
                               dedup_key text default null, deliver_at timestamptz default null)
returns uuid language plpgsql as $$
declare
  new_id uuid;
begin
  if enqueue.deliver_at is null then
    insert into outbox.message (topic, key, payload, headers, dedup_key)
    values (enqueue.topic, enqueue.key, enqueue.payload, enqueue.headers, enqueue.dedup_key)
    returning message.id into new_id;
  else
    insert into outbox.scheduled (deliver_at, topic, key, payload, headers, dedup_key)
    values (enqueue.deliver_at, enqueue.topic, enqueue.key, enqueue.payload, enqueue.headers, enqueue.dedup_key)
    returning scheduled.id into new_id;
  end if;
  return new_id;
end
$$;
create function outbox.enqueue(topic text, key text, payload text, headers jsonb default null,
                               dedup_key text default null, deliver_at timestamptz default null)
returns uuid language plpgsql as $$
begin
  return outbox.enqueue(topic, pg_catalog.convert_to(key, 'UTF8'), pg_catalog.convert_to(payload, 'UTF8'),
                        headers, dedup_key, deliver_at);
end
$$;
create function outbox.enqueue(topic text, key text, payload jsonb, headers jsonb default null,
                               dedup_key text default null, deliver_at timestamptz default null)
returns uuid language plpgsql as $$
begin
  return outbox.enqueue(topic, pg_catalog.convert_to(key, 'UTF8'), pg_catalog.convert_to(payload::text, 'UTF8'),
                        headers, dedup_key, deliver_at);
end
$$;
comment on function outbox.enqueue(text, bytea, bytea, jsonb, text, timestamptz) is
  'Writes a message in the calling transaction and returns its id. For order within a key, lock the key first.';
comment on function outbox.enqueue(text, text, text, jsonb, text, timestamptz) is
  'As enqueue(text, bytea, bytea), key and payload as UTF-8 text.';
comment on function outbox.enqueue(text, text, jsonb, jsonb, text, timestamptz) is
  'As enqueue(text, bytea, bytea), key as UTF-8 text and payload as JSON text. A value of type json needs a cast.';

-- Where is one message? ----------------------------------------------------------------------------------------------

create type outbox.message_state as (
  id           uuid,
  seq          bigint,
  topic        text,
  dedup_key    text,
  state        text,
  batch        bigint,
  opened_at    timestamptz,
  delivered_at timestamptz,
  reason       text
);
comment on type outbox.message_state is
  'state is pending, sending, in_doubt, delivered, parked or scheduled; reason says why a message is parked.';

create function outbox.batch_covers(b outbox.batch, message_txid xid8, message_seq bigint)
returns boolean language sql immutable as $$
  select pg_catalog.pg_visible_in_snapshot(message_txid, b.base)
      or (pg_catalog.pg_visible_in_snapshot(message_txid, b.upto) and (b.exhausted or message_seq <= b.upto_seq))
$$;
comment on function outbox.batch_covers(outbox.batch, xid8, bigint) is
  'Whether the message is in this batch or in an earlier one. Monotone in the number of the batch.';

create function outbox.batch_of(message_txid xid8, message_seq bigint)
returns bigint language plpgsql stable as $$
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
      select x.number into low from outbox.batch x where x.number > middle order by x.number limit 1;
    end if;
  end loop;
  return low;
end
$$;
comment on function outbox.batch_of(xid8, bigint) is
  'The batch that a message belongs to, found by bisecting the journal; null: not read yet.';

create function outbox.batch_state(b outbox.batch, l outbox.lease)
returns text language sql stable as $$
  select case when b.number is null then 'pending'
              when b.delivered_at is not null then 'delivered'
              when l.epoch = b.epoch and l.expires_at > pg_catalog.clock_timestamp() then 'sending'
              else 'in_doubt' end
$$;
comment on function outbox.batch_state(outbox.batch, outbox.lease) is
  'The state of the messages of this batch; no batch: pending.';

-- A parked message is answered for by its newest parking, also when retention has removed its row of outbox.message: what a
-- person has to decide about does not fall into oblivion.
create function outbox.status_of_seq(message_seq bigint)
returns setof outbox.message_state language sql stable as $$
  select coalesce(m.id, p.id), message_seq, coalesce(m.topic, p.topic), coalesce(m.dedup_key, p.dedup_key),
         case when p.seq is not null and p.released_in is null then 'parked' else outbox.batch_state(b, l) end,
         b.number, b.opened_at, b.delivered_at,
         case when p.released_in is null then p.error_class || ': ' || p.error_text end
  from outbox.lease l
  left join (select w.id, w.txid, w.topic, w.dedup_key from outbox.message w where w.seq = message_seq) m on true
  left join (select k.seq, k.id, k.topic, k.dedup_key, k.parked_for, k.released_in, k.error_class, k.error_text from outbox.parked k
             where k.seq = message_seq order by k.parked_for desc limit 1) p on true
  left join outbox.batch b on b.number = coalesce(p.released_in, p.parked_for, outbox.batch_of(m.txid, message_seq))
  where m.id is not null or p.id is not null
$$;
comment on function outbox.status_of_seq(bigint) is
  'The state of the message with this seq; no row: no committed message has it, or retention removed it.';

create function outbox.status_of(message_id uuid)
returns setof outbox.message_state language sql stable as $$
  select s.* from (select m.seq from outbox.message m where m.id = message_id
                   union select p.seq from outbox.parked p where p.id = message_id) f
  cross join lateral outbox.status_of_seq(f.seq) s
  union all
  select w.id, null, w.topic, w.dedup_key, 'scheduled', null, null, null,
         'due at ' || w.deliver_at::text from outbox.scheduled w where w.id = message_id
$$;
comment on function outbox.status_of(uuid) is 'The state of the message with this id; no row: no committed message has it, or retention removed it.';

create function outbox.status_of_key(message_dedup_key text)
returns setof outbox.message_state language sql stable as $$
  select s.* from (select m.seq from outbox.message m where m.dedup_key = message_dedup_key
                   union select p.seq from outbox.parked p where p.dedup_key = message_dedup_key) f
  cross join lateral outbox.status_of_seq(f.seq) s
  union all
  select w.id, null, w.topic, w.dedup_key, 'scheduled', null, null, null,
         'due at ' || w.deliver_at::text from outbox.scheduled w where w.dedup_key = message_dedup_key
$$;
comment on function outbox.status_of_key(text) is 'The states of the messages with this dedup_key.';
