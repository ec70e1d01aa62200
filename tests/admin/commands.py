"""Runs `swarmkeel COMMAND ...` as the command line does, beside what the test's event loop does."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from swarmkeel.cli import run_command_line


class Commands:
    """What it prints is caught by pytest's `capsys`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        """Run it, see that it ends with this code, and give its output, or what it complains of."""
        self._capsys.readouterr()
        ended = await asyncio.to_thread(run_command_line, [str(argument) for argument in arguments])
        shown = self._capsys.readouterr()
        assert ended == code, shown
        return shown.err or shown.out if code else shown.out


async def swarmkeel_process(*arguments: str | Path) -> str:
    """Run it as a process of its own, where the test's own process prints too, and give its output."""
    command = [sys.executable, "-m", "swarmkeel", *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()
