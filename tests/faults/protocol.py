#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The version of the protocol: a hash of the tokens of the files that implement it.

    protocol.py [--files]     prints the version of the tree that this file is in; with --files, the
                              files

What is compiled counts; what a reader sees besides does not. Comments, white space between tokens,
line splices, #include lines, #pragma once, and the names and paths of the files do not count. The
version is a hash of the sorted digests of the files, so a file can be renamed or moved. A file
without tokens does not count at all. A file that is split, or merged with another, changes the
version, and so does a token that moves to another file: the order of declarations can matter, and
this rule does not decide when.

C++ (tokens_of_cpp):
  * A directive counts with its end of line; in a function-like macro, the parenthesis belongs to
    the name.
  * Two adjacent string literals are one: "a" "b" equals "ab". Not if a prefix, a suffix or an
    escape sequence makes a difference.
  * `>>` is two tokens, because a formatter closes two template argument lists so or so. `>=` is
    one.
  * The text of a raw string counts as it is, although it is often SQL.
SQL (tokens_of_sql):
  * The body after AS or DO in dollar quotes is code: its tokens count, and its tag does not. Any
    other literal counts as it is.
  * Keywords and names keep their case: `SELECT` and `select` differ.
What a tokenizer does not recognize is an error, never skipped.
"""

import bisect
import hashlib
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIST = "tests/faults/protocol_files.txt"
END_OF_DIRECTIVE = "\n"


class ProtocolError(Exception):
    pass


# --- C++ ----------------------------------------------------------------------------------------

SPLICE = re.compile(r"\\[ \t]*\r?\n")
RAW_STRING = re.compile(r'(?:u8|[uUL])?R"([^()\\\s]{0,16})\(.*?\)\1"(?:[^\W\d]\w*)?', re.S)
ESCAPE_AT_END = re.compile(r'(?<!\\)(?:\\\\)*\\(?:x[0-9a-fA-F]+|[0-7]{1,2})"$')
CPP = re.compile(
    r"""
    (?P<newline>   \n )
  | (?P<blank>     [ \t\r\f\v]+ | //[^\n]* | /\*.*?\*/ | \#[ \t]*include[ \t]*(?:<[^>\n]*>|"[^"\n]*") )
  | (?P<raw>       (?:u8|[uUL])?R" )
  | (?P<string>    (?:u8|[uUL])?"(?:[^"\\\n]|\\.)*"(?:[^\W\d]\w*)? )
  | (?P<character> (?:u8|[uUL])?'(?:[^'\\\n]|\\.)+'(?:[^\W\d]\w*)? )
  | (?P<number>    \.?\d(?:[eEpP][+-]|'\w|\w|\.)* )
  | (?P<name>      [^\W\d]\w* )
  | (?P<mark>      <=>|\.\.\.|->\*|<<=|>=|<=|==|!=|&&|\|\||<<|\+\+|--|\+=|-=|\*=|/=|%=|&=|\|=|\^=|->|\.\*|::|\#\#
                 | [^\w\s"'\\@`$] )
""",
    re.X | re.S,
)


def cpp_lexemes(text):
    """Yields (kind, token, begin, end), with the place in `text`. Splices are removed first, but
    for those within raw strings.
    """
    start = 0
    while start < len(text):
        rest, logical, original = (
            [],
            [0],
            [start],
        )  # original[i]: where the text at logical[i] comes from
        at = start
        for splice in SPLICE.finditer(text, start):
            rest.append(text[at : splice.start()])
            at = splice.end()
            logical.append(logical[-1] + len(rest[-1]))
            original.append(at)
        rest = "".join(rest) + text[at:]

        def place(n, side):
            i = side(logical, n) - 1
            return original[i] + n - logical[i]

        position, start = 0, len(text)
        while position < len(rest):
            begin = place(position, bisect.bisect_right)
            match = CPP.match(rest, position)
            if match and match.lastgroup == "raw":
                match = RAW_STRING.match(text, begin)
                if match:
                    yield "raw", match.group(), begin, match.end()
                    start = match.end()
                    break  # the rest has splices of its own
            if not match:
                raise ProtocolError(
                    f"{text.count(chr(10), 0, begin) + 1}: no token of C++ begins with {rest[position:position + 20]!r}"
                )
            position = match.end()
            yield match.lastgroup, match.group(), begin, place(position, bisect.bisect_left)


def directives(lexemes):
    """Leaves out blanks, #include and #pragma once. Marks the end of any other directive, and joins
    the name of a macro and its `(`.
    """
    line, is_directive, fresh = [], False, True  # fresh: nothing but blanks on this line yet

    def finished():
        words = [lexeme[1] for lexeme in line]
        if words[1:2] == ["include"] or words[1:] == ["pragma", "once"] or words == ["#"]:
            return
        yield from line
        yield "end", END_OF_DIRECTIVE, line[-1][3], line[-1][3]

    for kind, token, begin, end in lexemes:
        if kind == "newline":
            if is_directive:
                yield from finished()
            line, is_directive, fresh = [], False, True
        elif kind != "blank":
            is_directive = is_directive or (fresh and token == "#")
            fresh = False
            if not is_directive:
                yield kind, token, begin, end
            elif (
                token == "(" and len(line) == 3 and line[1][1] == "define" and line[-1][3] == begin
            ):
                line[-1] = ("name", line[-1][1] + token, line[-1][2], end)
            else:
                line.append((kind, token, begin, end))
    if is_directive:
        yield from finished()


def tokens_of_cpp(text):
    """Yields (token, begin, end), in their order."""
    held = None  # a string literal that the next one may continue
    for kind, token, begin, end in directives(cpp_lexemes(text)):
        plain = kind == "string" and token[0] == token[-1] == '"'
        if held and plain and not ESCAPE_AT_END.search(held[0]):
            held = (held[0][:-1] + token[1:], held[1], end)
            continue
        if held:
            yield held
        held = (token, begin, end) if plain else None
        if not plain:
            yield token, begin, end
    if held:
        yield held


# --- SQL ----------------------------------------------------------------------------------------

SQL = re.compile(
    r"""
    (?P<blank>   \s+ | --[^\n]* )
  | (?P<comment> /\* )
  | (?P<string>  [eE]'(?:[^'\\]|\\.|'')*' | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*' | (?:[uU]&)?"(?:[^"]|"")*" )
  | (?P<dollar>  (?P<tag>\$(?:[^\W\d]\w*)?\$)(?P<body>.*?)(?P=tag) )
  | (?P<number>  \d+(?:\.(?!\.)\d*)?(?:[eE][+-]?\d+)?\w* | \.\d+(?:[eE][+-]?\d+)? | \$\d+ )
  | (?P<name>    [^\W\d][\w$]* )
  | (?P<mark>    \.\. | := | :: | [()\[\],;:.] )
  | (?P<operator> [-+*/<>=~!@\#%^&|`?]+ )
""",
    re.X | re.S,
)
COMMENT_PART = re.compile(r"/\*|\*/")


def end_of_comment(text, begin):
    """Comments of SQL nest."""
    depth = 0
    for part in COMMENT_PART.finditer(text, begin):
        depth += 1 if part.group() == "/*" else -1
        if depth == 0:
            return part.end()
    raise ProtocolError(f"{text.count(chr(10), 0, begin) + 1}: the comment does not end")


def operator_of(run):
    """The operator at the beginning of `run`: comments end it, and one of several characters ends
    with + or - only if it has a rarer one.
    """
    run = re.split(r"--|/\*", run)[0]
    while len(run) > 1 and run[-1] in "+-" and not set(run) & set("~!@#%^&|`?"):
        run = run[:-1]
    return run


def tokens_of_sql(text, offset=0):
    """Yields (token, begin, end), in their order; `offset` is added to the places."""
    position, last = 0, []  # last: up to three tokens, the newest at the end
    while position < len(text):
        match = SQL.match(text, position)
        if not match:
            line = text.count("\n", 0, position) + 1
            raise ProtocolError(
                f"{line}: no token of SQL begins with {text[position:position + 20]!r}"
            )
        kind, token, begin, end = match.lastgroup, match.group(), match.start(), match.end()
        if kind == "comment":
            end = end_of_comment(text, begin)
        elif kind == "operator":
            token = operator_of(token)
            end = begin + len(token)
        elif kind == "dollar":
            token = "$$" + match.group("body")
        position = end
        if kind in ("blank", "comment"):
            continue
        if kind == "dollar" and (last[-1:] in (["as"], ["do"]) or last[:-1] == ["do", "language"]):
            yield "$$", offset + begin, offset + match.start("body")
            yield from tokens_of_sql(match.group("body"), offset + match.start("body"))
            yield "$$", offset + match.end("body"), offset + end
        else:
            yield token, offset + begin, offset + end
        last = [*last[-2:], token.lower()]


# --- The version --------------------------------------------------------------------------------

TOKENIZERS = {
    ".cpp": tokens_of_cpp,
    ".h": tokens_of_cpp,
    ".sql": tokens_of_sql,
}  # no other file: not what an editor leaves beside them


def digest_of(suffix, text):
    """A hash of the tokens of one file, or nothing if it has none."""
    digest, count = hashlib.sha256(b"sql\n" if suffix == ".sql" else b"cpp\n"), 0
    for token, _, _ in TOKENIZERS[suffix](text):
        content = token.encode()
        digest.update(b"%d:%s" % (len(content), content))
        count += 1
    return digest.digest() if count else None


def protocol_files(root=ROOT):
    """The files, as paths below `root`, sorted. A pattern that matches none is an error: a file was
    renamed, and must not drop out.
    """
    found = set()
    for number, line in enumerate((root / LIST).read_text(encoding="utf-8").splitlines(), 1):
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        matches = {
            p.relative_to(root).as_posix() for p in root.glob(pattern) if p.suffix in TOKENIZERS
        }
        if not matches:
            raise ProtocolError(
                f"{LIST}:{number}: {pattern} matches no file\nHINT: name the file that took its place"
            )
        found |= matches
    return sorted(found)


def version_of(digests):
    """The first 16 hex digits of SHA-256 over the sorted digests of the files; None stands for a
    file without tokens.
    """
    return hashlib.sha256(b"".join(sorted(d for d in digests if d))).hexdigest()[:16]


def protocol_version(root=ROOT):
    digests = []
    for path in protocol_files(root):
        try:
            digests.append(
                digest_of(pathlib.Path(path).suffix, (root / path).read_text(encoding="utf-8"))
            )
        except ProtocolError as e:
            raise ProtocolError(
                f"{path}:{e}\nHINT: teach tests/faults/protocol.py this token"
            ) from None
    return version_of(digests)


def main(arguments):
    try:
        print("\n".join(protocol_files()) if arguments == ["--files"] else protocol_version())
    except (ProtocolError, OSError) as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
