"""The daemon as a real process, forked from one that has loaded its code: it starts at once, and takes real signals."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["swarmkeel.daemon.service", "swarmkeel.swarm.hivemind_dht", "tests.faults.forked"])


def _run(config: str, log: str) -> None:
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    from swarmkeel.commands.run import run  # noqa: PLC0415 - in the process that runs it

    run(Path(config))


class ForkedDaemon:
    """One running daemon.

    Attributes:
        pid: Its process id, also of its process group.
    """

    def __init__(self, config: Path, log: Path) -> None:
        self._log = log
        self._process = _FORKS.Process(target=_run, args=(str(config), str(log)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def ends(self, seconds: float = 60.0) -> int:
        """Wait for its end, and give its exit code, negative after a signal."""
        async with asyncio.timeout(seconds):
            while self._process.is_alive():
                await asyncio.sleep(0.02)
        assert self._process.exitcode is not None
        return self._process.exitcode

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        logged = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [event for event in logged if event["event"] == name]

    async def waits_for(self, name: str, seconds: float = 120.0) -> dict[str, Any]:
        """Wait until it has logged an event."""
        async with asyncio.timeout(seconds):
            while not (found := self.events(name)):
                assert self.is_running, f"ended without {name}: {self._log.read_text()[-500:]}"
                await asyncio.sleep(0.02)
        return found[0]

    async def metric(self, name: str, **labels: str) -> float | None:
        url = (await self.waits_for("started"))["http"]
        async with ClientSession() as client, client.get(f"{url}/metrics") as response:
            text = await response.text()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == f"swarmkeel_{name}" and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    async def shows(self, name: str, value: float, seconds: float = 120.0, **labels: str) -> None:
        """Wait until a metric has a value."""
        async with asyncio.timeout(seconds):
            while await self.metric(name, **labels) != value:
                assert self.is_running, f"ended without {name}: {self._log.read_text()[-500:]}"
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        """End it with all that it started."""
        for number in (signal.SIGCONT, signal.SIGTERM):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)
        with suppress(TimeoutError):
            await self.ends(10)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.ends()
        self._process.close()


@asynccontextmanager
async def forked_daemon(config: Path, log: Path) -> AsyncIterator[ForkedDaemon]:
    """Run a daemon until the end of the block."""
    daemon = ForkedDaemon(config, log)
    try:
        yield daemon
    finally:
        await daemon.close()
