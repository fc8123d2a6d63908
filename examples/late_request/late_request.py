#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shows what a request of one Kafka transaction does when it reaches the broker amid the next one;
see docs/late-requests.md.

    late_request.py --bootstrap HOST:PORT [--late abort | commit] [--rule]

    --late abort    transaction n is aborted. Its abort comes late, amid n+1, whose commit says OK
                    all the same (the default)
    --late commit   transaction n is committed. Its commit comes late, amid n+1, which is then
                    aborted
    --rule          with a new producer between n and n+1, as the page recommends

Exits with 0 if that was seen: messages lost or torn; with --rule neither, and the broker refused
the late request. Else with 1. Needs confluent-kafka (Debian: python3-confluent-kafka), and a broker
on this machine, alone in its cluster, without TLS.
"""

import argparse
import contextlib
import queue
import socket
import struct
import threading
import uuid

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition, admin

END_TXN = 26
SECONDS = 30  # the bound of each wait


def frames(connection):
    """The requests or answers of one direction, each with the length before it, until the
    connection ends.
    """
    with contextlib.suppress(OSError), connection.makefile("rb") as stream:
        while len(size := stream.read(4)) == 4:
            yield size + stream.read(struct.unpack(">i", size)[0])


def end(connection):
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Stands before a broker. In each answer it puts its own port for the broker's, so that clients
    go on to come by it.
    """

    def __init__(self, host, port):
        self.broker = (host, port)
        self.armed, self.held = (
            False,
            None,
        )  # to hold the next EndTxn; (connection to the broker, request)
        self.late_answers = queue.Queue()
        self.listener = socket.create_server((host, 0))
        self.port = self.listener.getsockname()[1]
        self.ports = [host.encode() + struct.pack(">i", p) for p in (port, self.port)]
        self.connections = [self.listener]  # the threads end with them
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            for client, _ in iter(self.listener.accept, None):
                broker = socket.create_connection(self.broker)
                self.connections += [client, broker]
                for forward in (self.forward_requests, self.forward_answers):
                    threading.Thread(target=forward, args=(client, broker), daemon=True).start()

    def forward_requests(self, client, broker):
        for request in frames(client):
            if self.armed and struct.unpack(">h", request[4:6])[0] == END_TXN:
                self.armed, self.held = False, (broker, request)
                return end(client)  # the broker does not notice
            broker.sendall(request)
        end(broker)

    def forward_answers(self, client, broker):
        with contextlib.suppress(OSError):
            for answer in frames(broker):
                if self.held and self.held[0] is broker:
                    self.late_answers.put(answer)
                else:
                    client.sendall(answer.replace(*self.ports))
        end(client)

    def release(self):
        """Lets the request that was held go to the broker, and returns the broker's answer."""
        broker, request = self.held
        broker.sendall(request)
        at = (
            12 if struct.unpack(">h", request[6:8])[0] < 3 else 13
        )  # newer versions have tags before
        return KafkaError(
            struct.unpack(">h", self.late_answers.get(timeout=SECONDS)[at : at + 2])[0]
        ).name()

    def close(self):
        for connection in self.connections:
            end(connection)


def new_producer(proxy, name):
    producer = Producer(
        {
            "bootstrap.servers": f"{proxy.broker[0]}:{proxy.port}",
            "transactional.id": name,
            "broker.address.family": "v4",
        }
    )
    producer.init_transactions(SECONDS)
    return producer


def write(producer, topic, partition, values):
    errors = []
    for value in values:
        producer.produce(
            topic, value, partition=partition, on_delivery=lambda error, _: errors.append(error)
        )
    if producer.flush(SECONDS) or any(errors):
        raise SystemExit(f"not delivered: {errors}")


def run(proxy, topic, late, rule):
    producer = new_producer(proxy, topic)
    producer.begin_transaction()
    write(producer, topic, 0, ["n0", "n1"])
    write(producer, topic, 1, ["n2", "n3"])
    proxy.armed = True
    getattr(producer, f"{late}_transaction")(SECONDS)
    print(
        f"n     n0 to n3 written; {late} says OK: its connection broke, and the client repeated it on a new one"
    )
    if rule:
        del producer
        producer = new_producer(proxy, topic)
        print("rule  a new producer; init_transactions has raised the epoch")
    producer.begin_transaction()
    write(producer, topic, 0, ["m0", "m1"])
    print("n+1   m0 and m1 delivered to partition 0")
    answer = proxy.release()
    print(f"late  the {late} of n comes on the old connection; the broker says {answer}")
    write(producer, topic, 1, ["m2", "m3"])
    ending = {"abort": "commit", "commit": "abort"}[late]
    getattr(producer, f"{ending}_transaction")(SECONDS)
    print(f"n+1   m2 and m3 delivered to partition 1; {ending} says OK")
    return answer


def read_committed(bootstrap, topic):
    """What a reader sees. It comes to the marks at the end only when every transaction before them
    has ended.
    """
    for partition in (0, 1):
        write(Producer({"bootstrap.servers": bootstrap}), topic, partition, ["end"])
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": topic,
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
    }
    values = []
    with contextlib.closing(Consumer(settings)) as consumer:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in (0, 1)])
        while values.count("end") < 2:
            message = consumer.poll(SECONDS)
            if message is None or message.error():
                raise SystemExit(f"cannot read to the end: {message and message.error()}")
            values.append(message.value().decode())
    return sorted(v for v in values if v != "end")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--late", choices=["abort", "commit"], default="abort")
    parser.add_argument("--rule", action="store_true")
    options = parser.parse_args()
    cluster = admin.AdminClient({"bootstrap.servers": options.bootstrap, "log_level": 5})
    brokers = list(cluster.list_topics(timeout=SECONDS).brokers.values())
    if len(brokers) != 1:
        raise SystemExit(f"the cluster has {len(brokers)} brokers, and the proxy stands before one")
    topic = f"late-request-{uuid.uuid4().hex[:8]}"
    cluster.create_topics([admin.NewTopic(topic, 2, 1)])[topic].result(SECONDS)
    try:
        with contextlib.closing(Proxy(brokers[0].host, brokers[0].port)) as proxy:
            answer = run(proxy, topic, options.late, options.rule)
        seen = read_committed(options.bootstrap, topic)
    finally:
        cluster.delete_topics([topic])[topic].result(SECONDS)
    print(f"read  read_committed sees {' '.join(seen)}")
    expected = {"m0", "m1", "m2", "m3"} if options.late == "abort" else set()
    lost, torn = (
        " ".join(sorted(m))
        for m in (expected - set(seen), {m for m in seen if m[0] == "m"} - expected)
    )
    print(
        f"LOST  {lost}, though commit said OK"
        if lost
        else f"TORN  {torn} visible, though n+1 was aborted" if torn else "INTACT"
    )
    return int(bool(lost or torn) == options.rule or (options.rule and answer == "NO_ERROR"))


if __name__ == "__main__":
    raise SystemExit(main())
