# SPDX-License-Identifier: Apache-2.0
"""Whether the counter of docs/late-requests.md distinguishes quiet transactions from a disturbed one.

    count_unanswered.py BROKERS PLUGIN

PLUGIN is the page's code as a shared library, with the entry conf_init and a function `unanswered`.
Prints its count after some quiet transactions, and after one whose EndTxn was repeated over a new
connection.
"""

import contextlib
import ctypes
import os
import sys

sys.dont_write_bytecode = True  # beside the sources
sys.path.insert(
    0,
    os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "late_request"
    ),
)
import late_request  # noqa: E402

QUIET = 30


def transaction(producer, topic):
    producer.begin_transaction()
    for partition in (0, 1):
        late_request.write(producer, topic, partition, ["x"])
    producer.commit_transaction(late_request.SECONDS)


def main(brokers, plugin):
    unanswered = ctypes.CDLL(plugin).unanswered
    unanswered.restype = ctypes.c_long
    host, port = brokers.split(":")
    topic = f"count-unanswered-{os.getpid()}"
    cluster = late_request.admin.AdminClient({"bootstrap.servers": brokers})
    cluster.create_topics([late_request.admin.NewTopic(topic, 2, 1)])[topic].result(
        late_request.SECONDS
    )
    late_request.Producer = lambda settings, make=late_request.Producer: make(
        {"plugin.library.paths": plugin, **settings}
    )
    with contextlib.closing(late_request.Proxy(host, int(port))) as proxy:
        producer = late_request.new_producer(proxy, topic)
        after_quiet = set()
        for _ in range(QUIET):
            transaction(producer, topic)
            after_quiet.add(unanswered())
        print("quiet", *after_quiet)
        proxy.armed = True
        transaction(producer, topic)
        print("disturbed", unanswered())
        del producer


if __name__ == "__main__":
    main(*sys.argv[1:])
