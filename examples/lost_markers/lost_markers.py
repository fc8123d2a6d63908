#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shows what becomes of a Kafka transaction when one of its partitions has no leader at its end;
see docs/lost-markers.md.

    lost_markers.py --bootstrap HOST:PORT,... --broker ID --stop COMMAND --start COMMAND
                    [--end commit | abort] [--then commit | abort]

    --broker ID      the broker to be stopped; a new topic's only partition lives there
    --stop, --start  what stops and starts it, for a shell
    --end            how the transaction ends. Defaults to commit
    --then           how the next one of the same producer ends, which writes to the same partition.
                     Defaults to commit

Exits with 0 if what was committed was seen and nothing else, with 1 if messages were lost, late, or
seen though they were aborted. Needs confluent-kafka (Debian: python3-confluent-kafka), and a
cluster of three brokers whose log of transactions survives without one.
"""

import argparse
import subprocess
import sys
import time
import uuid

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

SECONDS = 60  # the bound of each wait


def until(what, ready):
    end = time.monotonic() + SECONDS
    while not ready():
        if time.monotonic() > end:
            sys.exit(f"gave up waiting: {what}")
        time.sleep(0.2)


def write(producer, topic, values):
    for value in values:
        producer.produce(topic, value.encode())
    if producer.flush(SECONDS) > 0:
        sys.exit("the messages were not delivered in time")


def finish(producer, how):
    (producer.commit_transaction if how == "commit" else producer.abort_transaction)(SECONDS)


def leader_of(admin, topic):
    try:
        return admin.list_topics(topic, timeout=5).topics[topic].partitions[0].leader
    except (KafkaException, KeyError):
        return None


def seen(bootstrap, topic, isolation):
    """All that a consumer sees up to the end that it is given."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": topic,
            "isolation.level": isolation,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    values, end = [], time.monotonic() + SECONDS
    while time.monotonic() < end:
        record = consumer.poll(0.5)
        if record is not None and record.error() is None:
            values.append(record.value().decode())
        elif record is not None and record.error().code() == KafkaError._PARTITION_EOF:
            break
    consumer.close()
    return values


def words(values):
    return " ".join(values) or "nothing"


def run(options):
    topic = "lost-markers-" + uuid.uuid4().hex[:8]
    admin = AdminClient({"bootstrap.servers": options.bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=1, replica_assignment=[[options.broker]])])[
        topic
    ].result(SECONDS)
    until("the topic has its leader", lambda: leader_of(admin, topic) == options.broker)
    producer = Producer({"bootstrap.servers": options.bootstrap, "transactional.id": topic})
    producer.init_transactions(SECONDS)

    producer.begin_transaction()
    n = ["n0", "n1", "n2", "n3"]
    write(producer, topic, n)
    print(f"n     n0 to n3 written, and acknowledged by broker {options.broker}")
    subprocess.run(options.stop, shell=True, check=True, stdout=subprocess.DEVNULL)
    until("the partition has no leader", lambda: leader_of(admin, topic) == -1)
    print("gone  the broker is stopped, the partition has no leader")
    finish(producer, options.end)
    print(f"n     {options.end} says OK")
    kept = n if options.end == "commit" else []

    subprocess.run(options.start, shell=True, check=True, stdout=subprocess.DEVNULL)
    until("all messages are there", lambda: seen(options.bootstrap, topic, "read_uncommitted") == n)
    end = time.monotonic() + 5  # a marker that is under way gets there
    while (
        before := seen(options.bootstrap, topic, "read_committed")
    ) != kept and time.monotonic() < end:
        time.sleep(0.2)
    print(f"back  the broker runs; read_committed sees {words(before)}")

    producer.begin_transaction()
    write(producer, topic, ["m0"])
    finish(producer, options.then)
    print(f"n+1   m0 written; {options.then} says OK")
    expected = [*kept, "m0"] if options.then == "commit" else kept
    end = time.monotonic() + 5
    while (
        after := seen(options.bootstrap, topic, "read_committed")
    ) != expected and time.monotonic() < end:
        time.sleep(0.2)
    print(f"read  read_committed sees {words(after)}")
    if before == kept and after == expected:
        print("INTACT")
        return 0
    lost, ghosts = [v for v in kept if v not in after], [v for v in after if v not in expected]
    print(
        f"LOST  {words(lost)}, though commit said OK"
        if lost
        else (
            f"GHOST {words(ghosts)}: visible, though they were aborted"
            if ghosts
            else f"LATE  {words(n)}: visible only since n+1 was committed"
        )
    )
    return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--broker", type=int, required=True)
    parser.add_argument("--stop", required=True)
    parser.add_argument("--start", required=True)
    parser.add_argument("--end", choices=("commit", "abort"), default="commit")
    parser.add_argument("--then", choices=("commit", "abort"), default="commit")
    sys.exit(run(parser.parse_args()))
