#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The version of the protocol changes with every token, and with nothing else."""

import pathlib
import random
import re
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import protocol  # noqa: E402
from protocol import (
    ProtocolError,
    digest_of,
    protocol_version,
    tokens_of_cpp,
    tokens_of_sql,
    version_of,
)  # noqa: E402

DELETIONS = 6  # tokens of each file; tests/faults/protocol_test.py --all deletes each of them
SEED = random.randrange(1_000_000)


def cpp(text):
    return [token for token, _, _ in tokens_of_cpp(text)]


def sql(text):
    return [token for token, _, _ in tokens_of_sql(text)]


class TokensTest(unittest.TestCase):
    tokens = staticmethod(cpp)

    def same(self, one, *others):
        for other in others:
            self.assertEqual(self.tokens(one), self.tokens(other))

    def differ(self, one, *others):
        for other in others:
            self.assertNotEqual(self.tokens(one), self.tokens(other))


class CppTest(TokensTest):
    def test_comments_and_white_space_do_not_count(self):
        self.same(
            "int f(int a) { return a<1; }",
            "int f(int a)\n{\n\treturn a < 1;  // one\n}\n",
            'int /* f( */ f(int a) { return a<1; } // "',
        )
        self.same(
            "int a;",
            "int a;\r\n",
            "// x \\\nint b;\nint a;",
            "int a; // what a line's end is \\\n   is a comment\n",
        )
        self.same("a = b / c;", "a = b / /* d */ c;", "a = b\\\n / c;")
        self.differ("intf;", "int f;")
        self.differ("a = b // c\n;", "a = b / c\n;")

    def test_a_formatter_changes_nothing(self):
        self.same("m<a, m<b, c>> x;", "m<a, m<b, c> > x;", "m< a,m<b,c\n> >x ;")
        self.same("x = a >> b; y >>= c;", "x = a>>b; y >>=c;")
        self.same(
            'f("ab" "cd");', 'f("abcd");', 'f("ab"\n  "cd");', 'f("a"  // why\n  "b" "c" "d");'
        )
        self.same("a->b++ <=> -c;", "a -> b++<=>- c;")

    def test_what_is_compiled_counts(self):
        for one, *others in (
            ("f(a);", "f(b);", "f(a, );", "{f(a);}", "f(a)", "g(a);"),
            ("a >= b;", "a > b;", "a >> b;", "a = b;"),
            ("a-- - b;", "a - b;"),
            ("x = 1'000;", "x = 1'00;", "x = 1000;", "x = 1e3;"),
            ("x = 'a';", "x = 'b';", "x = u'a';", 'x = "a";'),
        ):
            self.differ(one, *others)
        self.differ("{1, 2}", "{1, 2,}")
        self.differ("a + +b;", "a ++b;")

    def test_literals_count_as_they_are(self):
        self.differ(
            'f("a b");', 'f("a  b");', 'f("a b" );f', 'f(u8"a b");', 'f("a b"sv);', 'f("a // b");'
        )
        self.differ(r'f("\x1" "2");', r'f("\x12");')
        self.differ(r'f("\0" "2");', r'f("\02");')
        self.same(r'f("\\x1" "2");', r'f("\\x12");')
        self.differ('f("a" L"b");', 'f("ab");')
        self.assertEqual(
            cpp(r"""f('"', '\'', "\"/*", '//');"""),
            ["f", "(", "'\"'", ",", r"'\''", ",", r'"\"/*"', ",", "'//'", ")", ";"],
        )
        self.assertEqual(
            cpp("x = 0x1'fF + 1.5e-3f + .5;"), ["x", "=", "0x1'fF", "+", "1.5e-3f", "+", ".5", ";"]
        )

    def test_a_raw_string_counts_as_it_is(self):
        self.differ(
            'f(R"(a b)");', 'f(R"(a  b)");', 'f(R"(a\nb)");', 'f(R"(a -- b)");', 'f("a b");'
        )
        self.assertEqual(
            cpp('f(R"x(a)" // "\\\n)x", 1); // no'),
            ["f", "(", 'R"x(a)" // "\\\n)x"', ",", "1", ")", ";"],
        )
        self.assertEqual(
            cpp('int \\\na = R"(\\\n)"; g\\\nh(R"(2)")'),
            ["int", "a", "=", 'R"(\\\n)"', ";", "gh", "(", 'R"(2)"', ")"],
        )
        self.assertEqual(cpp('FOOR"(a)"'), ["FOOR", '"(a)"'])

    def test_directives_count_but_for_includes_and_pragma_once(self):
        self.same(
            "int a;",
            "#pragma once\n#include <b.h>\nint a;",
            '  #  include "c.h"  // why\nint a;',
            "int a;\n#include <d'e>\n",
        )
        self.same(
            "#define A 1\nint a;", "#define  A  1 // one\n\nint a;", "#define A \\\n 1\nint a;"
        )
        self.differ(
            "#define A 1\nint a;",
            "#define A\n1 int a;",
            "#define A 1 int\na;",
            "#define A 2\nint a;",
            "int a;",
        )
        self.differ("#define f(x) x\n", "#define f (x) x\n")
        self.differ("#pragma pack(1)\n", "#pragma pack(2)\n", "")
        self.differ("#ifdef A\nint a;\n#endif\n", "#ifndef A\nint a;\n#endif\n", "int a;")
        self.differ("#define include 1\n", "")
        self.differ('#define A "a"\n', '#define A "a" \\\n "b"\n')
        self.differ('#define A "a"\n"b"', '#define A "a" "b"\n')

    def test_what_is_no_token_is_refused(self):
        for text in ('f("a);', "f('a);", 'R"(a', "a\n@b"):
            with self.assertRaises(ProtocolError):
                cpp(text)
        with self.assertRaisesRegex(ProtocolError, "^3: "):
            cpp('// a\n\n"b\n')


class SqlTest(TokensTest):
    tokens = staticmethod(sql)

    def test_comments_and_white_space_do_not_count(self):
        self.same(
            "select a<1 from b;",
            "select a < 1\n  from b; -- one\n",
            "select /* a /* nested */ ' */ a<1 from b;",
            "select a<1--\nfrom b;",
        )
        self.differ("select a -b;", "select a --b;\n")
        self.differ("select a;", "SELECT a;", "select A;")

    def test_what_runs_counts(self):
        for one, *others in (
            ("select a <> b;", "select a < b;", "select a = b;"),
            ("select 1.5;", "select 1.50;", "select 15;"),
            ("select $1;", "select $2;"),
            ("select a::b;", "select a:b;"),
            ("f(a => 1)", "f(a >= 1)"),
            ("x := 1", "x = 1"),
        ):
            self.differ(one, *others)
        self.assertEqual(
            sql("a<-1 @-b 1..10 x.y[1:n]"),
            [
                "a",
                "<",
                "-",
                "1",
                "@-",
                "b",
                "1",
                "..",
                "10",
                "x",
                ".",
                "y",
                "[",
                "1",
                ":",
                "n",
                "]",
            ],
        )

    def test_literals_count_as_they_are(self):
        self.differ(
            "select 'a b';",
            "select 'a  b';",
            "select E'a b';",
            "select 'a b''';",
            "select 'a -- b';",
            'select "a b";',
        )
        self.assertEqual(
            sql(r"""'it''s' e'\'--' "a""b" U&'x' b'1' '\'"""),
            ["'it''s'", r"e'\'--'", '"a""b"', "U&'x'", "b'1'", r"'\'"],
        )
        self.differ("comment on table a is $$a b$$;", "comment on table a is $$a  b$$;")
        self.same("comment on table a is $$a b$$;", "comment on table a is $x$a b$x$;")

    def test_the_body_of_a_function_is_code(self):
        head = "create function f() returns text language plpgsql as "
        body = head + "$$ begin return 'a b'; end $$;"
        self.same(body, head + "$f$\nbegin\n  -- why\n  return 'a b'; /* so */\nend\n$f$;")
        self.differ(
            body,
            head + "$$ begin return 'a  b'; end $$;",
            head + "$$ begin return 'a b'; $$;",
            head + "'begin return ''a b''; end';",
        )
        for block in ("do ", "do language plpgsql ", "DO "):
            self.same(block + "$$ begin f(); end $$;", block + "$a$begin f();--\nend$a$;")
        self.differ(
            "do $$ begin execute $f$ a b $f$; end $$;", "do $$ begin execute $f$ a  b $f$; end $$;"
        )

    def test_what_is_no_token_is_refused(self):
        for text in ("select 'a", 'select "a', "do $$ begin", "/* a /* b */", "\\if a"):
            with self.assertRaises(ProtocolError):
                sql(text)
        with self.assertRaisesRegex(ProtocolError, "^2: "):
            sql("select\n'a")


class VersionTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        for name, text in (
            (
                "tests/faults/protocol_files.txt",
                "# the loop\nrelay/core/loop.*\nsql/outbox/**/*.sql\n",
            ),
            ("relay/core/loop.cpp", "int a;\n"),
            ("relay/core/loop.h", "#pragma once\n#include <a>\nint b;\n"),
            ("sql/outbox/001.sql", "select 1;\n"),
        ):
            self.write(name, text)
        self.version = protocol_version(self.root)

    def write(self, name, text):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text, encoding="utf-8")

    def test_names_paths_and_files_without_tokens_do_not_count(self):
        (self.root / "sql/outbox/functions").mkdir()
        (self.root / "sql/outbox/001.sql").rename(self.root / "sql/outbox/functions/a.sql")
        (self.root / "relay/core/loop.cpp").rename(self.root / "relay/core/loop.x.cpp")
        self.write("relay/core/loop.y.h", '// nothing\n#pragma once\n#include "b.h"\n')
        self.write("relay/core/loop.cpp~", "left by an editor\n")
        self.assertEqual(protocol_version(self.root), self.version)

    def test_each_file_counts(self):
        self.write("relay/core/loop.h", "int c;\n")
        self.assertNotEqual(protocol_version(self.root), self.version)
        self.write("relay/core/loop.h", "int b;\n")
        self.assertEqual(protocol_version(self.root), self.version)
        self.write("relay/core/loop.z.h", "int b;\n")
        self.assertNotEqual(protocol_version(self.root), self.version)

    def test_the_same_text_in_two_languages_differs(self):
        self.assertNotEqual(digest_of(".sql", "a"), digest_of(".h", "a"))
        self.assertNotEqual(digest_of(".h", "a b"), digest_of(".h", "ab"))

    def test_a_pattern_that_matches_nothing_is_refused(self):
        self.write("tests/faults/protocol_files.txt", "relay/core/loop.*\nrelay/core/gone.*\n")
        with self.assertRaisesRegex(ProtocolError, "protocol_files.txt:2: relay/core/gone"):
            protocol_version(self.root)
        self.write("relay/core/gone.cpp~", "left by an editor\n")
        with self.assertRaises(ProtocolError):
            protocol_version(self.root)

    def test_what_cannot_be_read_is_named(self):
        self.write("relay/core/loop.h", 'int a;\n"b\n')
        with self.assertRaisesRegex(ProtocolError, "relay/core/loop.h:2: .*\nHINT: "):
            protocol_version(self.root)


class RealFilesTest(unittest.TestCase):
    """The files that are the protocol today."""

    def setUp(self):
        self.files = {
            path: (protocol.ROOT / path).read_text(encoding="utf-8")
            for path in protocol.protocol_files()
        }
        self.digests = {
            path: digest_of(pathlib.Path(path).suffix, text) for path, text in self.files.items()
        }

    def places(self, path):
        return [
            (b, e)
            for _, b, e in protocol.TOKENIZERS[pathlib.Path(path).suffix](self.files[path])
            if e > b
        ]

    def version(self, path, text):
        return version_of(
            {**self.digests, path: digest_of(pathlib.Path(path).suffix, text)}.values()
        )

    def test_what_is_no_token_is_a_comment_or_an_include(self):
        ignored = r'(?://[^\n]*|--[^\n]*|/\*.*?\*/|\s|#include [<"][^">]+[>"]|#pragma once)*'
        for path, text in self.files.items():
            rest, at = "", 0
            for begin, end in self.places(path):
                self.assertLessEqual(at, begin, path)
                rest, at = rest + text[at:begin], end
            self.assertRegex(rest + text[at:], re.compile(ignored + r"\Z", re.S), path)

    def test_each_token_counts(self):
        lots = random.Random(SEED)
        version = protocol_version()
        for path, text in self.files.items():
            places = self.places(path)
            if "--all" not in sys.argv:
                places = lots.sample(places, min(DELETIONS, len(places)))
            for begin, end in places:
                try:
                    after = self.version(path, text[:begin] + " " + text[end:])
                except ProtocolError:
                    continue
                self.assertNotEqual(
                    after, version, f"{path}: without {text[begin:end]!r} at {begin}, seed {SEED}"
                )

    def test_comments_and_line_feeds_between_tokens_do_not_count(self):
        lots = random.Random(SEED)
        version = protocol_version()
        for path, text in self.files.items():
            directives = [
                (m.start(), m.end()) for m in re.finditer(r"^[ \t]*#(?:[^\n]|\\\n)*\n", text, re.M)
            ]
            for begin, _ in lots.sample(self.places(path), 3):
                if not any(b <= begin < e for b, e in directives):
                    after = self.version(path, text[:begin] + " /* a\n comment */\n" + text[begin:])
                    self.assertEqual(
                        after,
                        version,
                        f"{path}: before {text[begin:begin + 20]!r} at {begin}, seed {SEED}",
                    )


if __name__ == "__main__":
    unittest.main(argv=[a for a in sys.argv if a != "--all"])
