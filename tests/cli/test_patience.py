"""The spinner: there for a person who waits, and gone when the wait is over."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys

import pytest

from tests.support.sidecars import short_folder, write_config

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


@pytest.mark.parametrize("command", ["init", "snapshot"])
def test_a_command_that_waits_for_others_shows_it(command: str) -> None:
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as server, socket.socket() as peer:
        server.bind(str(folder / "mute.sock"))
        server.listen()
        peer.bind(("127.0.0.1", 0))
        peer.listen()
        address = f"/ip4/127.0.0.1/tcp/{peer.getsockname()[1]}/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
        config = write_config(folder / "c.yaml", folder / "mute.sock", [address])
        options = {
            "init": ["--socket", str(folder / "mute.sock"), "--initial-peers", address, "-o", str(folder / "new.yaml")],
            "snapshot": ["-c", str(config)],
        }
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
        words = [sys.executable, "-m", "swarmkeel", command, *options[command]]
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment
        ) as process:
            os.close(theirs)
            text = {"init": b"asking the server", "snapshot": b"reading the swarm"}[command]
            shown = _read_until(ours, text)
            assert b"\x1b[?25l" in shown
            _read_until(ours, b"swarmkeel: ")  # nobody answers in the end
        os.close(ours)
    assert process.returncode == 1
