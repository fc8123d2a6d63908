# SPDX-License-Identifier: Apache-2.0
"""Reads what the campaign wrote: the table of rows, and one JSON line per round. A line that says anything unexpected is a mistake."""
import json
import lzma
import re
import tomllib

from archive import FOLDER, SUFFIX, archives, lines_of, plain_files

COUNTS = ("committed", "rolled_back", "unknown_resolved", "arrived", "parked", "lost", "ghosts", "repeated", "reordered", "stuck", "journal",
          "fencing", "exits")
VIOLATIONS = COUNTS[COUNTS.index("lost"):]  # zero in a round that passed, unless the row allows it
BASELINE_COUNTS = ("committed", "arrived", "lost", "repeated", "reordered")
MODES = ("exactly-once", "at-least-once")
GROUPS = ("relay", "PostgreSQL", "Kafka", "together", "consumers and effects")
UNITS = ("rounds", "sweeps", "minutes")
PROMISES = tuple(f"P{n}" for n in range(1, 11))
APPEND_ONLY = "nothing is removed from these files; correct the line in a commit that says why"


class Mistake(Exception):
    def __init__(self, place, what, hint):
        super().__init__(f"{place}: {what}\nHINT: {hint}")


# --- What a value looks like: each answers "" or what is expected ---------------------------------------------------------------


def text(value):
    return "" if isinstance(value, str) else "a text"


def some_text(value):
    return "" if isinstance(value, str) and value.strip() else "a text that is not empty"


def flag(value):
    return "" if isinstance(value, bool) else "true or false"


def whole(value):
    return "" if type(value) is int and value >= 0 else "a whole number, zero or more"


def number(value):
    return "" if type(value) in (int, float) and value == value and abs(value) != float("inf") else "a number"


def maybe(check):
    return lambda value: "" if value is None else check(value) and check(value) + ", or null"


def one_of(*words):
    return lambda value: "" if value in words else "one of " + ", ".join(json.dumps(w) for w in words)


def matches(pattern, what):
    return lambda value: "" if isinstance(value, str) and re.fullmatch(pattern, value) else what


def list_of(check):
    return lambda value: "" if isinstance(value, list) and not any(check(v) for v in value) else f"a list, of which each is {check(None)}"


def map_of(check):
    return lambda value: "" if isinstance(value, dict) and not any(check(v) for v in value.values()) else f"an object of values, each {check(None)}"


def counts_of(names):
    def check(value):
        good = isinstance(value, dict) and set(value) == set(names) and not any(whole(v) for v in value.values())
        return "" if good else "whole numbers under exactly " + ", ".join(names)
    return check


TIME = matches(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "a time such as 2026-11-26T12:40:11Z")
COMMIT = matches(r"[0-9a-f]{7,40}", "a commit, 7 to 40 hex digits")
PROTOCOL = matches(r"[0-9a-f]{16}", "16 hex digits")
COMMON = {"schema": one_of(1), "kind": text, "at": TIME}
FIELDS = {
    "round": {**COMMON, "id": some_text, "commit": COMMIT, "dirty": flag, "protocol": PROTOCOL, "row": text, "mode": one_of("", *MODES),
              "seed": whole, "round": whole, "verdict": one_of("passed", "failed", "unknown"), "why": text, "load_ms": maybe(number),
              "fault_ms": maybe(number), "recovered_ms": maybe(number), "settled_ms": maybe(number), "detail": text,
              "counts": counts_of(COUNTS), "measured": map_of(number), "servers": map_of(text)},
    "sabotage": {**COMMON, "commit": COMMIT, "protocol": PROTOCOL, "defect": some_text, "row": text, "seed": whole, "rounds": whole,
                 "caught_by": list_of(some_text), "verdict": one_of("caught", "missed")},
    "baseline": {**COMMON, "system": some_text, "row": text, "rounds": whole, "counts": counts_of(BASELINE_COUNTS), "detail": text},
    "mends": {**COMMON, "round": some_text, "cause": some_text, "commit": COMMIT, "kept_as": some_text},
    "explains": {**COMMON, "round": some_text, "cause": some_text, "kept_as": some_text},
    "again": {**COMMON, "round": some_text, "cause": some_text, "by": some_text},
}
OPTIONAL = {("round", "measured")}
ROW_FIELDS = {"id": some_text, "group": one_of(*GROUPS), "fault": some_text, "promises": list_of(one_of(*PROMISES)), "within": some_text,
              "wanted": whole, "unit": one_of(*UNITS), "points": flag, "each_mode": flag, "allows": list_of(one_of(*VIOLATIONS)),
              "differs": text, "later": text}
ROW_DEFAULTS = {"unit": "rounds", "points": False, "each_mode": False, "allows": [], "differs": "", "later": ""}


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


# --- The files ------------------------------------------------------------------------------------------------------------------


def read_rows(file):
    """The rows by their ids, in the order of the file."""
    rows = {}
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as e:
        raise Mistake(file.name, str(e), "it is TOML; see the comment at its beginning") from None
    for row in table.get("row", []):
        row = {**ROW_DEFAULTS, **row}
        place = f"{file.name}: row {row.get('id')}"
        for what, hint in wrong_fields(row, ROW_FIELDS):
            raise Mistake(place, what, hint)
        if row["id"] in rows:
            raise Mistake(place, "stands there twice", "give one of them another id")
        rows[row["id"]] = row
    return rows


class Records:
    """All lines of all files. `mistakes` has every one that was found; without any, the rest can be relied on."""

    def __init__(self, rows):
        self.rows = rows
        self.mistakes = []
        self.files = {}  # name -> how many lines
        self.rounds = {}  # by id
        self.sabotage, self.baselines = [], []
        self.mends, self.explains, self.again = {}, {}, {}  # by id of the round they are about
        self.references = []
        self.plain = set()  # versions of lines that are not archived

    def read(self, folder):
        for file in archives(folder):
            self.read_file(file, f"{FOLDER}/{file.name}", file.name.removesuffix(SUFFIX))
        for file in plain_files(folder):
            self.read_file(file, file.name, None)
        for place, record in self.references:
            self.look_at_reference(place, record)
        return self

    def read_file(self, file, name, version):
        """`version` is that of an archive: all its lines are of it."""
        try:
            lines = lines_of(file)
        except (lzma.LZMAError, EOFError) as e:
            return self.mistake(name, f"cannot be read: {e}", "restore it from git")
        if lines[-1]:
            self.mistake(f"{name}:{len(lines)}", "the last line does not end", "its writer died; " + APPEND_ONLY)
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
        kind = record.get("kind") if isinstance(record, dict) else None
        if not isinstance(kind, str) or kind not in FIELDS:
            return self.mistake(place, f"unknown kind {json.dumps(kind)}", "kinds are " + ", ".join(FIELDS))
        optional = [name for k, name in OPTIONAL if k == kind]
        wrong = list(wrong_fields(record, FIELDS[kind], optional))
        if not wrong and "row" in record and record["row"] not in self.rows:
            wrong.append((f"unknown row {record['row']}", "rows are those of tests/faults/rows.toml"))
        if not wrong and version and record.get("protocol", version) != version:
            wrong.append((f"is of version {record['protocol']}", "an archive holds the lines of the version that it is named after"))
        if not wrong and version is None:
            self.plain.add(record.get("protocol"))
        for what, hint in wrong:
            self.mistake(place, what, hint)
        if not wrong:
            getattr(self, f"take_{kind}")(place, record)

    def take_round(self, place, record):
        if record["id"] in self.rounds:
            return self.mistake(place, f"round {record['id']} stands here for the second time", "each round has an id of its own")
        self.rounds[record["id"]] = record
        allowed = self.rows[record["row"]]["allows"] + (["repeated"] if record["mode"] == "at-least-once" else [])
        broken = [name for name in VIOLATIONS if record["counts"][name] and name not in allowed]
        if record["verdict"] == "passed" and broken:
            self.mistake(place, "passed, but counts " + ", ".join(broken), "it failed; or the row `allows` that, in rows.toml, and says why")
        if record["verdict"] != "passed" and not record["why"]:
            self.mistake(place, f"{record['verdict']}, and does not say why", 'a round that did not pass has a "why"')

    def take_sabotage(self, place, record):
        self.sabotage.append(record)
        if (record["verdict"] == "caught") != bool(record["caught_by"]):
            self.mistake(place, f"{record['verdict']}, with {len(record['caught_by'])} invariants in \"caught_by\"",
                         "it names them if, and only if, the defect was caught")

    def take_baseline(self, _, record):
        self.baselines.append(record)

    def take_mends(self, place, record):
        self.mends[record["round"]] = record
        self.references.append((place, record))

    def take_explains(self, place, record):
        """A cause that lies outside: it does not mend anything."""
        self.explains[record["round"]] = record
        self.references.append((place, record))

    def take_again(self, place, record):
        self.again[record["round"]] = record
        self.references.append((place, record))

    def look_at_reference(self, place, record):
        """Looked at when all is read: a line may be about a round of another file."""
        expected = "unknown" if record["kind"] == "again" else "failed"
        about, by = self.rounds.get(record["round"]), self.rounds.get(record.get("by"))
        if about is None:
            self.mistake(place, f"there is no round {record['round']}", "name the id of a round in these files")
        elif about["verdict"] != expected:
            self.mistake(place, f"round {record['round']} {about['verdict']}", f"{record['kind']} is said of a round that was {expected}")
        elif record["kind"] == "again" and by is None:
            self.mistake(place, f"there is no round {record['by']}", '"by" is the id of the round that was run instead')
        elif record["kind"] == "again" and (by["row"], by["mode"]) != (about["row"], about["mode"]):
            self.mistake(place, f"round {record['by']} is of another row or mode", "run the same row in the same mode")
