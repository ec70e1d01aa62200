"""The spinner: there for a person who waits, and gone when the wait is over."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

_CODE = """
from swarmkeel.commands.reading import patience
with patience("reading the swarm ..."):
    input()
print("over")
"""


def _read_until(terminal: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 4096)
    return seen


def test_a_person_who_waits_sees_that_something_happens() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        [sys.executable, "-c", _CODE], stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = _read_until(ours, b"reading the swarm ...")
        assert b"\x1b[?25l" in shown  # the cursor is hidden while the spinner turns
        process.communicate(b"\n")
        shown = _read_until(ours, b"over")
        assert b"\x1b[?25h" in shown
    os.close(ours)
    assert process.returncode == 0
