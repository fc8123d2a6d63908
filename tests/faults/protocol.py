#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The version of the protocol: a hash over the files that are the protocol.

    protocol.py [--files]     prints it, for the tree that this file is in; with --files the files instead

Comments count as well. That is stricter than need be, and needs nobody who judges whether a change matters.
"""
import hashlib
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIST = "tests/faults/protocol_files.txt"
SUFFIXES = (".cpp", ".h", ".sql")  # not what an editor leaves beside them


class ProtocolError(Exception):
    pass


def protocol_files(root=ROOT):
    """The files, as paths below `root`, sorted. A pattern that matches none is an error: a file was renamed, and must not drop out."""
    found = set()
    for number, line in enumerate((root / LIST).read_text(encoding="utf-8").splitlines(), 1):
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        matches = {p.relative_to(root).as_posix() for p in root.glob(pattern) if p.suffix in SUFFIXES}
        if not matches:
            raise ProtocolError(f"{LIST}:{number}: {pattern} matches no file\nHINT: name the file that took its place")
        found |= matches
    return sorted(found)


def protocol_version(root=ROOT):
    """The first 16 hex digits of SHA-256 over path, length and content of each file."""
    digest = hashlib.sha256()
    for path in protocol_files(root):
        content = (root / path).read_bytes()
        digest.update(f"{path}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def main(arguments):
    try:
        print("\n".join(protocol_files()) if arguments == ["--files"] else protocol_version())
    except (ProtocolError, OSError) as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
