#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The report is honest: a round that failed, is unknown or is of another version is not counted as
passed, and an invalid line is refused.
"""

import contextlib
import io
import json
import re
import sys
import unittest

sys.dont_write_bytecode = True
import protocol  # noqa: E402
import report  # noqa: E402
import report_text  # noqa: E402
from records import GUARANTEES  # noqa: E402
from report_tree import (  # noqa: E402
    AT,
    COMMIT,
    SCENARIOS,
    TreeTest,
    again,
    bad,
    counts,
    fixes,
    mutant,
    round_,
)


class ReportTest(TreeTest):
    # --- What counts ----------------------------------------------------------------------------

    def test_without_rounds_there_is_a_page(self):
        page = report.generate(self.root)
        self.assertIn("No round has been run yet", page)
        self.assertEqual(self.section(page, "OPEN"), "")
        self.assertEqual(self.cells(page, "Scenarios", "RE01")[5:7], ["0 of 1,000 rounds", "0"])

    def test_a_failed_round_is_open_until_it_has_a_fix(self):
        failed = bad("a", self.version, "failed")
        page = self.page(failed)
        self.assertIn("it did not come back", self.section(page, "OPEN"))
        self.assertLess(page.index("## OPEN"), page.index("## Scenarios"))
        self.assertIn("OPEN", self.cells(page, "Failed rounds", "a"))
        page = self.page(failed, fixes("a"))
        self.assertEqual(self.section(page, "OPEN"), "")
        self.assertEqual(
            self.cells(page, "Failed rounds", "a")[5:], ["a lost wakeup", COMMIT, "crash_test"]
        )

    def test_a_failed_round_of_an_earlier_protocol_is_open_as_well(self):
        self.assertIn("earlier", self.cells(self.page(bad("a", "0" * 16, "failed")), "OPEN", "a"))

    def test_a_cause_outside_the_relay_is_no_fix(self):
        explains = {
            "schema": 2,
            "kind": "explains",
            "round": "a",
            "at": AT,
            "cause": "Kafka forgets",
            "kept_as": "markers_test",
        }
        page = self.page(bad("a", self.version, "failed"), explains)
        self.assertEqual(self.cells(page, "OPEN", "a")[6:], ["Kafka forgets", "markers_test"])
        self.assertEqual(
            self.cells(page, "Failed rounds", "a")[5:], ["Kafka forgets", "OPEN", "markers_test"]
        )
        self.assertIn("and 1 are OPEN (1 with a known cause", self.section(page, "Summary"))
        self.refused(
            "rounds-a.jsonl:2",
            "is about a round that was failed",
            round_("b", self.version),
            {**explains, "round": "b"},
        )

    def test_a_fixed_round_has_still_failed(self):
        page = self.page(bad("a", self.version, "failed"), round_("b", self.version), fixes("a"))
        self.assertEqual(
            self.cells(page, "Results of the present version", "RE01")[2:7],
            ["2", "1", "1", "0", "–"],
        )

    def test_the_bound_is_three_in_n(self):
        self.assertEqual(report.bound(1000, 0), "0.3 %")
        self.assertEqual(report.bound(10000, 0), "0.03 %")
        self.assertEqual(report.bound(2, 0), "100 %")
        self.assertEqual(report.bound(900, 0), "0.34 %")
        self.assertEqual(report.bound(40000, 0), "0.0075 %")
        self.assertEqual(report.bound(1000, 1), "–")
        self.assertEqual(report.bound(0, 0), "–")
        page = self.page(
            *(round_(f"a{n}", self.version) for n in range(60)), bad("u", self.version, "unknown")
        )
        self.assertEqual(
            self.cells(page, "Results of the present version", "RE01")[2:7],
            ["61", "60", "0", "1", "5 %"],
        )

    def test_unknown_is_never_passed(self):
        unknown = bad("u", self.version, "unknown", recovered_ms=99999)
        page = self.page(unknown)
        self.assertEqual(
            self.cells(page, "Results of the present version", "RE01")[2:10],
            ["1", "0", "0", "1", "–", "–", "–", "–"],
        )
        self.assertEqual(self.cells(page, "Scenarios", "RE01")[5], "0 of 1,000 rounds")
        self.assertIn("not yet", self.cells(page, "Unknown rounds", "u"))
        page = self.page(unknown, round_("b", self.version), again("u", "b"))
        self.assertEqual(
            self.cells(page, "Unknown rounds", "u")[5:], ["the broker did not start", "b", "passed"]
        )
        self.assertEqual(
            self.cells(page, "Results of the present version", "RE01")[2:6], ["2", "1", "0", "1"]
        )

    def test_an_earlier_protocol_does_not_count(self):
        old = round_("a", self.version)
        (self.root / "relay/core/loop.cpp").write_text("int two;\n")
        page = self.page(old)
        self.assertIn(
            "No round of the present version", self.section(page, "Results of the present version")
        )
        self.assertEqual(self.cells(page, "Scenarios", "RE01")[5], "0 of 1,000 rounds")
        self.assertEqual(
            self.cells(page, "Versions of the protocol", f"`{self.version}`")[3:7],
            ["1", "1", "0", "0"],
        )
        self.assertEqual(self.cells(page, "Scenarios", "RE01")[6], "1")

    def test_sweeps_and_minutes_are_added_up(self):
        points = [
            round_(f"a{n}", self.version, scenario="RE02", round=n, measured={"sweeps": 1 / 600})
            for n in range(600)
        ]
        minutes = round_("t", self.version, scenario="TI01", measured={"minutes": 12.5})
        page = self.page(*points, minutes)
        self.assertEqual(
            self.cells(page, "Scenarios", "RE02")[5], "1 and 0 of 1 sweep in each mode"
        )
        self.assertEqual(self.cells(page, "Scenarios", "TI01")[5], "12.5 of 60 minutes")
        self.assertEqual(self.cells(page, "Scenarios", "RE08")[5], "not run")

    def missing(self, scenario, *lines):
        self.write(*lines)
        return [
            line[1:]
            for line in report.report_of(self.root).progress.missing(17)
            if line[0] == scenario
        ]

    def test_what_is_missing_goes_on_behind_what_was_run(self):
        rounds = [round_(f"a{n}", self.version, round=n) for n in range(3)]
        self.assertEqual(self.missing("RE01"), [(1000, 0, "any")])
        self.assertEqual(self.missing("RE01", *rounds), [(997, 3, "any")])
        self.assertEqual(
            self.missing("RE01", *rounds, bad("b", self.version, "unknown", round=3)),
            [(997, 4, "any")],
        )
        self.assertEqual(
            self.missing("RE01", *rounds, round_("c", self.version, round=7)), [(4, 3, "any")]
        )
        self.assertEqual(
            self.missing("RE01", *rounds, round_("c", self.version, round=3, seed=18)),
            [(996, 3, "any")],
        )
        self.assertEqual(
            self.missing("RE01", *[round_(f"a{n}", "0" * 16, round=n) for n in range(3)]),
            [(1000, 0, "any")],
        )

    def test_a_sweep_goes_back_to_the_point_that_did_not_pass(self):
        points = [
            round_(f"a{n}", self.version, scenario="EF02", round=n, measured={"sweeps": 1 / 600})
            for n in range(600)
            if n not in (100, 300)
        ]
        self.assertEqual(self.missing("EF02"), [(1, 0, "any")])
        self.assertEqual(self.missing("EF02", points[0])[0], (599, 1, "any"))
        lost = bad("b", self.version, "unknown", scenario="EF02", round=100)
        self.assertEqual(self.missing("EF02", *points, lost)[0], (1, 100, "any"))
        again = [{**points[5], "id": f"c{n}"} for n in range(2)]
        self.assertEqual(self.missing("EF02", *points, *again)[0], (1, 100, "any"))

    def test_a_sweep_of_points_goes_on_from_the_last_that_passed(self):
        self.assertEqual(
            self.missing("RE02"),
            [("all", 0, "exactly-once", "0"), ("all", 0, "at-least-once", "0")],
        )
        points = [
            round_(
                f"a{n}",
                self.version,
                scenario="RE02",
                round=n,
                measured={"next_point": 1000 * n + 20},
            )
            for n in range(30)
        ]
        lost = bad(
            "b", self.version, "unknown", scenario="RE02", round=30, measured={"next_point": 50_000}
        )
        self.assertEqual(
            self.missing("RE02", *points, lost),
            [("all", 31, "exactly-once", "29020"), ("all", 31, "at-least-once", "0")],
        )
        last = round_(
            "z",
            self.version,
            scenario="RE02",
            round=31,
            measured={"next_point": 60_000, "sweeps": 1},
        )
        self.assertEqual(self.missing("RE02", *points, last), [("all", 32, "at-least-once", "0")])

    def test_quantiles_are_values_that_occurred(self):
        hundred = list(range(100, 0, -1))
        self.assertEqual([report.quantile(hundred, q) for q in (0.5, 0.95, 1.0)], [50, 95, 100])
        self.assertEqual([report.quantile([7], q) for q in (0.5, 0.95, 1.0)], [7, 7, 7])
        self.assertEqual(report.quantile([1, 2, 3, 1000], 0.5), 2)
        rounds = [
            round_(f"a{n}", self.version, recovered_ms=n) for n in (10, 20, 30, 40, 2500, None)
        ]
        page = self.page(*rounds)
        self.assertEqual(
            self.cells(page, "Results of the present version", "RE01")[7:10],
            ["30", "2,500", "2,500"],
        )

    def test_repeats_and_measurements(self):
        mode = {"mode": "at-least-once"}
        rounds = [
            round_(
                f"a{n}", self.version, **mode, counts=counts(repeated=n), measured={"log_lines": n}
            )
            for n in (0, 3, 8)
        ]
        page = self.page(*rounds)
        self.assertEqual(
            self.cells(page, "Repeats in at-least-once mode", "RE01"), ["RE01", "3", "2", "8"]
        )
        self.assertEqual(
            self.cells(page, "Measurements", "RE01")[2:], ["`log_lines`", "3", "3", "8"]
        )

    def test_a_scenario_that_ran_in_one_mode_only_is_named(self):
        rounds = [
            round_("a", self.version, scenario="RE01"),
            round_("b", self.version, scenario="RE04"),
            round_("c", self.version, scenario="RE04", mode="at-least-once"),
            round_("d", self.version, scenario="PG01", mode="at-least-once"),
        ]
        results = self.section(self.page(*rounds), "Results of the present version")
        self.assertIn("In exactly-once mode only: RE01.", results)
        self.assertIn("In at-least-once mode only: PG01.", results)

    def test_a_soak_is_shown_from_its_first_round_to_its_last(self):
        rounds = [
            round_(
                f"t{n}",
                self.version,
                scenario="TI04",
                at=f"2026-11-26T12:4{n}:11Z",
                measured={"minutes": 5, "relay_fds": fds},
            )
            for n, fds in ((2, 30), (0, 19), (1, 20))
        ]
        page = self.page(*rounds, round_("a", self.version, measured={"log_lines": 1}))
        self.assertEqual(
            self.cells(page, "Drift", "TI04"),
            ["TI04", "exactly-once", "`relay_fds`", "3", "19", "20", "30"],
        )
        self.assertNotIn("TI04", page.split("## Measurements")[1].split("\n## ")[0])

    def test_a_mutant_that_was_not_caught_is_open(self):
        page = self.page(mutant(self.version, "missed"))
        self.assertIn("no_token_check", self.section(page, "OPEN"))
        page = self.page(mutant(self.version, "missed"), mutant(self.version))
        self.assertEqual(self.section(page, "OPEN"), "")
        page = self.page(mutant(self.version, "missed"), mutant("0" * 16))
        self.assertIn("no_token_check", self.section(page, "OPEN"))

    def test_baselines_stand_beside(self):
        numbers = {"committed": 500, "arrived": 520, "lost": 0, "repeated": 20, "reordered": 1}
        fields = {
            "at": AT,
            "system": "Another",
            "scenario": "RE01",
            "rounds": 50,
            "counts": numbers,
            "detail": "stock",
        }
        page = self.page({"schema": 2, "kind": "baseline", **fields})
        self.assertEqual(
            self.cells(page, "Other systems", "Another"),
            ["Another", "RE01", "50", "500", "520", "0", "20", "1", "stock"],
        )

    def test_text_of_a_round_stays_in_its_cell(self):
        page = self.page(bad("a", self.version, "failed") | {"why": "x | y\n## z [l](m) <b>"})
        self.assertIn("x \\| y ## z [l] (m) &lt;b>", page)

    def test_a_long_text_is_cut_behind_a_word(self):
        page = self.page(
            bad("a", self.version, "failed") | {"why": "first " + "word " * 1000 + "last"}
        )
        why = self.cells(page, "Failed rounds", "a")[4]
        self.assertRegex(why, "^first word( word)* …$")
        self.assertLess(len(why), report_text.WHY_CHARS + 3)

    # --- What is refused ------------------------------------------------------------------------

    def test_a_bad_line_is_refused_with_its_place(self):
        good = round_("a", self.version)
        other = round_("b", self.version)
        self.refused("rounds-a.jsonl:2", 'unknown key "speed"', good, other | {"speed": 3})
        self.refused(
            "rounds-a.jsonl:2",
            'has no "seed"',
            good,
            {k: v for k, v in other.items() if k != "seed"},
        )
        self.refused("rounds-a.jsonl:1", '"verdict" is "fine"', good | {"verdict": "fine"})
        self.refused("rounds-a.jsonl:1", '"counts" is', good | {"counts": {"lost": 0}})
        self.refused("rounds-a.jsonl:1", '"schema" is 3', good | {"schema": 3})
        self.refused("rounds-a.jsonl:1", '"measured" is', good | {"measured": {"cpu": "much"}})
        self.refused("rounds-a.jsonl:1", '"at" is', good | {"at": "yesterday"})
        self.refused("rounds-a.jsonl:1", "unknown scenario RE99", good | {"scenario": "RE99"})
        self.refused("rounds-a.jsonl:1", 'unknown kind "rumour"', good | {"kind": "rumour"})
        self.refused("rounds-a.jsonl:1", "unknown kind", "[]")
        self.refused("rounds-a.jsonl:2", "no JSON", good, '{"schema":1,')
        self.refused("rounds-a.jsonl:2", "for the second time", good, good)

    def test_a_last_line_that_does_not_end_is_refused(self):
        (self.root / report.RECORDS / "rounds-a.jsonl").write_text(
            json.dumps(round_("a", self.version))
        )
        with self.assertRaisesRegex(
            report.RecordsError, "rounds-a.jsonl:1: the last line does not end"
        ):
            report.generate(self.root)

    def test_all_errors_are_reported_at_once(self):
        self.write(round_("a", self.version), "{", "{")
        with self.assertRaises(report.RecordsError) as e:
            report.generate(self.root)
        self.assertEqual(str(e.exception).count("HINT"), 2)

    def test_a_verdict_agrees_with_the_counts(self):
        self.refused(
            "rounds-a.jsonl:1",
            "passed, but counts lost",
            round_("a", self.version, counts=counts(lost=1)),
        )
        self.refused(
            "rounds-a.jsonl:1",
            "passed, but counts repeated",
            round_("a", self.version, counts=counts(repeated=1)),
        )
        self.page(round_("a", self.version, counts=counts(repeated=1), mode="at-least-once"))
        self.page(round_("a", self.version, counts=counts(ghosts=1), scenario="PG08"))
        self.refused(
            "rounds-a.jsonl:1", "does not say why", round_("a", self.version, verdict="failed")
        )
        self.refused(
            "rounds-a.jsonl:1", "missed, with 1", mutant(self.version, "missed", caught_by=["lost"])
        )

    def test_a_reference_leads_to_the_right_round(self):
        failed, unknown, good = (
            bad("f", self.version, "failed"),
            bad("u", self.version, "unknown"),
            round_("g", self.version),
        )
        self.refused("rounds-a.jsonl:2", "there is no round x", failed, fixes("x"))
        self.refused("rounds-a.jsonl:2", "round g passed", good, fixes("g"))
        self.refused("rounds-a.jsonl:2", "there is no round x", good, again("x", "g"))
        self.refused("rounds-a.jsonl:2", "there is no round x", unknown, again("u", "x"))
        self.refused("rounds-a.jsonl:2", "round f failed", failed, again("f", "f"))
        self.refused(
            "rounds-a.jsonl:3",
            "another scenario or mode",
            unknown,
            good | {"scenario": "RE04"},
            again("u", "g"),
        )

    def test_files_are_read_together(self):
        self.write(fixes("f"))
        self.write(bad("f", self.version, "failed"), name="rounds-b.jsonl")
        page = report.generate(self.root)
        self.assertEqual(self.section(page, "OPEN"), "")
        self.assertIn("`rounds-a.jsonl`", page)
        self.assertIn("`rounds-b.jsonl`", page)

    # --- The command ----------------------------------------------------------------------------

    def run_main(self, *arguments):
        with contextlib.redirect_stderr(io.StringIO()) as said:
            return report.main(list(arguments), self.root), said.getvalue()

    def test_check_finds_a_stale_page(self):
        self.assertEqual(self.run_main("--check")[0], 1)
        self.assertEqual(self.run_main(), (0, ""))
        self.assertEqual(self.run_main("--check"), (0, ""))
        self.write(round_("a", self.version))
        code, said = self.run_main("--check")
        self.assertEqual(code, 1)
        self.assertIn("HINT: run tests/faults/report.py", said)
        self.assertEqual(self.run_main()[0], 0)
        (self.root / "relay/core/loop.cpp").write_text("int two;\n")
        self.assertEqual(self.run_main("--check")[0], 1)

    def test_a_bad_line_leaves_the_page_alone(self):
        self.run_main()
        before = (self.root / report.PAGE).read_text()
        self.write("{")
        self.assertEqual(self.run_main()[0], 1)
        self.assertEqual((self.root / report.PAGE).read_text(), before)


class TableTest(unittest.TestCase):
    """The real table of scenarios, and the real page of guarantees."""

    FAMILIES = (("RE", "R", 12), ("PG", "P", 16), ("KA", "K", 13), ("TI", "T", 4), ("EF", "E", 3))

    def test_every_scenario_is_there(self):
        ids = {
            f"{family}{n:02d}": f"{was}{n}"
            for family, was, last in self.FAMILIES
            for n in range(1, last + 1)
        }
        self.assertEqual({id_: scenario["was"] for id_, scenario in SCENARIOS.items()}, ids)
        self.assertEqual(list(SCENARIOS), list(ids))

    def test_what_may_differ_is_explained(self):
        for scenario in SCENARIOS.values():
            self.assertTrue(scenario["differs"] or not scenario["allows"], scenario["id"])

    def test_each_guarantee_names_scenarios_that_test_it(self):
        text = (
            (protocol.ROOT / "docs/guarantees.md")
            .read_text(encoding="utf-8")
            .split("## Which scenarios test it")[1]
            .split("\n## ")[0]
        )
        named = {}
        for guarantee, ids in re.findall(r"^\| (G\d+) \| .* \| ([^|]*) \|$", text, re.M):
            for id_ in ids.split(", "):
                self.assertIn(id_, SCENARIOS)
                self.assertIn(
                    guarantee,
                    SCENARIOS[id_]["guarantees"],
                    f"scenario {id_} is named for guarantee {guarantee}",
                )
                self.assertFalse(SCENARIOS[id_]["later"], f"scenario {id_} is not run")
            named.setdefault(guarantee, []).extend(ids.split(", "))
        self.assertEqual(set(named), set(GUARANTEES))
        assumptions = text.split("| assumption |")[1]
        for id_ in re.findall(r"\b[A-Z]{2}\d\d\b", assumptions):
            self.assertIn(id_, SCENARIOS)
        self.assertGreater(len(re.findall(r"^\| .* \b[A-Z]{2}\d\d", assumptions, re.M)), 3)


if __name__ == "__main__":
    unittest.main()
