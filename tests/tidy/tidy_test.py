#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A rule that finds nothing is no rule: plants each violation in a tidy tree and expects it to be
found, and nothing else.
"""

import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
from tidy import OLD_WORDS, Tidy  # noqa: E402

CPP = "// SPDX-License-Identifier: Apache-2.0\n"
SQL = "-- SPDX-License-Identifier: Apache-2.0\n"
PYTHON = "# SPDX-License-Identifier: Apache-2.0\n"
TIDY_TREE = {
    "relay/core/loop.h": CPP + "#pragma once\n",
    "relay/core/loop.cpp": CPP
    + '#include "relay/core/loop.h"\n\nvoid f() {\n  log::event(Level::info, "started", {});\n}\n',
    "docs/runbook.md": "# Runbook\n\n## Log events\n\n| event | means |\n| --- | --- |\n| `started` | it began |\n",
    "README.md": "See docs/runbook.md.\n",
}


def function(lines, head="void g() {", foot="}"):
    return "\n".join([head] + ["  x();"] * (lines - 2) + [foot]) + "\n"


class TidyTest(unittest.TestCase):
    def findings(self, more=None, without=()):
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**TIDY_TREE, **(more or {})}.items():
                if path in without:
                    continue
                os.makedirs(os.path.dirname(os.path.join(root, path)) or root, exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as f:
                    f.write(text)
            return Tidy(root).run()

    def expect(self, path, text, *whats):
        found = self.findings({path: text})
        self.assertEqual(len(found), len(whats), found)
        for what in whats:
            self.assertTrue(any(f.startswith(path + ":") and what in f for f in found), found)

    def test_a_tidy_tree_has_no_findings(self):
        self.assertEqual(self.findings(), [])

    def test_sql_is_ascii(self):
        self.expect("sql/common/a.sql", SQL + "-- \u2026\n", "a character that is not ASCII")

    def test_lines(self):
        for path, head in (
            ("relay/a.cpp", CPP),
            ("tests/a.h", CPP + '#include "a.h"\n'),
            ("a.sql", SQL),
        ):
            self.expect(path, head + "x" * 101 + "\n", "line of 101 characters, more than 100")
            self.expect(path, head + "x" * 100 + "\n")
        for path, head in (("a.py", PYTHON), ("a.md", ""), ("CMakeLists.txt", PYTHON)):
            self.expect(path, head + "x" * 131 + "\n", "line of 131 characters, more than 130")
            self.expect(path, head + "x" * 130 + "\n")
        self.expect("a.jsonl", "x" * 131 + "\n")
        self.expect("a.md", "|" + "x" * 131 + "\n")
        self.expect(".git", "x" * 151)
        self.expect("relay/a.cpp", CPP + "x \n", "blanks")
        self.expect("relay/a.cpp", CPP + "\tx\n", "a tab")
        self.expect("relay/a.cpp", CPP + "x", "line feed")
        self.expect("relay/a.cpp", "x\n", "SPDX")

    def test_files(self):
        for path in ("relay/a.cpp", "client/effects/a.cpp", "include/outbox/a.h", "common/a.cpp"):
            self.expect(path, CPP + "x\n" * 400, "has 401 lines, more than 400")
            self.expect(path, CPP + "x\n" * 399)
        for path, head in (("tests/a.cpp", CPP), ("a.py", PYTHON), ("a.sql", SQL)):
            self.expect(path, head + "x\n" * 600, "has 601 lines, more than 600")
            self.expect(path, head + "x\n" * 599)

    def test_functions(self):
        self.expect("relay/a.cpp", CPP + function(61), "function of 61 lines")
        self.expect("relay/a.cpp", CPP + function(60))
        method = function(61, "  int g(int a,\n        int b) const {", "  }")
        self.expect("relay/a.cpp", CPP + "struct S {\n" + method + "};\n", "function of 62 lines")
        self.expect(
            "relay/a.cpp", CPP + function(61, "TEST_F(Fixture, DoesIt) {"), "function of 61 lines"
        )
        self.expect("relay/a.cpp", CPP + function(61, "namespace n {"))
        condition = "void g() {\n  if (a ||\n      b(c)) {\n    x();\n  }\n}\n"
        self.expect("relay/a.cpp", CPP + condition + function(60))
        self.expect(
            "tests/a.py", PYTHON + function(61, "def g():", "  x()") + "\n\nf()\n", "function of"
        )
        self.expect("tests/a.py", PYTHON + function(60, "def g():", "  x()"))

    def test_foreign_headers(self):
        refused = {
            "common/a.cpp": ("<libpq-fe.h>", "<librdkafka/rdkafka.h>", "<curl/curl.h>"),
            "include/outbox/a.h": ("<libpq-fe.h>", "<librdkafka/rdkafka.h>", "<curl/curl.h>"),
            "client/outbox/a.cpp": ("<libpq-fe.h>", "<librdkafka/rdkafka.h>", "<openssl/evp.h>"),
            "client/consumer/a.cpp": ("<libpq-fe.h>", "<curl/curl.h>"),
            "client/effects/a.cpp": ("<pqxx/pqxx>", "<libpq-fe.h>", "<librdkafka/rdkafka.h>"),
            "relay/base/a.cpp": ("<pqxx/pqxx>", "<libpq-fe.h>", "<librdkafka/rdkafka.h>"),
            "relay/core/a.cpp": ("<pqxx/pqxx>", "<libpq-fe.h>", "<librdkafka/rdkafka.h>"),
            "relay/config/a.cpp": ("<pqxx/pqxx>", "<curl/curl.h>"),
            "relay/postgres/a.cpp": ("<librdkafka/rdkafka.h>", "<openssl/evp.h>"),
            "relay/kafka/a.cpp": ("<pqxx/pqxx>", "<libpq-fe.h>", "<curl/curl.h>"),
            "relay/commands/a.cpp": ("<curl/curl.h>",),
        }
        for path, headers in refused.items():
            for header in headers:
                layer = path.rsplit("/", 1)[0].removesuffix("/outbox" * path.startswith("include/"))
                what = f"layer {layer} does not know {header}"
                self.expect(path, CPP + f"#include {header}\n", what)
        for path, header in (
            ("common/a.cpp", "<pqxx/pqxx>"),
            ("client/consumer/a.cpp", "<librdkafka/rdkafka.h>"),
            ("client/effects/a.cpp", "<curl/curl.h>"),
            ("relay/config/a.cpp", "<libpq-fe.h>"),
            ("relay/postgres/a.cpp", "<pqxx/pqxx>"),
            ("relay/kafka/a.cpp", "<librdkafka/rdkafka.h>"),
            ("tests/unit/a.cpp", "<curl/curl.h>"),
        ):
            self.expect(path, CPP + f"#include {header}\n")

    def test_banned(self):
        self.expect("tests/unit/a.cpp", CPP + "sleep_for(1s);\n", "sleep_for(")
        self.expect("tests/unit/a.cpp", CPP + "  sleep(1);\n", "sleep(")
        self.expect("tests/unit/a.cpp", CPP + "select pg_sleep(1)\n")
        self.expect("tests/bench/a.cpp", CPP + "sleep_for(1s);\n")
        self.expect("relay/core/a.cpp", CPP + "std::thread(f).detach();\n", "detach(")
        self.expect("relay/core/a.cpp", CPP + "topics_.detach();\n")
        self.expect(
            "relay/core/a.cpp", CPP + 'run("select * from outbox.message");\n', "name the columns"
        )
        self.expect(
            "sql/outbox/002_a.sql", SQL + "SELECT * FROM outbox.message;\n", "name the columns"
        )
        self.expect("sql/outbox/002_a.sql", SQL + "select * from (values (1)) as v(x);\n")
        self.expect("relay/core/a.cpp", CPP + "rd_kafka_conf_dump(c, &n);\n", "secrets")
        self.expect("relay/core/a.cpp", CPP + "out << dsn.reveal();\n", "never printed")
        self.expect(
            "relay/core/a.cpp",
            CPP + 'log::event(l, "started", {{"dsn", dsn.reveal()}});\n',
            "never printed",
        )
        self.expect("relay/core/a.cpp", CPP + "connect(dsn.reveal());\n")
        self.expect("relay/core/a.cpp", CPP + "PQclear(r);\n", "owner type")
        self.expect("relay/core/a.cpp", CPP + "  rd_kafka_topic_destroy(t);\n", "owner type")
        self.expect("relay/core/a.cpp", CPP + "free(p);\n", "owner type")
        self.expect("client/effects/a.cpp", CPP + "curl_easy_cleanup(c);\n", "owner type")
        self.expect("relay/core/a.cpp", CPP + "std::unique_ptr<T, Destroyer<PQclear>> r;\n")
        self.expect("a.md", "built in /" + "work/a\n", "stands alone")
        self.expect("a.md", "see .." + "/shared/a\n", "stands alone")
        self.expect("a.md", "a framework/worker\n")

    # What each pattern of OLD_WORDS finds.
    OLD = (
        """rebase REBASED allow_unguarded can_ask absence_delay key_window retry_share retry_reserve
        on_doubt doubts_max doubt_since needs_human effect.pressure effect.weigh effect.is_shown
        fault_of forgery_of log_lines_left_out left_out topic_barred upkeep_failed sabotage SABOTAGED
        guards guard_progress_topic judge judged judge_order vetted Suspects suspect acquit convicts
        culprits_known barred doubt_barred_topics crowded Upkeep upkeep settlement make_onlooker
        Wakeup Reaper Passing Beyond r.beyond Lineage RequestBalance Demands Finding Stretch Course
        Letters Letter made_text Weather StandIns stand-in stand_ins promises promised
        person persons whoever Whoever anew insert_anew mend mended carried_out tell told_ tells
        believe weigh befalls befell""".split()
    )
    OLD_PHRASES = ("carry out", "carries it out", "carried out", "say once", "a person decides")
    # Other words, or the same ones with the meaning that everybody knows.
    ORDINARY = """std::promise<int> in_doubt_since std::lock_guard recommend amended beyond letters
        letter passing findings finding course wakeup demands stretch weathered personal renewed
        velvet covet bodyguard tellg retold effect.doubtful fresh_from in_doubt_attempts_max""".split()

    def test_old_words(self):
        old = [*self.OLD, *self.OLD_PHRASES]
        page = TIDY_TREE["docs/runbook.md"]
        found = self.findings({"docs/runbook.md": page + "\n".join(old) + "\n"})
        first = page.count("\n") + 1
        for number, word in enumerate(old, first):
            here = [f for f in found if f.startswith(f"docs/runbook.md:{number}: old word: ")]
            self.assertTrue(here, f"{word} is not found")
        for pattern in OLD_WORDS:
            self.assertRegex("\n".join(old), pattern)
        self.expect("relay/core/a.cpp", CPP + "\n".join(self.ORDINARY) + "\n")
        for path, head in (("client/a.cpp", CPP), ("sql/a.sql", SQL), ("tests/a.py", PYTHON)):
            self.expect(path, head + "x\nx anew\n", ":3: old word: anew (say: again)")
        self.expect("tests/faults/records.py", PYTHON + "mends sabotage anew\n", "old word: anew")
        both = "See docs/runbook.md and docs/reliability.md.\n"
        self.assertEqual(self.findings({"docs/reliability.md": "anew\n", "README.md": both}), [])

    def test_sizes(self):
        big = ("x" * 99 + "\n") * 20_001
        self.expect("tests/data.txt", big, "2,000,100 bytes")
        self.expect("tests/data.xz", big, "2,000,100 bytes")
        self.expect("docs/reliability/rounds-R1.jsonl", big, "named nowhere")
        self.expect("tests/data.txt", big[:2_000_000])

    def test_comments_in_sql(self):
        table = SQL + "create table outbox.t (\n  a integer primary key,\n  check (a > 0)\n);\n"
        about = "comment on table outbox.t is 'x';\ncomment on column outbox.t.a is 'x';\n"
        self.expect("sql/outbox/002_a.sql", table, "table outbox.t", "column outbox.t.a")
        self.expect("sql/outbox/002_a.sql", table + about)
        create = (
            SQL
            + "create function outbox.f(a text, b jsonb default null) returns uuid language sql as 'x';\n"
        )
        self.expect("sql/a.sql", create, "function outbox.f(text,jsonb)")
        self.expect(
            "sql/a.sql",
            create + "comment on function outbox.f(text) is 'another';\n",
            "function outbox.f(text,jsonb)",
        )
        self.expect("sql/a.sql", create + "comment on function outbox.f(text, jsonb) is\n  'x';\n")
        self.expect(
            "sql/common/a.sql",
            create.replace("outbox.", "@SCHEMA@."),
            "function SCHEMA.f(text,jsonb)",
        )
        self.expect(
            "sql/outbox/002_a.sql", SQL + "create type outbox.s as (a integer);\n", "type outbox.s"
        )
        self.expect(
            "sql/outbox/functions/a.sql",
            SQL + "create or replace view outbox.v as select 1;\n",
            "view outbox.v",
        )

    def test_each_object_has_one_comment(self):
        found = self.findings(
            {
                "sql/outbox/001_a.sql": SQL + "comment on schema outbox is 'x';\n",
                "sql/outbox/functions/a.sql": SQL + "comment on schema outbox is\n  'y';\n",
            }
        )
        self.assertEqual(
            found,
            [
                "sql/outbox/functions/a.sql:2: another comment on schema outbox: see sql/outbox/001_a.sql"
            ],
        )
        self.assertEqual(
            self.findings(
                {
                    "sql/outbox/001_a.sql": SQL + "comment on function outbox.f(a) is 'x';\n",
                    "sql/outbox/functions/a.sql": SQL + "comment on function outbox.f(b) is 'y';\n",
                }
            ),
            [],
        )

    def test_numbered_files_change_tables_and_the_others_do_not(self):
        numbered, functions = "sql/outbox/002_a.sql", "sql/outbox/functions/a.sql"
        function = "create {}function outbox.f() returns uuid language sql as 'x';\ncomment on function outbox.f() is 'x';\n"
        self.expect(
            numbered, SQL + function.format(""), "function outbox.f belongs into functions/"
        )
        self.expect(
            numbered,
            SQL + function.format("or replace "),
            "function outbox.f belongs into functions/",
        )
        self.expect(
            numbered,
            SQL + function.format("") + "alter table outbox.t add a uuid default outbox.f();\n",
        )
        self.expect(
            numbered,
            SQL + "create view outbox.v as select 1;\ncomment on view outbox.v is 'x';\n",
            "view outbox.v belongs into functions/",
        )
        self.expect(
            numbered,
            SQL + "create trigger k before update on outbox.t execute function outbox.f();\n",
            "trigger k belongs into functions/",
        )
        self.expect(functions, SQL + function.format("or replace "))
        self.expect(functions, SQL + function.format(""), "is created by `create or replace`")
        self.expect(
            functions,
            SQL + "create index i on outbox.t (a);\n",
            "index i belongs into a numbered file",
        )
        self.expect(
            functions,
            SQL
            + "do $$\nbegin\n  create trigger k before update on outbox.t execute function outbox.f();\nend\n$$;\n",
        )
        self.expect(
            functions,
            SQL + "drop function outbox.f();\n",
            "belongs into a numbered file: drop function outbox.f();",
        )

    def test_events(self):
        self.expect(
            "relay/core/a.cpp",
            CPP + 'log::event(b ? Level::info : Level::warn,\n    "surprise", {});\n',
            "event surprise",
        )
        self.assertEqual(
            len(self.findings(without=("relay/core/loop.cpp",))), 2
        )  # and the header is dead

    def test_dead_files(self):
        self.expect("relay/core/a.h", CPP, "never included")
        self.expect("cmake/standard_library.h", CPP)
        self.expect("scripts/orphan", "#!/bin/sh\n" + PYTHON, "named nowhere")
        self.expect("docs/a.md", "x\n", "named nowhere")

    def test_an_exception_is_needed_or_found(self):
        found = self.findings({"tests/support/process.cpp": CPP})
        self.assertEqual(len(found), 1)
        self.assertIn("nothing needs the exception", found[0])
        self.expect("tests/support/process.cpp", CPP + "usleep(1);\n")


if __name__ == "__main__":
    unittest.main()
