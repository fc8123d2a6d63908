# SPDX-License-Identifier: Apache-2.0
"""How much of what is wanted of a scenario has passed under one version of the protocol."""

import math

from records import MODES
from report_text import plain

# What a round measured that says how much of a scenario it was.
MEASURES = ("sweeps", "minutes", "next_point")
UNIT_OF_ONE = {"rounds": "round", "sweeps": "sweep", "minutes": "minute"}


class Progress:
    def __init__(self, scenarios, rounds):
        """REQUIRES: the rounds are of one version."""
        self.scenarios = scenarios
        self.rounds = rounds

    def passed(self, scenario, modes):
        return [
            r
            for r in self.rounds
            if r["scenario"] == scenario["id"] and r["verdict"] == "passed" and r["mode"] in modes
        ]

    def reached(self, scenario, modes):
        """How much of what is wanted has passed, and the mode is one of these."""
        rounds = self.passed(scenario, modes)
        if scenario["unit"] == "sweeps":  # the same point a second time adds nothing
            rounds = {(r["mode"], r["seed"], r["round"]): r for r in rounds}.values()
        return (
            len(rounds)
            if scenario["unit"] == "rounds"
            else round(sum(r.get("measured", {}).get(scenario["unit"], 0) for r in rounds), 6)
        )

    @staticmethod
    def modes_of(scenario):
        return [(mode,) for mode in MODES] if scenario["each_mode"] else [("", *MODES)]

    def lacking(self):
        """Each scenario that lacks something, with the modes that it is wanted in, and how much has
        passed.
        """
        for scenario in self.scenarios.values():
            for modes in self.modes_of(scenario):
                reached = self.reached(scenario, modes)
                if reached < scenario["wanted"] and not scenario["later"]:
                    yield scenario, modes, reached

    def missing(self, seed):
        """What to run next: see the head of report.py. The share of one round in a sweep is not
        known before one was run.
        """
        for scenario, modes, reached in self.lacking():
            mode = modes[0] if scenario["each_mode"] else "any"
            passed = self.passed(scenario, modes)
            if scenario["points"]:
                run = [
                    r["round"]
                    for r in self.rounds
                    if r["scenario"] == scenario["id"] and r["seed"] == seed
                ]
                point = max(
                    (
                        r.get("measured", {}).get("next_point", 0)
                        for r in passed
                        if r["seed"] == seed
                    ),
                    default=0,
                )
                yield scenario["id"], "all", max(run, default=-1) + 1, mode, str(int(point))
                continue
            each = (
                1
                if scenario["unit"] == "rounds"
                else min(
                    (r.get("measured", {}).get(scenario["unit"], 1) for r in passed), default=None
                )
            )
            rounds = math.ceil(round((scenario["wanted"] - reached) / each, 3)) if each else 1
            # A sweep goes to a point again that did not pass; elsewhere a round that was run is not
            # repeated.
            done = (
                passed
                if scenario["unit"] == "sweeps"
                else [
                    r for r in self.rounds if r["scenario"] == scenario["id"] and r["mode"] in modes
                ]
            )
            numbers = {r["round"] for r in done if r["seed"] == seed}
            first = next(n for n in range(len(numbers) + 1) if n not in numbers)
            gap = min((n for n in numbers if n > first), default=first + rounds) - first
            yield scenario["id"], min(rounds, gap), first, mode

    def text(self, scenario):
        """How much of what is wanted has passed under the version."""
        if scenario["later"]:
            return "not run"
        reached = " and ".join(
            plain(self.reached(scenario, modes)) for modes in self.modes_of(scenario)
        )
        unit = scenario["unit"] if scenario["wanted"] != 1 else UNIT_OF_ONE[scenario["unit"]]
        return f"{reached} of {scenario['wanted']:,} {unit}" + (
            " in each mode" if scenario["each_mode"] else ""
        )
