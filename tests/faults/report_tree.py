# SPDX-License-Identifier: Apache-2.0
"""A tree with records for the tests of the report, and lines to put there."""

import json
import pathlib
import re
import shutil
import tempfile
import unittest

import archive
import protocol
import report
from records import COUNTS, read_scenarios

SCENARIOS = read_scenarios(protocol.ROOT / report.SCENARIOS)
AT = "2026-11-26T12:40:11Z"
COMMIT = "386e490"


def counts(**more):
    return {**dict.fromkeys(COUNTS, 0), "committed": 10, "arrived": 10, **more}


def round_(id_, version, **more):
    times = {"load_ms": 400, "fault_ms": 100, "recovered_ms": 230, "settled_ms": 410}
    return {
        "schema": 2,
        "kind": "round",
        "id": id_,
        "at": AT,
        "commit": COMMIT,
        "dirty": False,
        "protocol": version,
        "scenario": "RE01",
        "mode": "exactly-once",
        "seed": 17,
        "round": 3,
        "verdict": "passed",
        "why": "",
        **times,
        "detail": "",
        "counts": counts(),
        "servers": {"postgres": "15.14"},
        **more,
    }


def bad(id_, version, verdict, **more):
    return round_(
        id_,
        version,
        verdict=verdict,
        why="it did not come back",
        **{"counts": counts(stuck=2 * (verdict == "failed")), **more},
    )


def fixes(about):
    return {
        "schema": 2,
        "kind": "fixes",
        "round": about,
        "at": AT,
        "cause": "a lost wakeup",
        "commit": COMMIT,
        "kept_as": "crash_test",
    }


def again(about, by):
    return {
        "schema": 2,
        "kind": "again",
        "round": about,
        "at": AT,
        "cause": "the broker did not start",
        "by": by,
    }


def mutant(version, verdict="caught", **more):
    return {
        "schema": 2,
        "kind": "mutant",
        "at": AT,
        "commit": COMMIT,
        "protocol": version,
        "mutant": "no_token_check",
        "scenario": "RE01",
        "seed": 5,
        "rounds": 3,
        "caught_by": ["repeated"] if verdict == "caught" else [],
        "verdict": verdict,
        **more,
    }


class TreeTest(unittest.TestCase):
    """In a tree with one protocol file and the real table of scenarios."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        for name in ("tests/faults", report.RECORDS, "relay/core"):
            (self.root / name).mkdir(parents=True)
        shutil.copy(protocol.ROOT / report.SCENARIOS, self.root / report.SCENARIOS)
        (self.root / protocol.LIST).write_text("# the loop\nrelay/core/loop.*\n")
        (self.root / "relay/core/loop.cpp").write_text("int one;\n")
        self.version = protocol.protocol_version(self.root)

    def write(self, *lines, name="rounds-a.jsonl"):
        written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (self.root / report.RECORDS / name).write_text("".join(line + "\n" for line in written))

    def page(self, *lines):
        self.write(*lines)
        return report.generate(self.root)

    def section(self, page, title):
        found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", page, re.S | re.M)
        return found.group(1) if found else ""

    def cells(self, page, title, first):
        """The cells of the line of a table that begins with `first`."""
        for line in self.section(page, title).splitlines():
            if line.startswith(f"| {first} |"):
                return [c.strip() for c in line.strip("|").split("|")]
        self.fail(f"no line {first} under {title}:\n{page}")

    def write_archive(self, version, *lines):
        archive.write(
            self.root / report.RECORDS / archive.FOLDER / (version + archive.SUFFIX),
            [json.dumps(line) for line in lines],
        )

    def refused(self, place, what, *lines):
        self.write(*lines)
        with self.assertRaises(report.RecordsError) as e:
            report.generate(self.root)
        self.assertIn(f"docs/reliability/{place}: ", str(e.exception))
        self.assertIn(what, str(e.exception))
        self.assertIn("\nHINT: ", str(e.exception))
