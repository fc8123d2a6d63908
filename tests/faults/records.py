# SPDX-License-Identifier: Apache-2.0
"""Reads what the campaign wrote: the table of scenarios, and one JSON line for each round. A line
with anything unexpected is an error.

Lines of schema 1 have the names of an earlier time (row, sabotage, mends): they are accepted in
archives only, and converted.
"""

import json
import lzma
import re
import tomllib

from archive import FOLDER, SUFFIX, archives, lines_of, plain_files

COUNTS = (
    "committed",
    "rolled_back",
    "unknown_resolved",
    "arrived",
    "parked",
    "lost",
    "ghosts",
    "repeated",
    "reordered",
    "stuck",
    "journal",
    "fencing",
    "exits",
)
VIOLATIONS = COUNTS[
    COUNTS.index("lost") :
]  # zero in a round that passed, unless the scenario allows it
BASELINE_COUNTS = ("committed", "arrived", "lost", "repeated", "reordered")
MODES = ("exactly-once", "at-least-once")
GROUPS = ("relay", "PostgreSQL", "Kafka", "together", "consumers and effects")
UNITS = ("rounds", "sweeps", "minutes")
GUARANTEES = tuple(f"G{n}" for n in range(1, 11))
APPEND_ONLY = "nothing is removed from these files; correct the line in a commit that says why"


class Mistake(Exception):
    def __init__(self, place, what, hint):
        super().__init__(f"{place}: {what}\nHINT: {hint}")


# --- What a value looks like: each returns "" or what is expected -------------------------------


def text(value):
    return "" if isinstance(value, str) else "a text"


def some_text(value):
    return "" if isinstance(value, str) and value.strip() else "a text that is not empty"


def flag(value):
    return "" if isinstance(value, bool) else "true or false"


def whole(value):
    return "" if type(value) is int and value >= 0 else "a whole number, zero or more"


def number(value):
    return (
        ""
        if type(value) in (int, float) and value == value and abs(value) != float("inf")
        else "a number"
    )


def maybe(check):
    return lambda value: "" if value is None else check(value) and check(value) + ", or null"


def one_of(*words):
    return lambda value: (
        "" if value in words else "one of " + ", ".join(json.dumps(w) for w in words)
    )


def matches(pattern, what):
    return lambda value: "" if isinstance(value, str) and re.fullmatch(pattern, value) else what


def list_of(check):
    return lambda value: (
        ""
        if isinstance(value, list) and not any(check(v) for v in value)
        else f"a list, of which each is {check(None)}"
    )


def map_of(check):
    return lambda value: (
        ""
        if isinstance(value, dict) and not any(check(v) for v in value.values())
        else f"an object of values, each {check(None)}"
    )


def counts_of(names):
    def check(value):
        good = (
            isinstance(value, dict)
            and set(value) == set(names)
            and not any(whole(v) for v in value.values())
        )
        return "" if good else "whole numbers under exactly " + ", ".join(names)

    return check


TIME = matches(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "a time such as 2026-11-26T12:40:11Z")
COMMIT = matches(r"[0-9a-f]{7,40}", "a commit, 7 to 40 hex digits")
PROTOCOL = matches(r"[0-9a-f]{16}", "16 hex digits")
COMMON = {"schema": one_of(1, 2), "kind": text, "at": TIME}
FIELDS = {
    "round": {
        **COMMON,
        "id": some_text,
        "commit": COMMIT,
        "dirty": flag,
        "protocol": PROTOCOL,
        "scenario": text,
        "mode": one_of("", *MODES),
        "seed": whole,
        "round": whole,
        "verdict": one_of("passed", "failed", "unknown"),
        "why": text,
        "load_ms": maybe(number),
        "fault_ms": maybe(number),
        "recovered_ms": maybe(number),
        "settled_ms": maybe(number),
        "detail": text,
        "counts": counts_of(COUNTS),
        "measured": map_of(number),
        "servers": map_of(text),
    },
    "mutant": {
        **COMMON,
        "commit": COMMIT,
        "protocol": PROTOCOL,
        "mutant": some_text,
        "scenario": text,
        "seed": whole,
        "rounds": whole,
        "caught_by": list_of(some_text),
        "verdict": one_of("caught", "missed"),
    },
    "baseline": {
        **COMMON,
        "system": some_text,
        "scenario": text,
        "rounds": whole,
        "counts": counts_of(BASELINE_COUNTS),
        "detail": text,
    },
    "fixes": {
        **COMMON,
        "round": some_text,
        "cause": some_text,
        "commit": COMMIT,
        "kept_as": some_text,
    },
    "explains": {**COMMON, "round": some_text, "cause": some_text, "kept_as": some_text},
    "again": {**COMMON, "round": some_text, "cause": some_text, "by": some_text},
}
OPTIONAL = {("round", "measured")}
KINDS_OF_SCHEMA_1 = {
    "sabotage": "mutant",
    "mends": "fixes",
    "mutant": None,
    "fixes": None,
}  # None: there was no such kind
NAMES_OF_SCHEMA_1 = {"row": "scenario", "defect": "mutant", "scenario": None}
SCENARIO_FIELDS = {
    "id": matches(r"[A-Z]{2}\d\d", "two letters and two digits"),
    "was": text,
    "group": one_of(*GROUPS),
    "fault": some_text,
    "guarantees": list_of(one_of(*GUARANTEES)),
    "within": some_text,
    "wanted": whole,
    "unit": one_of(*UNITS),
    "points": flag,
    "each_mode": flag,
    "allows": list_of(one_of(*VIOLATIONS)),
    "differs": text,
    "later": text,
}
SCENARIO_DEFAULTS = {
    "was": "",
    "unit": "rounds",
    "points": False,
    "each_mode": False,
    "allows": [],
    "differs": "",
    "later": "",
}


def wrong_fields(value, fields, optional=()):
    """What is wrong with the names and the values of an object, or nothing."""
    for name in value:
        if name not in fields:
            yield f"unknown key {json.dumps(name)}", "keys are " + ", ".join(fields)
    for name, check in fields.items():
        if name not in value:
            if name not in optional:
                yield f"has no {json.dumps(name)}", f"it is {check(None) or 'null if there is none'}"
        elif check(value[name]):
            yield f"{json.dumps(name)} is {json.dumps(value[name])}", f"it is {check(value[name])}"


# --- The files ----------------------------------------------------------------------------------


def read_scenarios(file):
    """The scenarios by their ids, in the order of the file."""
    scenarios = {}
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as e:
        raise Mistake(file.name, str(e), "it is TOML; see the comment at its beginning") from None
    for scenario in table.get("scenario", []):
        scenario = {**SCENARIO_DEFAULTS, **scenario}
        place = f"{file.name}: scenario {scenario.get('id')}"
        for what, hint in wrong_fields(scenario, SCENARIO_FIELDS):
            raise Mistake(place, what, hint)
        if scenario["id"] in scenarios:
            raise Mistake(place, "is there twice", "give one of them another id")
        scenarios[scenario["id"]] = scenario
    return scenarios


def converted(record, ids):
    """A record of schema 1 under the present names; `ids` maps the former id of a scenario to the
    present one.
    """
    out = {}
    for name, value in record.items():
        name = NAMES_OF_SCHEMA_1.get(name, name) or f"{name} of schema 2"
        if name == "kind" and isinstance(value, str):
            value = KINDS_OF_SCHEMA_1.get(value, value) or f"{value} of schema 2"
        out[name] = (
            ids.get(value, value) if name == "scenario" and isinstance(value, str) else value
        )
    return out


class Records:
    """All lines of all files. `mistakes` has every error that was found; if there is none, the rest
    is valid.
    """

    def __init__(self, scenarios):
        self.scenarios = scenarios
        self.ids = {scenario["was"]: id_ for id_, scenario in scenarios.items()}
        self.mistakes = []
        self.files = {}  # name -> how many lines
        self.rounds = {}  # by id
        self.mutants, self.baselines = [], []
        self.fixes, self.explains, self.again = {}, {}, {}  # by id of the round they are about
        self.references = []
        self.plain = set()  # versions of lines that are not archived

    def read(self, folder):
        for file in archives(folder):
            self.read_file(file, f"{FOLDER}/{file.name}", file.name.removesuffix(SUFFIX))
        for file in plain_files(folder):
            self.read_file(file, file.name, None)
        for place, record in self.references:
            self.check_reference(place, record)
        return self

    def read_file(self, file, name, version):
        """`version` is that of an archive: all its lines are of it."""
        try:
            lines = lines_of(file)
        except (lzma.LZMAError, EOFError) as e:
            return self.mistake(name, f"cannot be read: {e}", "restore it from git")
        if lines[-1]:
            self.mistake(
                f"{name}:{len(lines)}",
                "the last line does not end",
                "its writer died; " + APPEND_ONLY,
            )
        self.files[name] = len(lines) - 1
        for number, line in enumerate(lines[:-1], 1):
            self.take(f"{name}:{number}", line, version)

    def mistake(self, place, what, hint):
        self.mistakes.append(Mistake(f"docs/reliability/{place}", what, hint))

    def take(self, place, line, version):
        try:
            record = json.loads(line)
        except ValueError as e:
            return self.mistake(place, f"no JSON: {e}", APPEND_ONLY)
        if isinstance(record, dict) and record.get("schema") == 1:
            if version is None:
                return self.mistake(
                    place, "is of schema 1", "only archives have such lines; write schema 2"
                )
            record = converted(record, self.ids)
        kind = record.get("kind") if isinstance(record, dict) else None
        if not isinstance(kind, str) or kind not in FIELDS:
            return self.mistake(
                place, f"unknown kind {json.dumps(kind)}", "kinds are " + ", ".join(FIELDS)
            )
        optional = [name for k, name in OPTIONAL if k == kind]
        wrong = list(wrong_fields(record, FIELDS[kind], optional))
        if not wrong and "scenario" in record and record["scenario"] not in self.scenarios:
            wrong.append(
                (
                    f"unknown scenario {record['scenario']}",
                    "scenarios are those of tests/faults/scenarios.toml",
                )
            )
        if not wrong and version and record.get("protocol", version) != version:
            wrong.append(
                (
                    f"is of version {record['protocol']}",
                    "an archive holds the lines of the version that it is named after",
                )
            )
        if not wrong and version is None:
            self.plain.add(record.get("protocol"))
        for what, hint in wrong:
            self.mistake(place, what, hint)
        if not wrong:
            getattr(self, f"take_{kind}")(place, record)

    def take_round(self, place, record):
        if record["id"] in self.rounds:
            return self.mistake(
                place,
                f"round {record['id']} is there for the second time",
                "each round has its own id",
            )
        self.rounds[record["id"]] = record
        allowed = self.scenarios[record["scenario"]]["allows"] + (
            ["repeated"] if record["mode"] == "at-least-once" else []
        )
        broken = [name for name in VIOLATIONS if record["counts"][name] and name not in allowed]
        if record["verdict"] == "passed" and broken:
            self.mistake(
                place,
                "passed, but counts " + ", ".join(broken),
                "it failed; or the scenario `allows` that, in scenarios.toml, and says why",
            )
        if record["verdict"] != "passed" and not record["why"]:
            self.mistake(
                place,
                f"{record['verdict']}, and does not say why",
                'a round that did not pass has a "why"',
            )

    def take_mutant(self, place, record):
        self.mutants.append(record)
        if (record["verdict"] == "caught") != bool(record["caught_by"]):
            self.mistake(
                place,
                f"{record['verdict']}, with {len(record['caught_by'])} invariants in \"caught_by\"",
                "it names them if, and only if, the mutant was caught",
            )

    def take_baseline(self, _, record):
        self.baselines.append(record)

    def take_fixes(self, place, record):
        self.fixes[record["round"]] = record
        self.references.append((place, record))

    def take_explains(self, place, record):
        """A cause outside the relay: the failure stays open."""
        self.explains[record["round"]] = record
        self.references.append((place, record))

    def take_again(self, place, record):
        self.again[record["round"]] = record
        self.references.append((place, record))

    def check_reference(self, place, record):
        """Called when all is read: a line may be about a round of another file."""
        expected = "unknown" if record["kind"] == "again" else "failed"
        about, by = self.rounds.get(record["round"]), self.rounds.get(record.get("by"))
        if about is None:
            self.mistake(
                place,
                f"there is no round {record['round']}",
                "name the id of a round in these files",
            )
        elif about["verdict"] != expected:
            self.mistake(
                place,
                f"round {record['round']} {about['verdict']}",
                f"{record['kind']} is about a round that was {expected}",
            )
        elif record["kind"] == "again" and by is None:
            self.mistake(
                place,
                f"there is no round {record['by']}",
                '"by" is the id of the round that was run instead',
            )
        elif record["kind"] == "again" and (by["scenario"], by["mode"]) != (
            about["scenario"],
            about["mode"],
        ):
            self.mistake(
                place,
                f"round {record['by']} is of another scenario or mode",
                "run the same scenario in the same mode",
            )
