#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lines of earlier versions move to archives, and none is lost, changed or counted twice."""

import contextlib
import io
import json
import sys
import unittest

sys.dont_write_bytecode = True
import archive  # noqa: E402
import report  # noqa: E402
from report_tree import SCENARIOS, TreeTest, again, bad, fixes, mutant, round_  # noqa: E402


def schema_1(line):
    """As it was written before the names changed."""
    names = {"scenario": "row", "mutant": "defect"}
    kinds = {"mutant": "sabotage", "fixes": "mends"}
    former = {id_: scenario["was"] for id_, scenario in SCENARIOS.items()}
    line = {names.get(name, name): value for name, value in line.items()}
    line |= {"row": former[line["row"]]} if "row" in line else {}
    return {**line, "schema": 1, "kind": kinds.get(line["kind"], line["kind"])}


class ArchiveTest(TreeTest):
    OLD, OLDER = "1" * 16, "2" * 16

    def contents(self):
        folder = self.root / report.RECORDS
        return {
            f.relative_to(folder).as_posix(): f.read_bytes()
            for f in folder.rglob("*.*")
            if f.is_file()
        }

    def lines(self, version):
        file = self.root / report.RECORDS / archive.FOLDER / (version + archive.SUFFIX)
        return [json.loads(line) for line in archive.lines_of(file)[:-1]]

    def archive(self):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            self.assertEqual(report.main(["--archive"], self.root), 0)
        return said.getvalue()

    def test_lines_move_to_the_archive_of_their_version(self):
        failed, unknown, new = (
            bad("f", self.OLD, "failed"),
            bad("u", self.OLDER, "unknown"),
            round_("n", self.version),
        )
        self.write(failed, new, mutant(self.OLD))
        self.write(unknown, again("u", "n"), fixes("f"), name="rounds-b.jsonl")
        before = report.generate(self.root)
        self.assertIn("3 lines of version " + self.OLD, self.archive())
        self.assertEqual(self.lines(self.OLD), [failed, mutant(self.OLD), fixes("f")])
        self.assertEqual(self.lines(self.OLDER), [unknown, again("u", "n")])
        self.assertEqual(
            sorted(self.contents()),
            sorted(f"archive/{v}.jsonl.xz" for v in (self.OLD, self.OLDER)) + ["rounds-a.jsonl"],
        )
        self.assertEqual(
            (self.root / report.RECORDS / "rounds-a.jsonl").read_text(), json.dumps(new) + "\n"
        )
        after = report.generate(self.root)
        for title in (
            "OPEN",
            "Results of the present version",
            "Failed rounds",
            "Unknown rounds",
            "Mutants",
        ):
            self.assertEqual(self.section(after, title), self.section(before, title))
        self.assertEqual(
            self.cells(after, "Versions of the protocol", f"`{self.OLD}`")[3:8],
            ["1", "0", "1", "0", "stuck 2"],
        )
        self.assertIn(f"[3 lines](reliability/archive/{self.OLD}.jsonl.xz)", after)

    def test_archiving_twice_changes_nothing_and_a_crash_in_between_neither(self):
        self.write(bad("f", self.OLD, "failed"), round_("n", self.version))
        plain = self.contents()
        self.archive()
        archived = self.contents()
        self.assertEqual(self.archive(), "")
        self.assertEqual(self.contents(), archived)
        for name, content in plain.items():  # the archive was written, the plain file was not
            (self.root / report.RECORDS / name).write_bytes(content)
        archive.archive(self.root / report.RECORDS, self.version)
        self.assertEqual(self.contents(), archived)

    def test_an_archive_grows(self):
        self.write_archive(self.OLD, bad("f", self.OLD, "failed"))
        self.write(fixes("f"))
        self.archive()
        self.assertEqual(self.lines(self.OLD), [bad("f", self.OLD, "failed"), fixes("f")])
        self.assertEqual(self.section(report.generate(self.root), "OPEN"), "")

    def test_lines_of_schema_1_are_read_in_archives_only(self):
        lines = [
            bad("f", self.OLD, "failed", scenario="PG08"),
            fixes("f"),
            mutant(self.OLD),
            bad("u", self.OLD, "unknown", scenario="PG08"),
        ]
        self.write(round_("n", self.version, scenario="PG08"), again("u", "n"))
        self.write_archive(self.OLD, *lines)
        page = report.generate(self.root)
        self.write_archive(self.OLD, *map(schema_1, lines))
        self.assertEqual(report.generate(self.root), page)
        self.assertEqual(schema_1(lines[0])["row"], "P8")
        self.assertIn("PG08", self.cells(page, "Failed rounds", "f"))
        for line in lines:
            self.refused("rounds-a.jsonl:1", "is of schema 1", schema_1(line))
            for former, present in (("row", "scenario"), ("defect", "mutant"), ("kind", "kind")):
                if former in schema_1(line) and schema_1(line)[former] != line.get(present):
                    self.write_archive(self.OLD, {**line, former: schema_1(line)[former]})
                    self.refused(f"archive/{self.OLD}.jsonl.xz:1", "unknown k")
                    mixed = {**schema_1(line), present: line[present]}
                    self.write_archive(self.OLD, mixed)
                    self.refused(f"archive/{self.OLD}.jsonl.xz:1", "of schema 2")

    def test_check_refuses_lines_that_are_not_archived(self):
        self.write(round_("a", self.OLD))
        self.assertEqual(report.main([], self.root), 0)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(report.main(["--check"], self.root), 1)
        self.assertIn("HINT: run tests/faults/report.py --archive", said.getvalue())
        self.archive()
        self.assertEqual(report.main(["--check"], self.root), 0)

    def test_an_archive_is_read_as_strictly(self):
        self.write_archive(self.OLD, round_("a", self.OLD))
        self.refused("rounds-a.jsonl:1", "for the second time", round_("a", self.version))
        self.write_archive(self.OLD, round_("a", self.OLDER))
        self.refused(f"archive/{self.OLD}.jsonl.xz:1", f"is of version {self.OLDER}")
        self.write_archive(self.OLD, round_("a", self.OLD, verdict="fine"))
        self.refused(f"archive/{self.OLD}.jsonl.xz:1", '"verdict" is "fine"')
        (self.root / report.RECORDS / f"archive/{self.OLD}.jsonl.xz").write_bytes(b"no archive")
        self.refused(f"archive/{self.OLD}.jsonl.xz", "cannot be read")


if __name__ == "__main__":
    unittest.main()
