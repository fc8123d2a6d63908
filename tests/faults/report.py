#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reliability.md from what the fault campaign recorded in docs/reliability/.

report.py [--check]     with --check it writes nothing, and exits 1 if the page is not what the
                        records say, or if lines of an earlier version of the protocol are not in
                        its archive
report.py --archive     moves the lines of earlier versions of the protocol into their archives, and
                        writes the page
report.py --missing SEED
                        writes nothing, and prints a line SCENARIO MISSING FIRST MODE for each
                        scenario that lacks something under the present version: so many rounds from
                        number FIRST on; MODE is "any", or the one that is lacking. Of a sweep that
                        goes from point to point: SCENARIO all FIRST MODE POINT
"""

import sys

sys.dont_write_bytecode = True
from archive import FOLDER, SUFFIX, archive  # noqa: E402
from progress import MEASURES, Progress  # noqa: E402
from protocol import ROOT, ProtocolError, protocol_version  # noqa: E402
from records import (  # noqa: E402
    GROUPS,
    GUARANTEES,
    MODES,
    VIOLATIONS,
    Mistake,
    Records,
    read_scenarios,
)
from report_text import (  # noqa: E402
    HOW,
    INTRO,
    UNCOVERED,
    VERSIONS,
    Link,
    bound,
    in_brief,
    plain,
    quantile,
    section,
    some,
    table,
)

PAGE = "docs/reliability.md"
SCENARIOS = "tests/faults/scenarios.toml"
RECORDS = "docs/reliability"
VERDICTS = ("passed", "failed", "unknown")
SOAKS = ("TI04",)  # scenarios without a fault


class RecordsError(Exception):
    """All errors of the records, each with its place and its remedy."""


class Report:
    def __init__(self, records, protocol):
        self.records = records
        self.protocol = protocol
        order = {scenario: n for n, scenario in enumerate(records.scenarios)}
        self.all = sorted(
            records.rounds.values(), key=lambda r: (order[r["scenario"]], r["at"], r["id"])
        )
        self.tried = sorted(
            records.mutants, key=lambda m: (order[m["scenario"]], m["at"], m["mutant"])
        )
        self.present = [r for r in self.all if r["protocol"] == protocol]
        self.progress = Progress(records.scenarios, self.present)
        order = {mode: n for n, mode in enumerate(("", *MODES))}
        self.groups = {}  # (scenario, mode) -> its rounds, in the order of the table of scenarios
        for scenario in records.scenarios:
            for mode in sorted(
                {r["mode"] for r in self.present if r["scenario"] == scenario}, key=order.get
            ):
                self.groups[scenario, mode] = [
                    r for r in self.present if (r["scenario"], r["mode"]) == (scenario, mode)
                ]

    def page(self):
        parts = [
            self.summary(),
            self.open(),
            HOW,
            self.scenarios(),
            self.versions(),
            self.results(),
            self.repeats(),
            self.measured(),
            self.drift(),
            self.guarantees(),
            self.failed(),
            self.unknown(),
            self.mutants(),
            self.baselines(),
            self.uncovered(),
            self.files(),
        ]
        return INTRO + "\n".join(p for p in parts if p)

    # --- What a reader must not miss ------------------------------------------------------------

    def unfixed(self):
        return [
            r for r in self.all if r["verdict"] == "failed" and r["id"] not in self.records.fixes
        ]

    def missed(self):
        """Mutants that were tried under the present version, and that no scenario caught."""
        tried = [m for m in self.tried if m["protocol"] == self.protocol]
        caught = {m["mutant"] for m in tried if m["verdict"] == "caught"}
        return list(dict.fromkeys(m["mutant"] for m in tried if m["mutant"] not in caught))

    def summary(self):
        if not self.all:
            return section(
                "Summary",
                f"No round has been run yet. The present version of the protocol is `{self.protocol}`.\n",
            )
        servers = sorted(
            {
                f"{name} {version}"
                for r in self.present
                for name, version in r["servers"].items()
                if version
            }
        )
        dirty = sum(r["dirty"] for r in self.present)
        failed = [r for r in self.all if r["verdict"] == "failed"]
        lost = sum(r["counts"]["lost"] for r in failed)
        lines = [
            f"* Present version `{self.protocol}`: {some(len(self.present), 'round')} of"
            f" {some(len({scenario for scenario, _ in self.groups}), 'scenario')}; {self.verdicts(self.present)}.",
            f"* All versions: {some(len(self.all), 'round')}; {self.verdicts(self.all)}.",
        ]
        if failed:
            explained = sum(r["id"] in self.records.explains for r in self.unfixed())
            lines.append(
                f"* Of the failed rounds, {len(failed) - len(self.unfixed()):,} have a fix and {len(self.unfixed()):,} are OPEN"
                f" ({explained:,} with a known cause outside the relay).\n  [Failed rounds](#failed-rounds) lists the causes."
            )
            lines.append(
                f"* Violations in these rounds: {self.violations(failed) or 'none'}; messages lost: {lost:,}."
            )
        if servers:
            lines.append("* Servers: " + ", ".join(servers) + ".")
        if dirty:
            lines.append(
                f"* {some(dirty, 'round')} of the present version ran from a tree with uncommitted changes."
            )
        return section("Summary", "\n".join(lines) + "\n")

    def verdicts(self, rounds):
        return ", ".join(f"{sum(r['verdict'] == v for r in rounds):,} {v}" for v in VERDICTS)

    def open(self):
        parts = []
        if self.unfixed():
            parts += [
                "These rounds failed, and no commit fixes the failure. A *cause* that is given lies outside"
                " the relay.\n",
                table(
                    ("round", "scenario", "mode", "commit", "version", "why", "cause", "kept as"),
                    [
                        (
                            r["id"],
                            r["scenario"],
                            r["mode"],
                            r["commit"][:12],
                            self.which(r),
                            in_brief(r["why"]),
                            *self.explained(r["id"]),
                        )
                        for r in self.unfixed()
                    ],
                ),
            ]
        if self.missed():
            parts += [
                "No scenario caught these mutants: a round that passes proves nothing about such"
                " defects.\n",
                table(("mutant",), [(f"`{name}`",) for name in self.missed()]),
            ]
        return section("OPEN", *parts) if parts else ""

    def explained(self, round_id):
        known = self.records.explains.get(round_id)
        return (known["cause"], known["kept_as"]) if known else ("", "")

    def which(self, record):
        return "present" if record["protocol"] == self.protocol else "earlier"

    # --- What the rounds showed -----------------------------------------------------------------

    def results(self):
        if not self.groups:
            return section(
                "Results of the present version",
                "No round of the present version has been run yet.\n",
            )
        lines = []
        for (scenario, mode), rounds in self.groups.items():
            passed, failed, unknown = (sum(r["verdict"] == v for r in rounds) for v in VERDICTS)
            times = [
                r["recovered_ms"]
                for r in rounds
                if r["verdict"] != "unknown" and r["recovered_ms"] is not None
            ]
            recovery = (
                [plain(quantile(times, share)) for share in (0.5, 0.95, 1.0)]
                if times
                else ["–"] * 3
            )
            lines.append(
                (
                    scenario,
                    mode,
                    len(rounds),
                    passed,
                    failed,
                    unknown,
                    bound(passed, failed),
                    *recovery,
                    self.records.scenarios[scenario]["within"],
                )
            )
        about = (
            "*At most* is the upper bound, with 95 % confidence, of the probability that a round\n"
            "fails: 3/n, when none of n rounds has. Rounds whose verdict is unknown are not in n.\n"
            "*Recovery* is the time from the end of the fault until messages flow again, in\n"
            "milliseconds. It is compared with its target in scenario KA13 only, because\n"
            "scenarios share the processors with their servers. A relay that delivers nothing for\n"
            "a minute, in some scenarios half a minute, is stuck, and its round failed.\n"
        )
        head = "scenario|mode|rounds|passed|failed|unknown|fails at most|recovery p50|p95|max|target".split(
            "|"
        )
        return section(
            "Results of the present version", about, table(head, lines), *self.one_mode()
        )

    def one_mode(self):
        """Scenarios that ran in one mode only: they show nothing about the other."""
        modes = {}
        for scenario, mode in self.groups:
            modes.setdefault(scenario, []).append(mode)
        for mode in MODES:
            scenarios = [scenario for scenario, ran in modes.items() if ran == [mode]]
            if scenarios:
                yield f"In {mode} mode only: {', '.join(scenarios)}.\n"

    def repeats(self):
        lines = []
        for (scenario, mode), rounds in self.groups.items():
            repeated = [r["counts"]["repeated"] for r in rounds if r["verdict"] != "unknown"]
            if mode == "at-least-once" and repeated:
                lines.append((scenario, len(repeated), sum(n > 0 for n in repeated), max(repeated)))
        about = (
            "A repeat carries the same deduplication key, and only messages of the batch in doubt can\n"
            "be repeated.\n"
        )
        head = ("scenario", "rounds", "rounds with repeats", "most messages repeated in one")
        return section("Repeats in at-least-once mode", about, table(head, lines)) if lines else ""

    def measured(self):
        lines = []
        for (scenario, mode), rounds in self.groups.items():
            known = [
                r.get("measured", {})
                for r in rounds
                if r["verdict"] != "unknown" and scenario not in SOAKS
            ]
            for name in sorted({n for m in known for n in m} - set(MEASURES)):
                values = [m[name] for m in known if name in m]
                lines.append(
                    (
                        scenario,
                        mode,
                        f"`{name}`",
                        len(values),
                        plain(quantile(values, 0.5)),
                        plain(max(values)),
                    )
                )
        about = "What scenarios measured of the load that the relay causes during a fault.\n"
        return (
            section(
                "Measurements",
                about,
                table(("scenario", "mode", "measured", "rounds", "median", "most"), lines),
            )
            if lines
            else ""
        )

    def drift(self):
        """Scenarios without a fault: a leak would show as a drift."""
        lines = []
        for (scenario, mode), rounds in self.groups.items():
            passed = [
                r
                for r in sorted(rounds, key=lambda r: r["at"])
                if scenario in SOAKS and r["verdict"] == "passed"
            ]
            values = [r["measured"] for r in passed if "measured" in r]
            for name in sorted({n for m in values for n in m} - set(MEASURES)):
                of = [m[name] for m in values if name in m]
                lines.append(
                    (
                        scenario,
                        mode,
                        f"`{name}`",
                        len(of),
                        plain(of[0]),
                        plain(quantile(of, 0.5)),
                        plain(of[-1]),
                    )
                )
        about = "One outbox under a steady load, one round after the other.\n"
        return (
            section(
                "Drift",
                about,
                table(("scenario", "mode", "measured", "rounds", "first", "median", "last"), lines),
            )
            if lines
            else ""
        )

    # --- Scenarios, guarantees and versions -----------------------------------------------------

    def scenarios(self):
        earlier = [
            r for r in self.all if r["protocol"] != self.protocol and r["verdict"] == "passed"
        ]
        about = (
            "In every round: no message lost, no ghost (a message in Kafka that was not\n"
            "committed), none repeated in `exactly-once` mode, none out of order, none stuck, a\n"
            "journal that agrees with Kafka, no write by a relay without the lease, and no\n"
            "unexpected exit. *Passed* counts the present version against what is wanted of it;\n"
            "*earlier* is the number of rounds that passed under earlier versions; *was* is the\n"
            "id in their archives.\n"
        )
        parts = []
        for group in GROUPS:
            lines = [
                (
                    s["id"],
                    s["was"],
                    s["fault"],
                    ", ".join(s["guarantees"]),
                    s["within"],
                    self.progress.text(s),
                    f"{sum(r['scenario'] == s['id'] for r in earlier):,}",
                    s["differs"],
                )
                for s in self.records.scenarios.values()
                if s["group"] == group
            ]
            head = "scenario|was|fault|guarantees|recovery target|passed|earlier|may differ".split(
                "|"
            )
            parts.append(f"### {group[0].upper()}{group[1:]}\n\n" + table(head, lines))
        return section("Scenarios", about, *parts)

    def violations(self, rounds):
        """What was violated in those that failed; what a scenario allows is no violation."""
        sums = {
            name: sum(r["counts"][name] for r in rounds if r["verdict"] == "failed")
            for name in VIOLATIONS
        }
        return ", ".join(f"{name} {n:,}" for name, n in sums.items() if n)

    def versions(self):
        lines = []
        for version in {r["protocol"] for r in self.all}:
            rounds = [r for r in self.all if r["protocol"] == version]
            link = f"{FOLDER}/{version}{SUFFIX}"
            lines.append(
                (
                    min(r["at"] for r in rounds),
                    max(r["at"] for r in rounds),
                    f"`{version}`",
                    f"{len(rounds):,}",
                    *(f"{sum(r['verdict'] == v for r in rounds):,}" for v in VERDICTS),
                    self.violations(rounds),
                    (
                        Link(f"{self.records.files[link]:,} lines", f"reliability/{link}")
                        if link in self.records.files
                        else ""
                    ),
                )
            )
        head = ("version", "from", "to", "rounds", *VERDICTS, "violations", "archive")
        lines = [
            (version, first[:10], last[:10], *rest)
            for first, last, version, *rest in sorted(lines, key=lambda l: l[:3])
        ]
        return section(
            "Versions of the protocol",
            VERSIONS,
            table(head, lines) if lines else "No round has been run yet.\n",
        )

    def guarantees(self):
        lines = []
        for guarantee in GUARANTEES:
            ids = [
                s["id"]
                for s in self.records.scenarios.values()
                if guarantee in s["guarantees"] and not s["later"]
            ]
            passed = {r["scenario"] for r in self.present if r["verdict"] == "passed"}
            lines.append(
                (guarantee, ", ".join(ids), f"{len(passed.intersection(ids))} of {len(ids)}")
            )
        about = (
            "[guarantees.md](guarantees.md#which-scenarios-test-it) lists the scenarios for each\n"
            "sentence of a guarantee.\n"
        )
        return section(
            "Scenarios of each guarantee",
            about,
            table(("guarantee", "scenarios", "passed under the present version"), lines),
        )

    # --- Failures, mutants, and other systems ---------------------------------------------------

    def failed(self):
        lines = []
        for r in self.all:
            fix = self.records.fixes.get(r["id"])
            if r["verdict"] == "failed":
                cause, kept_as = self.explained(r["id"])
                fixed = (
                    (fix["cause"], fix["commit"][:12], fix["kept_as"])
                    if fix
                    else (cause, "OPEN", kept_as)
                )
                lines.append(
                    (r["id"], r["scenario"], r["mode"], self.which(r), in_brief(r["why"]), *fixed)
                )
        head = "round|scenario|mode|version|why it failed|cause|fixed by|kept as".split("|")
        return section("Failed rounds", table(head, lines) if lines else "No round has failed.\n")

    def unknown(self):
        lines = []
        for r in self.all:
            again = self.records.again.get(r["id"])
            if r["verdict"] == "unknown":
                answer = (
                    (again["cause"], again["by"], self.records.rounds[again["by"]]["verdict"])
                    if again
                    else ("", "not yet", "")
                )
                lines.append(
                    (r["id"], r["scenario"], r["mode"], self.which(r), in_brief(r["why"]), *answer)
                )
        head = "round|scenario|mode|version|why it is unknown|cause|run again|which".split("|")
        return section("Unknown rounds", table(head, lines) if lines else "No round is unknown.\n")

    def mutants(self):
        lines = [
            (
                f"`{m['mutant']}`",
                m["scenario"],
                m["verdict"],
                ", ".join(m["caught_by"]),
                m["rounds"],
                self.which(m),
            )
            for m in self.tried
        ]
        about = (
            "A mutant is a relay with one deliberate defect. The checker of the campaign must\n"
            "catch it: the table shows which scenario did, by which invariant, and after how many\n"
            "rounds.\n"
        )
        head = ("mutant", "scenario", "verdict", "caught by", "rounds", "version")
        return section(
            "Mutants", about, table(head, lines) if lines else "No mutant has been tried yet.\n"
        )

    def baselines(self):
        lines = [
            (
                b["system"],
                b["scenario"],
                b["rounds"],
                *(
                    b["counts"][c]
                    for c in ("committed", "arrived", "lost", "repeated", "reordered")
                ),
                b["detail"],
            )
            for b in self.records.baselines
        ]
        about = (
            "Other systems under the same load and the same fault, with the same checks: each id once,\n"
            "each key in order.\n"
        )
        head = "system|scenario|rounds|committed|arrived|lost|repeated|reordered|how".split("|")
        return section(
            "Other systems", about, table(head, lines) if lines else "None has been run yet.\n"
        )

    def uncovered(self):
        later = [
            f"* Scenario {s['id']}: {s['later']}.\n"
            for s in self.records.scenarios.values()
            if s["later"]
        ]
        return UNCOVERED + "".join(later)

    def files(self):
        lines = [
            (f"`{name}`", lines) for name, lines in self.records.files.items() if "/" not in name
        ]
        return (
            section("Files", table(("file in `docs/reliability/`", "lines"), lines))
            if lines
            else ""
        )


def report_of(root=ROOT):
    """Raises all errors of the records together."""
    records = Records(read_scenarios(root / SCENARIOS)).read(root / RECORDS)
    if records.mistakes:
        raise RecordsError("\n".join(str(mistake) for mistake in records.mistakes))
    return Report(records, protocol_version(root))


def generate(root=ROOT):
    return report_of(root).page()


def main(arguments, root=ROOT):
    asks = len(arguments) == 2 and arguments[0] == "--missing" and arguments[1].isdecimal()
    if arguments not in ([], ["--check"], ["--archive"]) and not asks:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        report = report_of(root)
        if arguments == ["--archive"]:
            for version, count in archive(root / RECORDS, report.protocol).items():
                print(f"{some(count, 'line')} of version {version} archived")
            report = report_of(root)
        elif asks:
            for line in report.progress.missing(int(arguments[1])):
                print(*line)
            return 0
        page = report.page()
    except (Mistake, RecordsError, ProtocolError, OSError) as e:
        print(e, file=sys.stderr)
        return 1
    file = root / PAGE
    if arguments != ["--check"]:
        file.write_text(page, encoding="utf-8")
    elif report.records.plain - {None, report.protocol}:
        print(
            f"{RECORDS} has lines of an earlier version of the protocol\nHINT: run tests/faults/report.py --archive",
            file=sys.stderr,
        )
        return 1
    elif not file.exists() or file.read_text(encoding="utf-8") != page:
        print(
            f"{PAGE} is not what the records and the present protocol say\nHINT: run tests/faults/report.py",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
