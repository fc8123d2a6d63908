# SPDX-License-Identifier: Apache-2.0
"""Archives of the records: docs/reliability/archive/VERSION.jsonl.xz holds the lines of one earlier
version of the protocol.

The plain files beside them hold the present version. A line that is about a round (`again`, and
what explains or repairs a failed one) belongs to the version of that round. A line of no version,
such as a baseline, stays in its plain file.
"""

import json
import lzma
import os
import pathlib

FOLDER = "archive"
SUFFIX = ".jsonl.xz"


def plain_files(folder):
    return sorted(pathlib.Path(folder).glob("rounds-*.jsonl"))


def archives(folder):
    return sorted((pathlib.Path(folder) / FOLDER).glob("*" + SUFFIX))


def lines_of(file):
    """The lines of a plain file or an archive; the last one is empty, unless the file does not end
    with a line feed.
    """
    content = pathlib.Path(file).read_bytes()
    if file.name.endswith(SUFFIX):
        content = lzma.decompress(content)
    return content.decode("utf-8", errors="replace").split("\n")


def write(file, lines):
    """Replaces a file in one step; without lines, removes it. Equal lines give equal bytes."""
    content = "".join(line + "\n" for line in lines).encode("utf-8")
    if not lines:
        file.unlink(missing_ok=True)
        return
    if file.name.endswith(SUFFIX):
        content = lzma.compress(content, preset=6 | lzma.PRESET_EXTREME)
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(file.name + ".new")
    scratch.write_bytes(content)
    os.replace(scratch, file)


def version_of(record, versions):
    """The version that a record belongs to, or nothing; `versions` has that of each round, by its
    id.
    """
    return record.get("protocol") or versions.get(
        record.get("round") if isinstance(record.get("round"), str) else None
    )


def archive(folder, present):
    """Moves the lines of other versions than `present` out of the plain files. Returns how many, by
    version.

    REQUIRES: the records are valid, and no process appends to them. Archives are written first, and
    a line that an archive has already is not added again: after a crash in between, the next call
    continues.
    """
    folder = pathlib.Path(folder)
    plain = {file: [line for line in lines_of(file) if line] for file in plain_files(folder)}
    records = {line: json.loads(line) for lines in plain.values() for line in lines}
    archived = {file: [line for line in lines_of(file) if line] for file in archives(folder)}
    rounds = [
        *records.values(),
        *(json.loads(line) for lines in archived.values() for line in lines),
    ]
    versions = {r["id"]: r["protocol"] for r in rounds if r["kind"] == "round"}
    moved = {}  # version -> lines
    for lines in plain.values():
        for line in lines:
            version = version_of(records[line], versions)
            if version not in (None, present):
                moved.setdefault(version, []).append(line)
    for version, lines in moved.items():
        file = folder / FOLDER / (version + SUFFIX)
        before = archived.get(file, [])
        known = set(before)
        write(file, before + [line for line in lines if line not in known])
    gone = {line for lines in moved.values() for line in lines}
    for file, lines in plain.items():
        if not gone.isdisjoint(lines):
            write(file, [line for line in lines if line not in gone])
    return {version: len(lines) for version, lines in moved.items()}
