#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What .dockerignore lets into the image's build is all that the build needs."""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def admitted():
    """Files and folders at the top: everything is kept out but those behind a `!`."""
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*" and all(
        re.fullmatch(r"![\w.]+", line) for line in lines[1:]
    ), "this test reads `*` and lines `!name` only"
    return [line[1:] for line in lines[1:]]


class ImageContextTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.context = pathlib.Path(folder.name)
        for name in admitted():
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.context / name)
            else:
                shutil.copy(source, self.context / name)

    def test_cmake_finds_what_the_dockerfile_asks_it_to_build(self):
        command = re.search(
            r"^RUN (cmake --preset .*?) &&", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M
        ).group(1)
        done = subprocess.run(
            command.split(),
            cwd=self.context,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_header_of_ours_is_there(self):
        found = 0
        for file in self.context.rglob("*"):
            if file.suffix not in (".h", ".cpp"):
                continue
            for name in re.findall(
                r'^#include ["<]((?:relay|client|outbox)/[^">]+)[">]',
                file.read_text(encoding="utf-8"),
                re.M,
            ):
                found += 1
                places = (self.context / name, self.context / "include" / name)
                self.assertTrue(
                    any(p.exists() for p in places),
                    f"{file.relative_to(self.context)} includes {name}, which .dockerignore keeps out",
                )
        self.assertGreater(found, 100)


if __name__ == "__main__":
    sys.exit(unittest.main())
