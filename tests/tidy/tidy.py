#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""House rules that a compiler does not check.

    tidy.py [FOLDER]     looks at every file below FOLDER (default: this repository); exits 1 if a
                         rule is broken

Each finding is `file:line: what`. A place that may break a rule stands in EXCEPTIONS, with its
reason; an exception that nothing needs any more is a finding as well.
"""

import os
import re
import sys
from collections import Counter

LINE_MAX = 130
SOURCE_LINE_MAX = 100  # of C++ and SQL
FUNCTION_MAX = 60
FILE_MAX = 600
PRODUCTION_FILE_MAX = 400
PRODUCTION = ("relay/", "client/", "include/", "common/")
BYTES_MAX = 2_000_000
BIG_FILES = (
    r"docs/reliability/rounds-.*\.jsonl"  # the rounds of the present version of the protocol
)
BINARY = (".xz",)

SKIPPED = {".git", "build", ".scratch", "__pycache__"}  # in a worktree, .git is a file
LICENSED = (
    ".cpp",
    ".h",
    ".sql",
    ".py",
    ".sh",
    ".cmake",
    ".xml",
    ".yaml",
    ".service",
    "CMakeLists.txt",
    "Dockerfile",
)

# (rule, file, the text that is found): why it may be there.
EXCEPTIONS = {
    (
        "old word",
        "tests/faults/records.py",
        "sabotage",
    ): "the kind of a record of schema 1, which archives have",
    (
        "old word",
        "tests/faults/records.py",
        "mends",
    ): "the kind of a record of schema 1, which archives have",
    ("old word", "tests/faults/archive_test.py", "sabotage"): "writes records of schema 1",
    ("old word", "tests/faults/archive_test.py", "mends"): "writes records of schema 1",
    (
        "sleep",
        "tests/crash/consumer_that_dies.cpp",
        "sleep_for(",
    ): "the moment of its death is drawn by lot",
    (
        "sleep",
        "tests/support/process.cpp",
        "usleep(",
    ): "the pause of eventually(), which polls a condition",
    (
        "sleep",
        "tests/support/providers.py",
        "sleep(",
    ): "to be slow is what a stand-in for a provider is asked to do",
    (
        "owner",
        "relay/config/dsn.cpp",
        "PQfreemem(",
    ): "an out parameter of libpq, freed in the next line",
    (
        "owner",
        "relay/postgres/connection.cpp",
        "PQfreemem(",
    ): "an out parameter of libpq, freed in the next line",
    ("owner", "relay/postgres/reader.cpp", "PQfreemem("): "the deleter of OwnedBytes",
    (
        "owner",
        "relay/kafka/topic.cpp",
        "rd_kafka_topic_conf_destroy(",
    ): "rd_kafka_topic_new() takes it only if it succeeds",
    (
        "dead",
        "cmake/standard_library.h",
        "is never included",
    ): "is precompiled: target_precompile_headers() names it",
    ("owner", "examples/shop/print_consumer.cpp", "rd_kafka_destroy("): "is the owner",
    ("owner", "examples/shop/print_consumer.cpp", "rd_kafka_message_destroy("): "is the owner",
    (
        "owner",
        "examples/shop/print_consumer.cpp",
        "rd_kafka_topic_partition_list_destroy(",
    ): "is the owner",
}

# A target finds only the headers of the layers that it links, so the compiler keeps the layers apart.
# It finds the headers of all installed libraries: these are what a layer must not include.
FOREIGN_HEADERS = {
    "common": ("libpq-", "librdkafka/", "curl/", "openssl/"),
    "include": ("libpq-", "librdkafka/", "curl/", "openssl/"),
    "client/outbox": ("libpq-", "librdkafka/", "curl/", "openssl/"),
    "client/consumer": ("libpq-", "curl/", "openssl/"),
    "client/effects": ("libpq-", "pqxx/", "librdkafka/"),
    "relay/base": ("libpq-", "pqxx/", "librdkafka/", "curl/", "openssl/"),
    "relay/core": ("libpq-", "pqxx/", "librdkafka/", "curl/", "openssl/"),
    # Parses connection strings and checks properties with the libraries that will take them.
    "relay/config": ("pqxx/", "curl/", "openssl/"),
    "relay/postgres": ("librdkafka/", "curl/", "openssl/"),
    "relay/kafka": ("libpq-", "pqxx/", "curl/", "openssl/"),
    "relay/commands": ("curl/", "openssl/"),
}

# A signature, at the start of a line and up to the brace of its body; what begins with a keyword is
# a statement.
CPP_FUNCTION = (
    r"^( {0,4})(?!//|(?:public|protected|private|case|if|for|while|switch|else|catch|do|return|namespace|class|struct|enum)\b)"
    r"[^\s;{}#][^;{}]*\)(?: const| noexcept| override| mutable| -> [^;{}]+| : [^;{}]+)* ?\{$"
)

# (rule, files, pattern, what to do instead). Built from pieces where this file would otherwise find
# itself.
BANNED = [
    (
        "sleep",
        r"tests/(?!bench/|tidy/).*",
        r"\b(?:sleep_for|sleep_until|usleep|nanosleep|sleep)\(",
        "wait for a condition: test::eventually()",
    ),
    ("thread", r".*\.(?:cpp|h)", r"\bthread\b[^;]*\bdetach\(", "join threads"),
    (
        "select",
        r".*\.(?:cpp|h|sql)",
        r"(?i)select\s+\*\s+from\s+(?!\(\s*values)",
        "name the columns",
    ),
    ("dump", r"(?!tests/tidy/).*", r"rd_kafka_conf_" + "dump", "it prints secrets"),
    (
        "reveal",
        r"(?:relay|examples)/.*",
        r"(?:print\w*\(|puts\(|<<|log::event\(|format\w*\().*\breveal\(\)",
        "a secret is never printed",
    ),
    (
        "owner",
        r"(?:relay|client|examples)/.*\.(?:cpp|h)",
        r"(?<![\w:.>])(?:PQclear|PQfinish|PQfreemem|rd_kafka_\w*destroy|free)\(",
        "give it to its owner type",
    ),
    (
        "owner",
        r"client/.*\.(?:cpp|h)",
        r"(?<![\w:.>&])(?:curl_\w*(?:cleanup|free|free_all)|free)\(",
        "give it to its owner type",
    ),
    ("word", r".*", r"(?<![\w.$/}])/" + r"work\b|\.\./" + "shared", "the repository stands alone"),
]

# Words with a private meaning, or with several, and what is said instead: identifiers, SQL, messages
# and prose. A letter on either side makes another word; an underscore does not.
OLD_WORDS = {
    # Commands, settings, columns and log events.
    r"(?i:rebas(?:e|es|ed|ing))": "adopt",
    r"(?i:allow_unguarded)": "allow_unverified_server",
    r"can_ask": "supports_lookup",
    r"absence_delay": "lookup_delay",
    r"key_window": "idempotency_window",
    r"retry_share": "retry_budget_ratio",
    r"retry_reserve": "retry_budget_burst",
    r"on_doubt": "in_doubt_policy",
    r"doubts_max": "in_doubt_attempts_max",
    r"(?<!in_)doubt_since": "in_doubt_since",
    r"needs_human": "needs_review",
    r"effect\.pressure": "effect.throttle",
    r"effect\.(?:weigh|believe|doubt|take|is_shown)": "record_breaker_result, apply_late_answer, "
    "mark_in_doubt, claim_one, has_evidence",
    r"(?:forgery|fault)_of": "transition_error, or the error of what",
    r"(?:log_lines_)?left_out": "log_lines_dropped, suppressed",
    r"topic_barred": "topic_unwritable",
    r"upkeep_failed": "maintenance_failed",
    # Parts of the relay and its tests.
    r"(?i:sabotag(?:e|es|ed|ing))": "mutant",
    r"(?i:(?<!lock_)guard(?:s|ed)?)": "startup check, fence",
    r"(?i:judg(?:e|es|ed|ing))": "check, evaluate, classify",
    r"(?i:vet(?:s|ted|ting)?)": "validate",
    r"(?i:suspects?)": "candidate",
    r"(?i:acquit(?:s|ted)?|convicts?|convicted)": "passed, isolates",
    r"(?i:culprits?)": "the isolated message",
    r"(?i:barred)": "unwritable",
    r"(?i:crowded)": "cache_full",
    r"(?i:upkeep)": "maintenance",
    r"(?i:settlements?)": "operator decision, recover_batch",
    r"(?i:onlookers?)": "admin client",
    r"Wakeup|Reaper|Passing": "Poller, AsyncCloser, ScopedClient",
    r"Beyond|Lineage|(?<=\.)beyond": "HighWater, CopyKind, next_leaders",
    r"RequestBalance": "InFlightRequests",
    r"Demands|Finding|Stretch": "Requirements, CheckResult, OffsetRange",
    r"Course|Letters?": "ConsumerLoop, MailMessage, parked messages",
    r"made_text": "sanitize_utf8",
    r"Weather": "FaultSchedule",
    r"(?i:stand[-_]?ins?)": "fake",
    # Prose.
    r"(?i:(?<!std::)promis(?:e|es|ed))": "guarantee",
    r"(?i:persons?)": "operator",
    r"(?i:whoever)": "any client that",
    r"[Aa]new": "again",
    r"(?i:mend(?:s|ed|ing)?)": "fix",
    r"(?i:carr(?:y|ies|ied|ying)(?: it| them)?[ _]out)": "execute",
    r"(?i:tells?|told)": "report, show; of repeats: deduplicate",
    r"(?i:believ(?:e|es|ed)|weighs?)": "rely on, evaluate",
    r"(?i:befall(?:s|en)?|befell)": "happens to",
    r"(?i:say once)": "deduplicate",
}
OLD_WORD = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(f'({old})' for old in OLD_WORDS)})(?![a-z])")
# What the campaign recorded stays as it was written, and tests of this rule plant them.
OLD_WORDS_STAY = r"docs/reliability\.md|docs/reliability/.*|tests/tidy/.*"


class Tidy:
    def __init__(self, root):
        self.root = root
        self.findings = []
        self.used = set()
        self.texts = {}
        for folder, names, files in os.walk(root):
            names[:] = sorted(n for n in names if n not in SKIPPED)
            for name in sorted(set(files) - SKIPPED):
                path = os.path.join(folder, name)
                self.look_at_size(os.path.relpath(path, root), os.path.getsize(path))
                if name.endswith(BINARY):
                    continue
                with open(path, encoding="utf-8") as f:
                    self.texts[os.path.relpath(path, root)] = f.read()

    def found(self, path, line, what):
        self.findings.append(f"{path}:{line}: {what}")

    def run(self):
        for path, text in self.texts.items():
            self.look_at_lines(path, text)
            self.look_at_functions(path, text)
            self.look_for_banned(path, text)
            self.look_for_old_words(path, text)
            self.look_at_includes(path, text)
            if path.endswith(".sql"):
                self.look_for_comments(path, text.replace("@SCHEMA@", "SCHEMA"))
                self.look_at_schema_file(path, text)
        self.look_for_repeated_comments()
        self.look_at_events()
        self.look_for_dead_files()
        for rule, path, text in EXCEPTIONS.keys() - self.used:
            if path in self.texts:
                self.found(
                    "tests/tidy/tidy.py",
                    1,
                    f"nothing needs the exception ({rule}, {path}, {text}) any more",
                )
        return sorted(self.findings)

    def look_at_size(self, path, size):
        if size > BYTES_MAX and not re.fullmatch(BIG_FILES, path):
            self.found(path, 1, f"has {size:,} bytes, more than {BYTES_MAX:,}")

    # --- One file -------------------------------------------------------------------------------

    def look_at_lines(self, path, text):
        lines = text.splitlines()
        shell = text.startswith("#!")
        if (path.endswith(LICENSED) or shell) and not any(
            "SPDX-License-Identifier: Apache-2.0" in l for l in lines[:2]
        ):
            self.found(path, 1, "has no SPDX line")
        if text and not text.endswith("\n"):
            self.found(path, len(lines), "does not end with a line feed")
        file_max = PRODUCTION_FILE_MAX if path.startswith(PRODUCTION) else FILE_MAX
        if path.endswith((".cpp", ".h", ".py", ".sql")) and len(lines) > file_max:
            self.found(path, 1, f"has {len(lines)} lines, more than {file_max}")
        line_max = SOURCE_LINE_MAX if path.endswith((".cpp", ".h", ".sql")) else LINE_MAX
        for number, line in enumerate(lines, 1):
            one_record = path.endswith(".jsonl") or (path.endswith(".md") and line.startswith("|"))
            if len(line) > line_max and not one_record and path != "LICENSE":
                self.found(path, number, f"line of {len(line)} characters, more than {line_max}")
            if line != line.rstrip():
                self.found(path, number, "blanks at the end of the line")
            if "\t" in line:
                self.found(path, number, "a tab")
            # A statement is converted to the encoding of its database, which may lack the character.
            if path.startswith("sql/") and path.endswith(".sql") and not line.isascii():
                self.found(path, number, "a character that is not ASCII")

    def look_at_functions(self, path, text):
        """A function begins with a signature that ends in a brace, and ends with a brace (Python: a
        line) no deeper than that.
        """
        if path.endswith((".cpp", ".h")):
            begin, end = CPP_FUNCTION, r"^{}\}}"
        elif path.endswith(".py"):
            begin, end = r"^( *)def ", r"^(?!{} )\s*\S"
        elif path.startswith("scripts/"):
            begin, end = r"^()\w+\(\) \{$", r"^{}\}}"
        else:
            return
        for match in re.finditer(begin, text, re.M):
            over = re.compile(end.format(match.group(1)), re.M).search(text, match.end())
            if not over and not path.endswith(".py"):
                continue  # a lambda, passed on
            lines = text.count("\n", match.start(), over.start() if over else len(text)) + (
                not path.endswith(".py")
            )
            if lines > FUNCTION_MAX:
                self.found(
                    path,
                    text.count("\n", 0, match.start()) + 1,
                    f"function of {lines} lines, more than {FUNCTION_MAX}",
                )

    def look_for_banned(self, path, text):
        for rule, files, pattern, instead in BANNED:
            if not re.fullmatch(files, path):
                continue
            for number, line in enumerate(text.splitlines(), 1):
                for match in re.finditer(pattern, line):
                    if (rule, path, match.group()) in EXCEPTIONS:
                        self.used.add((rule, path, match.group()))
                    else:
                        self.found(path, number, f"banned: {match.group()} ({instead})")

    def look_for_old_words(self, path, text):
        if re.fullmatch(OLD_WORDS_STAY, path):
            return
        for match in OLD_WORD.finditer(text):
            word = match.group()
            if ("old word", path, word) in EXCEPTIONS:
                self.used.add(("old word", path, word))
                continue
            says = list(OLD_WORDS.values())[match.lastindex - 1]
            line = text.count("\n", 0, match.start()) + 1
            self.found(path, line, f"old word: {word} (say: {says})")

    def look_at_includes(self, path, text):
        parts = path.split("/")
        layer = "/".join(parts[:2]) if parts[0] in ("relay", "client") else parts[0]
        for number, line in enumerate(text.splitlines(), 1):
            match = re.match(r'#include ["<]([^">]+)[">]', line)
            if match and match.group(1).startswith(FOREIGN_HEADERS.get(layer, ())):
                self.found(path, number, f"layer {layer} does not know <{match.group(1)}>")

    def look_for_comments(self, path, text):
        """Every schema object is commented: what `\\d+` shows is the reference of whoever has no
        other.
        """
        commented = Counter(
            re.sub(r"\s", "", c)
            for c in re.findall(
                r"comment on ((?:table|column|function|type|view) .*?)\s+is\b", text, re.S
            )
        )

        def expect(match, kind, name):
            if not commented[re.sub(r"\s", "", f"{kind} {name}")]:
                self.found(
                    path, text.count("\n", 0, match.start()) + 1, f"no comment on {kind} {name}"
                )

        for table in re.finditer(
            r"create table (?:if not exists )?([\w.]+) \(\n(.*?)^\)", text, re.S | re.M
        ):
            expect(table, "table", table.group(1))
            for column in re.findall(r"^  (\w+) ", table.group(2), re.M):
                if column not in ("primary", "unique", "check", "constraint", "foreign"):
                    expect(table, "column", f"{table.group(1)}.{column}")
        for function in re.finditer(
            r"create (?:or replace )?(?:function|procedure) ([\w.]+)\s*\((.*?)\)\s*returns",
            text,
            re.S,
        ):
            arguments = [
                re.sub(r"\s+default .*", "", a.strip(), flags=re.S)
                for a in function.group(2).split(",")
                if a.strip()
            ]
            expect(
                function,
                "function",
                f"{function.group(1)}({','.join(a.split(' ', 1)[-1] for a in arguments)})",
            )
        for kind in re.finditer(r"create (?:or replace )?(type|view) ([\w.]+)", text):
            expect(kind, kind.group(1), kind.group(2))

    def look_at_schema_file(self, path, text):
        """A numbered file of a schema runs once, and changes tables; what is in functions/ runs at
        each init: see sql/README.md.
        """
        numbered = re.fullmatch(r"sql/\w+/\d\d\d_\w+\.sql", path)
        if not numbered and not re.fullmatch(r"sql/\w+/functions/\w+\.sql", path):
            return
        for match in re.finditer(
            r"^ *create (or replace )?(function|procedure|view|trigger|table|index|unique index|type) ([\w.]+)",
            text,
            re.M,
        ):
            line, kind, name = (
                text.count("\n", 0, match.start()) + 1,
                match.group(2),
                match.group(3),
            )
            if numbered and kind in ("function", "procedure"):
                uses = re.findall(r"(?<!function )" + re.escape(name) + r"\(", text)
                if not uses:
                    self.found(
                        path,
                        line,
                        f"function {name} belongs into functions/: no default, check or index of this file needs it",
                    )
            elif numbered and kind in ("view", "trigger"):
                self.found(path, line, f"{kind} {name} belongs into functions/")
            elif not numbered and kind in ("table", "index", "unique index", "type"):
                self.found(
                    path,
                    line,
                    f"{kind} {name} belongs into a numbered file: this one runs at each init",
                )
            elif not numbered and kind != "trigger" and not match.group(1):
                self.found(
                    path,
                    line,
                    f"{kind} {name} is created by `create or replace`: this file runs at each init",
                )
        if not numbered:
            for match in re.finditer(
                r"^(?:alter|drop|insert|update|delete|truncate)\b.*", text, re.M
            ):
                self.found(
                    path,
                    text.count("\n", 0, match.start()) + 1,
                    f"belongs into a numbered file: {match.group()}",
                )

    def look_for_repeated_comments(self):
        seen = {}
        for path, text in self.texts.items():
            if not path.startswith("sql/"):
                continue
            for match in re.finditer(r"comment on (\w+ [^';]*?)\s+is\b", text):
                thing = re.sub(r"\s", "", match.group(1).replace("@SCHEMA@", "SCHEMA"))
                if thing in seen:
                    self.found(
                        path,
                        text.count("\n", 0, match.start()) + 1,
                        f"another comment on {match.group(1)}: see {seen[thing]}",
                    )
                seen.setdefault(thing, path)

    # --- The whole tree -------------------------------------------------------------------------

    def look_at_events(self):
        page = "docs/runbook.md"
        table = re.search(r"^## Log events$(.*?)(?=^## |\Z)", self.texts.get(page, ""), re.S | re.M)
        documented = set(re.findall(r"^\| `(\w+)` \|", table.group(1), re.M)) if table else set()
        logged = set()
        for path, text in self.texts.items():
            if not path.startswith("relay/") or path == "relay/base/log.h":
                continue
            for match in re.finditer(r'log::event\([^;]*?"(\w+)"', text):
                logged.add(match.group(1))
                if match.group(1) not in documented:
                    self.found(
                        path,
                        text.count("\n", 0, match.start()) + 1,
                        f"event {match.group(1)} is not documented in {page}",
                    )
        for event in sorted(documented - logged):
            self.found(page, 1, f"event {event} is documented and never logged")

    def look_for_dead_files(self):
        included = set(h for t in self.texts.values() for h in re.findall(r'#include "([^"]+)"', t))
        for path in self.texts:
            others = lambda: (t for p, t in self.texts.items() if p != path)
            name = os.path.basename(path)
            if (
                path.endswith(".h")
                and not path.startswith("include/")
                and path not in included
                and name not in included
            ):
                if ("dead", path, "is never included") in EXCEPTIONS:
                    self.used.add(("dead", path, "is never included"))
                else:
                    self.found(path, 1, "is never included")
            elif (
                path.startswith(("scripts/", "docs/", "config/", ".ci/"))
                and path != ".ci/run"
                and not any(name in t for t in others())
            ):
                self.found(path, 1, "is named nowhere")


def main():
    root = (
        sys.argv[1]
        if len(sys.argv) > 1
        else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    )
    tidy = Tidy(os.path.normpath(root))
    findings = tidy.run()
    for finding in findings:
        print(finding)
    print(f"{len(tidy.texts)} files, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
