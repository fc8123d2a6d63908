-- SPDX-License-Identifier: Apache-2.0
-- The outbox: messages, the journal of batches, the lease, parked and scheduled messages, replays.
--
-- The applications write to message, and retention deletes from it. The relay writes batch, lease
-- and parked. Operators decide in parked and write replay. See docs/protocol.md.

comment on schema outbox is
  'Transactional outbox: messages written here are published to Kafka by outbox-relay.';

-- @include common/schema_version.sql

-- PostgreSQL 18 has uuidv7(). Before it, the time becomes the first 48 bits of a random UUID. The
-- function is to be inlined, so that it names the operator's schema in place of a search_path.
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
                       (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())
                        operator(pg_catalog.*) 1000::double precision)::bigint), 3),
                     1, 6), 52, 1), 53, 1), 'hex')::pg_catalog.uuid $b$ $f$;
  end if;
end
$uuid7$;
comment on function outbox.uuid7() is
  'A new time-ordered UUID (version 7), so that the index on message ids grows at one end.';

-- message --------------------------------------------------------------------------------------

create table outbox.message (
  seq        bigint      generated always as identity (cache 1) primary key,
  txid       xid8        not null default pg_catalog.pg_current_xact_id(),
  id         uuid        not null default outbox.uuid7(),
  topic      text        collate "C" not null,
  key        bytea,
  payload    bytea,
  headers    jsonb,
  dedup_key  text        collate "C" check (pg_catalog.octet_length(dedup_key) between 1 and 1024),
  created_at timestamptz not null default pg_catalog.clock_timestamp()
);
create index message_txid_seq on outbox.message (txid, seq);
create index message_id on outbox.message (id);
create index message_dedup_key on outbox.message (dedup_key) where dedup_key is not null;

-- Rows written elsewhere (logical replication, a restore, an UPDATE) would carry a foreign
-- transaction id, and the relay would skip them. Not validated, so that pg_dump writes the
-- constraint after the data.
alter table outbox.message
  add constraint own_txid check (txid = pg_catalog.pg_current_xact_id()) not valid;
-- Only roles that may record a replay may write its header. Not validated, as above.
alter table outbox.message
  add constraint replay_by_operator
    check (headers is null or not headers ? 'outbox-replay'
           or has_any_column_privilege('outbox.replay', 'insert')) not valid;
-- The relay reads topic, key and headers whole, whatever delivery.message_bytes_max is. A replay
-- repeats a message and adds a header, so its bounds are wider.
alter table outbox.message
  add constraint topic_at_most_1024_bytes check (pg_catalog.octet_length(topic) <= 1024) not valid,
  add constraint key_at_most_1_mib
    check (pg_catalog.octet_length(key) <= 1048576
           or coalesce(headers ? 'outbox-replay', false)) not valid,
  add constraint headers_at_most_1_mib
    check (pg_catalog.octet_length(headers::text) <= 1048576
           or headers ? 'outbox-replay') not valid;

comment on table outbox.message is
  'One row per message. Rows are only inserted, and later deleted by retention: never updated, '
  'locked or claimed.';
comment on column outbox.message.seq is
  'Order of the message within its difference of snapshots; drawn before commit.';
comment on column outbox.message.txid is
  'The transaction that wrote the row; decides in which difference of snapshots it is '
  'delivered.';
comment on column outbox.message.id is
  'Identity of the message; the deduplication key unless dedup_key is given.';
comment on column outbox.message.topic is 'Kafka topic. At most 1024 bytes; Kafka takes 249.';
comment on column outbox.message.key is
  'Kafka record key (at most 1 MiB); messages of one (topic, key) keep their order. Null: no '
  'order. Bytes: for text there are enqueue() and outbox.text_message.';
comment on column outbox.message.payload is
  'Kafka record value. Null: a tombstone. Bytes: a text literal would be read in the input syntax '
  'of bytea, where a backslash begins an escape; see outbox.text_message.';
comment on column outbox.message.headers is
  'JSON object of strings: further Kafka headers (at most 1 MiB). dedup-key, sent-at, outbox-* '
  'and effect-* are reserved.';
comment on column outbox.message.dedup_key is
  'Deduplication key (1 to 1024 bytes), sent as the header dedup-key. Null: the id.';
comment on column outbox.message.created_at is
  'When the row was written, by the clock of the database.';

-- batch ----------------------------------------------------------------------------------------

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

comment on table outbox.batch is
  'The journal: one row per batch. The newest stream batch is the whole position of the relay.';
comment on column outbox.batch.number is 'Rises with time; gaps are allowed.';
comment on column outbox.batch.epoch is 'Epoch of the lease under which the batch was opened.';
comment on column outbox.batch.token is
  'Identity of the batch; the progress record in Kafka carries it.';
comment on column outbox.batch.kind is
  'stream: read from outbox.message by snapshots; release: parked messages sent after a '
  'decision.';
comment on column outbox.batch.mode is
  'Mode in which the batch was opened. It decides how the batch is recovered.';
comment on column outbox.batch.base is
  'Everything visible in this snapshot is delivered or parked.';
comment on column outbox.batch.upto is
  'The batch holds rows visible in this snapshot and not in base.';
comment on column outbox.batch.fresh_from is
  'Smallest seq of the fresh rows of the difference, less one; null where they are few and '
  'found by transaction id.';
comment on column outbox.batch.after_seq is
  'The batch holds rows of the difference with a seq above this.';
comment on column outbox.batch.upto_seq is 'Seq of the last row of the batch.';
comment on column outbox.batch.exhausted is
  'True: nothing of the difference is left; the next base is upto.';
comment on column outbox.batch.messages is
  'Rows of the page, those parked for this batch included.';
comment on column outbox.batch.bytes is 'Bytes of keys, payloads and headers of the page.';
comment on column outbox.batch.opened_at is
  'When the batch was opened; the timestamp of its Kafka records.';
comment on column outbox.batch.delivered_at is
  'When the batch was known to be delivered; null: in flight or in doubt.';
comment on column outbox.batch.offsets is
  'Topic, partition, [first offset, last offset]; null where recovery found the batch '
  'delivered.';
comment on index outbox.batch_open is 'Finds the batch in flight or in doubt.';

-- lease ----------------------------------------------------------------------------------------

create table outbox.lease (
  only_row   boolean     primary key default true check (only_row),
  relay      text,
  holder     text,
  epoch      bigint      not null default 0,
  expires_at timestamptz not null default '-infinity',
  cluster    bigint
) with (fillfactor = 20);
insert into outbox.lease default values;

comment on table outbox.lease is
  'One row: which relay process may write to the journal. Each write locks it and compares the '
  'epoch.';
comment on column outbox.lease.only_row is 'Keeps the table at one row.';
comment on column outbox.lease.relay is
  'Name of the relay that this outbox belongs to; set by its first run.';
comment on column outbox.lease.holder is 'Process that holds the lease.';
comment on column outbox.lease.epoch is 'Rises with each take-over; never falls.';
comment on column outbox.lease.expires_at is
  'When the lease expires, by the clock of the database.';
comment on column outbox.lease.cluster is
  'System identifier of the database cluster to which the transaction ids belong.';

-- parked ---------------------------------------------------------------------------------------

create table outbox.parked (
  parked_for     bigint      not null,
  seq            bigint      not null,
  txid           xid8        not null,
  id             uuid        not null,
  topic          text        collate "C" not null,
  key            bytea,
  payload        bytea,
  headers        jsonb,
  dedup_key      text        collate "C",
  created_at     timestamptz not null,
  released_in    bigint,
  error_class    text        collate "C" not null,
  error_text     text        not null,
  parked_at      timestamptz not null default pg_catalog.clock_timestamp(),
  resolution     text        check (resolution in ('release', 'discard', 'edit')),
  decided_by     text,
  decided_at     timestamptz,
  decided_why    text,
  edited_topic   text        collate "C",
  edited_key     bytea,
  edited_payload bytea,
  edited_headers jsonb,
  primary key (parked_for, seq),
  constraint edited_or_not
    check ((resolution is not distinct from 'edit') = (edited_topic is not null)),
  constraint decided_by_somebody
    check (resolution is null or (decided_by is not null and decided_at is not null)),
  constraint released_by_decision check (released_in is null or resolution is not null),
  constraint topic_at_most_1024_bytes check (pg_catalog.octet_length(edited_topic) <= 1024),
  constraint key_at_most_1_mib check (pg_catalog.octet_length(edited_key) <= 1048576),
  constraint headers_at_most_1_mib
    check (pg_catalog.octet_length(edited_headers::text) <= 1048576
           or edited_headers ? 'outbox-replay')
);
create index parked_id on outbox.parked (id);
create index parked_seq on outbox.parked (seq);
create index parked_dedup_key on outbox.parked (dedup_key) where dedup_key is not null;
create index parked_released on outbox.parked (released_in, seq) where released_in is not null;
create index parked_unreleased on outbox.parked (topic, error_class) where released_in is null;
create index parked_key on outbox.parked (topic, pg_catalog.sha256(key), seq)
  where released_in is null and key is not null;
create index parked_undecided on outbox.parked (topic, pg_catalog.sha256(key), seq)
  where released_in is null and resolution is null and error_class <> 'key_blocked'
        and key is not null;
create index parked_decided on outbox.parked (seq)
  where released_in is null and resolution is not null;
create index parked_too_old on outbox.parked (seq)
  where released_in is null and resolution is null and error_class = 'too_old';
create index parked_followers on outbox.parked (topic, pg_catalog.sha256(key), seq)
  where released_in is null and resolution is null and error_class = 'key_blocked'
        and key is not null;

comment on table outbox.parked is
  'Messages that could not be sent (dead-lettered), each with its reason, until an operator '
  'decides. Nothing is dropped.';
comment on column outbox.parked.parked_for is
  'Number of the batch to which the message belonged.';
comment on column outbox.parked.seq is 'As in outbox.message, like the columns after it.';
comment on column outbox.parked.txid is 'As in outbox.message.';
comment on column outbox.parked.id is 'As in outbox.message.';
comment on column outbox.parked.topic is 'As in outbox.message.';
comment on column outbox.parked.key is 'As in outbox.message.';
comment on column outbox.parked.payload is 'As in outbox.message.';
comment on column outbox.parked.headers is 'As in outbox.message.';
comment on column outbox.parked.dedup_key is 'As in outbox.message.';
comment on column outbox.parked.created_at is 'As in outbox.message.';
comment on column outbox.parked.released_in is
  'Number of the release batch that executed the decision; the row is immutable from then on.';
comment on column outbox.parked.error_class is
  'too_large, bad_headers, topic_invalid, topic_not_allowed, topic_missing, '
  'topic_unauthorized, too_old, refused or key_blocked.';
comment on column outbox.parked.error_text is 'What happened, for the operator.';
comment on column outbox.parked.parked_at is 'When it was parked.';
comment on column outbox.parked.resolution is
  'The decision of an operator: release, discard or edit; null: undecided.';
comment on column outbox.parked.decided_by is 'Who decided.';
comment on column outbox.parked.decided_at is 'When it was decided.';
comment on column outbox.parked.decided_why is 'Why, in the words of the operator.';
comment on column outbox.parked.edited_topic is
  'With resolution edit: what is sent in place of topic, key, payload and headers, which stay '
  'as they were.';
comment on column outbox.parked.edited_key is 'See edited_topic.';
comment on column outbox.parked.edited_payload is 'See edited_topic.';
comment on column outbox.parked.edited_headers is 'See edited_topic.';
comment on index outbox.parked_key is 'Finds what blocks a key, and its messages in their order.';
comment on index outbox.parked_undecided is
  'Finds the first message of a key that waits for a decision.';
comment on index outbox.parked_decided is 'Finds decisions that are not executed yet.';
comment on index outbox.parked_followers is
  'Finds what waits only for another message of its key.';

-- scheduled ------------------------------------------------------------------------------------

-- The relay must be able to move each row into outbox.message, and may not record a replay.
create table outbox.scheduled (
  id         uuid        primary key default outbox.uuid7(),
  deliver_at timestamptz not null,
  seq        bigint      generated always as identity,
  topic      text        collate "C" not null,
  key        bytea,
  payload    bytea,
  headers    jsonb,
  dedup_key  text        collate "C" check (pg_catalog.octet_length(dedup_key) between 1 and 1024),
  created_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint topic_at_most_1024_bytes check (pg_catalog.octet_length(topic) <= 1024),
  constraint key_at_most_1_mib check (pg_catalog.octet_length(key) <= 1048576),
  constraint headers_at_most_1_mib check (pg_catalog.octet_length(headers::text) <= 1048576),
  constraint replay_not_scheduled check (headers is null or not headers ? 'outbox-replay')
);
create index scheduled_due on outbox.scheduled (deliver_at, seq);
create index scheduled_dedup_key on outbox.scheduled (dedup_key) where dedup_key is not null;

comment on table outbox.scheduled is
  'Messages that are to be delivered later. The relay moves them into outbox.message when due.';
comment on column outbox.scheduled.id is 'Id of the message; kept when it is moved.';
comment on column outbox.scheduled.deliver_at is
  'Not to be delivered before, by the clock of the database.';
comment on column outbox.scheduled.seq is 'Order among messages due at the same time.';
comment on column outbox.scheduled.topic is 'As in outbox.message, like the columns after it.';
comment on column outbox.scheduled.key is 'As in outbox.message.';
comment on column outbox.scheduled.payload is 'As in outbox.message.';
comment on column outbox.scheduled.headers is 'As in outbox.message.';
comment on column outbox.scheduled.dedup_key is 'As in outbox.message.';
comment on column outbox.scheduled.created_at is 'When it was scheduled.';

-- replay ---------------------------------------------------------------------------------------

create table outbox.replay (
  number      bigint      generated always as identity primary key,
  since       timestamptz not null,
  until       timestamptz not null,
  topic       text        collate "C",
  asked_by    text        not null,
  asked_at    timestamptz not null default pg_catalog.clock_timestamp(),
  why         text,
  upto_batch  bigint,
  messages    bigint      not null default 0,
  finished_at timestamptz
);
comment on table outbox.replay is
  'Replays: delivered messages that were enqueued again, each with the number of its replay in '
  'the header outbox-replay.';
comment on column outbox.replay.number is 'Number of the replay.';
comment on column outbox.replay.since is 'Messages of batches opened at this time or later,';
comment on column outbox.replay.until is 'and before this one.';
comment on column outbox.replay.topic is 'Only of this topic; null: of all.';
comment on column outbox.replay.asked_by is 'Who asked for it.';
comment on column outbox.replay.asked_at is 'When it was asked for.';
comment on column outbox.replay.why is 'Why, in the words of the operator.';
comment on column outbox.replay.upto_batch is
  'The last batch whose messages were enqueued again, in the same commit.';
comment on column outbox.replay.messages is 'How many messages were enqueued again.';
comment on column outbox.replay.finished_at is
  'When it was complete; null: it runs, or was interrupted.';

-- What status_of*() return --------------------------------------------------------------------

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
  'Where a message is, as status_of() answers.';
comment on column outbox.message_state.id is 'Identity of the message.';
comment on column outbox.message_state.seq is 'As outbox.message.seq; null: scheduled.';
comment on column outbox.message_state.topic is 'Kafka topic, the edited one if it was edited.';
comment on column outbox.message_state.dedup_key is 'Its deduplication key; null: the id.';
comment on column outbox.message_state.state is
  'pending: not read yet; sending: its batch is in flight; in_doubt: its batch is, until a relay '
  'has recovered it; delivered: it is in Kafka; parked; discarded; scheduled.';
comment on column outbox.message_state.batch is 'Number of its batch in outbox.batch.';
comment on column outbox.message_state.opened_at is 'When the batch was opened.';
comment on column outbox.message_state.delivered_at is
  'When the batch was known to be delivered.';
comment on column outbox.message_state.reason is
  'Why it is parked or discarded, or when it is due.';
