-- SPDX-License-Identifier: Apache-2.0
-- The inbox: which messages a consumer has accepted, how far back it remembers, and messages that
-- it could not handle.
--
-- accept() runs in the transaction of the handler. Accepted messages are kept in spans of time (of
-- sent_at, the timestamp of the Kafka record). prune() expires a span by deleting its rows. The
-- deletion waits for every transaction that accepts into the span, and later transactions find that
-- the span is gone: a duplicate that is older than the memory is `expired`, never `new`. This holds
-- at each isolation level, whatever the clock does.

comment on schema inbox is 'Inbox of consumers: each message is handled once by each consumer.';

-- @include common/schema_version.sql

-- consumer -------------------------------------------------------------------------------------

create table inbox.consumer (
  id            integer     generated always as identity primary key,
  name          text        collate "C" not null unique check (name <> ''),
  keep          interval    not null check (keep > interval '0'),
  span_seconds  integer     not null default 600 check (span_seconds between 1 and 86400),
  oldest_span   integer     not null default 0,
  pruned_to     integer     not null default 0,
  forgotten     bigint      not null default 0,
  registered_at timestamptz not null default pg_catalog.clock_timestamp()
);
comment on table inbox.consumer is 'The consumers. Each consumer has a memory of its own.';
comment on column inbox.consumer.id is 'Its number in the other tables.';
comment on column inbox.consumer.name is 'Its name, as accept() is called with it.';
comment on column inbox.consumer.keep is
  'How far it remembers, counted back from the newest message that it accepted, or from where '
  'the slowest partition was read to, if that is earlier.';
comment on column inbox.consumer.span_seconds is
  'Length of a span; fixed, because it decides which span a message belongs to.';
comment on column inbox.consumer.oldest_span is
  'First span that it remembers; a message of an earlier one is expired.';
comment on column inbox.consumer.pruned_to is
  'First span of which accepted messages may be left; prune() begins there.';
comment on column inbox.consumer.forgotten is 'How many accepted messages were expired.';
comment on column inbox.consumer.registered_at is 'When it was registered.';

-- position -------------------------------------------------------------------------------------

create table inbox.position (
  consumer    integer     not null references inbox.consumer,
  topic       text        collate "C" not null check (topic <> ''),
  "partition" integer     not null,
  read_to     timestamptz not null,
  reported_at timestamptz not null default pg_catalog.clock_timestamp(),
  primary key (consumer, topic, "partition")
);
comment on table inbox.position is
  'How far each partition was read, as consumers report it. The partition that was read least '
  'far decides what is expired.';
comment on column inbox.position.consumer is 'The consumer.';
comment on column inbox.position.topic is 'Kafka topic.';
comment on column inbox.position."partition" is 'Kafka partition.';
comment on column inbox.position.read_to is
  'Messages of the partition that were sent before were read; 1970: not known yet.';
comment on column inbox.position.reported_at is
  'When it was reported. A partition that was not reported for as long as the consumer '
  'remembers is not read any more, and removed.';

-- span -----------------------------------------------------------------------------------------

-- A row that n transactions lock at a time costs each of them a multixact of n members, and
-- PostgreSQL has a bounded number of members. So a span has several rows, one for each slot, and a
-- session locks that of its slot alone.
create table inbox.span (
  consumer integer not null references inbox.consumer,
  number   integer not null,
  slot     integer not null,
  primary key (consumer, number, slot)
);
comment on table inbox.span is
  'Spans of time that a consumer remembers. A transaction that accepts into a span holds a row '
  'of it.';
comment on column inbox.span.consumer is 'The consumer.';
comment on column inbox.span.number is 'Seconds since 1970 divided by the length of a span.';
comment on column inbox.span.slot is 'Slot of the session that added the row (inbox.slot).';

-- topic ----------------------------------------------------------------------------------------

create table inbox.topic (
  id   integer generated always as identity primary key,
  name text    collate "C" not null unique check (name <> '')
);
comment on table inbox.topic is 'The Kafka topics that messages were accepted from.';
comment on column inbox.topic.id is 'Its number in inbox.accepted.';
comment on column inbox.topic.name is 'Its name.';

-- accepted -------------------------------------------------------------------------------------

-- Without foreign keys: their checks would cost as much as the row.
create table inbox.accepted (
  consumer    integer     not null,
  span        integer     not null,
  accepted_at timestamptz not null default pg_catalog.clock_timestamp(),
  topic       integer     not null,
  dedup_key   text        collate "C" not null
                          check (pg_catalog.octet_length(dedup_key) between 1 and 1024),
  primary key (consumer, dedup_key, topic)
);
create index accepted_span on inbox.accepted (consumer, span);

comment on table inbox.accepted is 'One row for each message that a consumer accepted.';
comment on column inbox.accepted.consumer is 'The consumer.';
comment on column inbox.accepted.span is
  'Span of the message; the row is deleted some time after the span was expired.';
comment on column inbox.accepted.accepted_at is
  'When it was accepted, by the clock of the database.';
comment on column inbox.accepted.topic is
  'Its topic, which is part of its identity; 0: it was accepted for all topics.';
comment on column inbox.accepted.dedup_key is
  'Deduplication key of the message (1 to 1024 bytes).';
comment on index inbox.accepted_span is 'Finds what is to be deleted.';

-- tally ----------------------------------------------------------------------------------------

create table inbox.tally (
  id         bigint      generated always as identity primary key,
  consumer   integer     not null references inbox.consumer,
  seen_at    timestamptz not null default pg_catalog.clock_timestamp(),
  duplicates integer     not null,
  expired    integer     not null
);
create index tally_seen on inbox.tally (consumer, seen_at);

comment on table inbox.tally is
  'One row for each call of accept that met duplicates. Counting them in one row would make '
  'transactions wait for each other.';
comment on column inbox.tally.id is 'Number of the row.';
comment on column inbox.tally.consumer is 'The consumer.';
comment on column inbox.tally.seen_at is 'When they were met.';
comment on column inbox.tally.duplicates is 'Messages that had been accepted before.';
comment on column inbox.tally.expired is 'Messages that were older than the memory.';
comment on index inbox.tally_seen is 'Finds what is to be expired.';

-- parked ---------------------------------------------------------------------------------------

create table inbox.parked (
  id            bigint      generated always as identity primary key,
  consumer      integer     not null references inbox.consumer,
  topic         text        collate "C" not null,
  "partition"   integer     not null,
  record_offset bigint      not null,
  sent_at       timestamptz not null,
  key           bytea,
  payload       bytea,
  headers       jsonb,
  dedup_key     text        collate "C",
  error_class   text        collate "C" not null
                            check (error_class in ('handler', 'malformed', 'expired',
                                                   'key_blocked')),
  error_text    text        not null,
  parked_at     timestamptz not null default pg_catalog.clock_timestamp(),
  resolution    text        check (resolution in ('release', 'discard')),
  decided_by    text,
  decided_at    timestamptz,
  decided_why   text,
  handled_at    timestamptz,
  constraint decided_by_somebody
    check ((resolution is null) = (decided_by is null)
           and (resolution is null) = (decided_at is null)),
  constraint handled_or_discarded
    check (handled_at is null or resolution is distinct from 'discard')
);
create index parked_key on inbox.parked (consumer, topic, pg_catalog.sha256(key), id)
  where handled_at is null and resolution is distinct from 'discard' and key is not null;
create index parked_waiting on inbox.parked (consumer, id)
  where handled_at is null and resolution is distinct from 'discard';
create index parked_due on inbox.parked (consumer, id)
  where handled_at is null
        and (resolution = 'release' or (resolution is null and error_class = 'key_blocked'));
create index parked_done on inbox.parked (consumer, (coalesce(handled_at, decided_at)))
  where handled_at is not null or resolution = 'discard';
create unique index parked_place
  on inbox.parked (consumer, topic, "partition", record_offset, sent_at);

comment on table inbox.parked is
  'Messages that a consumer accepted and could not handle, each with its reason, until an '
  'operator decides. prune() deletes them some time after they were handled or discarded.';
comment on column inbox.parked.id is 'Number of the parked message; rises in the order of a key.';
comment on column inbox.parked.consumer is 'The consumer that could not handle it.';
comment on column inbox.parked.topic is 'Kafka topic.';
comment on column inbox.parked."partition" is 'Kafka partition.';
comment on column inbox.parked.record_offset is 'Offset of the record.';
comment on column inbox.parked.sent_at is 'Timestamp of the record.';
comment on column inbox.parked.key is 'Key of the record.';
comment on column inbox.parked.payload is 'Value of the record.';
comment on column inbox.parked.headers is
  'Headers of the record: an array of [name, value in hexadecimal digits or null].';
comment on column inbox.parked.dedup_key is
  'Deduplication key; null: the record has none that could be used.';
comment on column inbox.parked.error_class is
  'handler: the handler refused it; malformed: no usable deduplication key or time; expired: '
  'older than the memory; key_blocked: it waits for an earlier message of its key.';
comment on column inbox.parked.error_text is 'The reason, for the operator.';
comment on column inbox.parked.parked_at is 'When it was parked.';
comment on column inbox.parked.resolution is
  'release: handle it again; discard: never; null: undecided.';
comment on column inbox.parked.decided_by is 'Who decided.';
comment on column inbox.parked.decided_at is 'When it was decided.';
comment on column inbox.parked.decided_why is 'Why, in the words of the operator.';
comment on column inbox.parked.handled_at is 'When it was handled after all.';
comment on index inbox.parked_key is 'Finds what blocks a key.';
comment on index inbox.parked_place is
  'Prevents that a record without a usable deduplication key is parked twice.';
comment on index inbox.parked_waiting is
  'Finds what waits for a decision, or for the consumer to execute it.';
comment on index inbox.parked_due is 'Finds what is to be handled again.';
comment on index inbox.parked_done is 'Finds what is to be deleted.';
