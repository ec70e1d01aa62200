"""A child process that is asked by lines of JSON and answers by lines of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from benchmarks.result_file import ROOT

_LIMIT = 64 * 1024 * 1024


class LineProcess:
    """A running one; made by `running`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def running(cls, command: Sequence[str | Path]) -> AsyncIterator[Self]:
        """Run a command, in the checkout and in a process group of its own, until the end of the block."""
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LIMIT,
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            yield cls(process)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(20):
                    await process.wait()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def ask(self, **request: Any) -> Any:  # noqa: ANN401 - whatever it answers
        """Ask, and give the answer; EOFError if it has ended instead."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("it was started without pipes")
        async with self._one_at_a_time:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        if not line:
            raise EOFError(f"the process has ended with code {await self._process.wait()}")
        return json.loads(line)


def answer(value: object) -> None:
    """Answer, in the child."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def cpu_seconds(pid: int) -> float:
    """Give the processor time that a process has used; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int, name: str = "") -> list[int]:
    """Give the processes that a process has started and that still run; only those of one name if it is given."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, path.read_text().split())
    return [child for child in found if not name or _name(child) == name]


def _name(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
