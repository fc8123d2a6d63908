#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A consumer in Python: the inbox is SQL, so that any language can use it.

    consumer.py BROKERS GROUP DSN TOPIC...

Counts messages by key in a table: create table received (id bigint generated always as identity,
key bytea). Its login has the role inbox_consumer. Ends on SIGINT or SIGTERM. Needs psycopg2 and
confluent-kafka (Debian: python3-psycopg2, python3-confluent-kafka).

It parks what it cannot accept. What its handler cannot handle stops it here; outbox::Consumer shows
how to isolate the message.
"""

import json
import signal
import sys
import time

import confluent_kafka
import psycopg2

BATCH_MESSAGES_MAX = 500
PRUNE_SECONDS = 60


def handle(cursor, record):
    cursor.execute("insert into received (key) values (%s)", (record.key(),))


def header(record, name):
    values = [value for header_name, value in record.headers() or [] if header_name == name]
    return values[-1].decode() if values and values[-1] is not None else None


def sent_at(record):
    """Seconds since 1970. Where the topic keeps the time of arrival, the relay's own is in a
    header.
    """
    own = header(record, "sent-at")
    return int(own if own is not None else record.timestamp()[1]) / 1000


def park(cursor, group, record, error_class, error_text):
    headers = json.dumps([[name, value and value.hex()] for name, value in record.headers() or []])
    cursor.execute(
        "select inbox.park(%s, %s, %s, %s, to_timestamp(%s), %s, %s, %s, %s, %s, %s)",
        (
            group,
            record.topic(),
            record.partition(),
            record.offset(),
            sent_at(record),
            record.key(),
            record.value(),
            headers,
            header(record, "dedup-key"),
            error_class,
            error_text,
        ),
    )


def settle(connection, group, records):
    """One transaction: what is new is handled, what was handled before is passed over, nobody is
    left out.
    """
    with connection, connection.cursor() as cursor:
        usable = [r for r in records if header(r, "dedup-key")]
        cursor.execute(
            "select inbox.accept_all(%s, %s::text[], %s::text[], array(select to_timestamp(t) from unnest(%s::float8[]) t))",
            (
                group,
                [r.topic() for r in usable],
                [header(r, "dedup-key") for r in usable],
                [sent_at(r) for r in usable],
            ),
        )
        verdicts = dict(zip(map(id, usable), cursor.fetchone()[0]))
        for record in records:
            verdict = verdicts.get(id(record), "malformed")
            if verdict == "new":
                handle(cursor, record)
            elif verdict != "duplicate":
                park(
                    cursor,
                    group,
                    record,
                    verdict,
                    "no dedup-key" if verdict == "malformed" else "older than the inbox remembers",
                )


class Positions:
    """How far each partition was read: the inbox expires nothing that a slow one may still deliver."""

    def __init__(self):
        self.read_to = {}  # seconds since 1970, of the last record
        self.ends = {}  # offset of the end, where it was reached

    def note(self, records):
        for record in records:
            place = (record.topic(), record.partition())
            if record.error():
                if record.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    self.ends[place] = record.offset()
            else:
                self.ends.pop(place, None)
                self.read_to[place] = sent_at(record)

    def report(self, cursor, group, consumer):
        assigned = consumer.assignment()
        times = []
        for p in assigned:
            place = (p.topic, p.partition)
            # What an open transaction hides lies behind the end that is seen.
            high = consumer.get_watermark_offsets(p, cached=True)[1]
            ended = self.ends.get(place) == high
            times.append(time.time() if ended else self.read_to.get(place))
        cursor.execute(
            "select inbox.report(%s, %s::text[], %s::int[], array(select to_timestamp(t) from unnest(%s::float8[]) t))",
            (group, [p.topic for p in assigned], [p.partition for p in assigned], times),
        )


def main(brokers, group, dsn, topics):
    stopping = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.append(True))
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("select inbox.register(%s)", (group,))
    # Offsets follow the commit of the transaction: what Kafka delivers again, the inbox knows.
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 10000,
        }
    )
    positions = Positions()
    reassigned = []
    consumer.subscribe(topics, on_assign=lambda *_: reassigned.append(True))
    prune_at = time.monotonic() + PRUNE_SECONDS
    while not stopping:
        polled = consumer.consume(BATCH_MESSAGES_MAX, timeout=0.1)
        records = [r for r in polled if not r.error()]
        if records:
            settle(connection, group, records)
            consumer.commit(asynchronous=True)
        positions.note(polled)
        due = time.monotonic() >= prune_at
        if due or reassigned:
            with connection, connection.cursor() as cursor:
                positions.report(cursor, group, consumer)
                if due:
                    cursor.execute("select inbox.prune(%s)", (group,))
            reassigned.clear()
        if due:
            prune_at = time.monotonic() + PRUNE_SECONDS
    consumer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
