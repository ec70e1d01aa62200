"""Sidecars for tests: in the test's own event loop, or as the real process `swarmkeel run`."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from swarmkeel.config import load_config
from swarmkeel.control.protocol import RestartRequest, ServerPhase, ServerStatus
from swarmkeel.control.server import ControlServer
from swarmkeel.daemon.service import Sidecar
from swarmkeel.demo.processes import ChildProcess
from swarmkeel.swarm.span import Span

MODEL = "tiny"
TOTAL_BLOCKS = 8

QUICK: dict[str, dict[str, object]] = {
    "balance": {"policy": "petals", "check_period": 0.3, "check_jitter": 0.1, "quality": 0.9},
    "guards": {"cooldown": 0, "minimum_uptime": 0, "moves_per_day": 100, "confirmations": 1},
    "move": {"drain": 0, "poll_period": 0.1, "request_timeout": 20, "restart_timeout": 60, "verify_timeout": 30},
    "http": {"port": 0},
    "log": {"level": "debug", "format": "json"},
}
"""Guards and waits as short as they can be."""


@contextmanager
def short_folder() -> Iterator[Path]:
    """Make a folder for sockets, whose paths may have 107 bytes only: pytest's own folders are too deep."""
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def write_config(path: Path, socket: Path, initial_peers: Sequence[str], **sections: dict[str, object]) -> Path:
    """Write a configuration with `QUICK` settings; `sections` override single keys."""
    values: dict[str, dict[str, object]] = {
        "swarm": {
            "dht_prefix": MODEL,
            "total_blocks": TOTAL_BLOCKS,
            "initial_peers": list(initial_peers),
            "read_timeout": 10,
        },
        "server": {"socket": str(socket), "request_timeout": 3},
        "journal": {"path": str(path.parent / "journal.sqlite")},
    }
    for overrides in (QUICK, sections):
        for name, section in overrides.items():
            values[name] = values.get(name, {}) | section
    path.write_text(yaml.safe_dump(values))
    return path


@asynccontextmanager
async def sidecar(config_path: Path, made: Sidecar | None = None) -> AsyncIterator[Sidecar]:
    """Run a sidecar in this event loop: the one that was made already, if any."""
    running = made or Sidecar(load_config(config_path), config_path=config_path)
    task = asyncio.create_task(running.run())
    try:
        yield running
    finally:
        running.stop()
        await task


class SidecarProcess:
    """The real thing: `python -m swarmkeel run`."""

    def __init__(self, process: ChildProcess) -> None:
        self.process = process

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Give what it logged, all of it or the events of one name."""
        lines = self.process.log_path.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [event for event in events if name in (None, event["event"])]

    async def wait_for(self, name: str, condition: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """Wait until it has logged an event."""
        async with asyncio.timeout(90):
            while True:
                for event in self.events(name):
                    if condition(event):
                        return event
                if not self.process.is_running:
                    raise self.process.failure(f"ended without {name}")
                await asyncio.sleep(0.05)

    async def url(self) -> str:
        """Wait until it listens, and give the address."""
        return str((await self.wait_for("started"))["http"])

    async def metric(self, name: str, **labels: str) -> float | None:
        """Scrape one value."""
        async with ClientSession() as client, client.get(f"{await self.url()}/metrics") as response:
            text = await response.text()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == f"swarmkeel_{name}" and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    async def wait_for_metric(self, name: str, value: float, **labels: str) -> None:
        """Wait until a metric has a value."""
        async with asyncio.timeout(60):
            while await self.metric(name, **labels) != value:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def sidecar_process(config_path: Path, *options: str, log: str = "sidecar.log") -> AsyncIterator[SidecarProcess]:
    """Run the real thing until the end of the block."""
    command = [sys.executable, "-m", "swarmkeel", "run", "-c", str(config_path), *options]
    process = await ChildProcess.start("sidecar", command, config_path.parent / log)
    try:
        yield SidecarProcess(process)
    finally:
        await process.end()


class ObedientServer:
    """A server that is nothing but its control socket: it serves whatever it is told, at once.

    Attributes:
        requests: All restarts that it was asked for.
        present: What it says of itself; tests may change it.
    """

    def __init__(self, socket: Path, peer_id: str, span: Span | None = None) -> None:
        self._socket = socket
        self.requests: list[RestartRequest] = []
        state = ServerPhase.ONLINE if span else ServerPhase.IDLE
        self.present = ServerStatus("obedient/1", peer_id, MODEL, TOTAL_BLOCKS, 4, 10.0, state, span)

    def status(self) -> ServerStatus:
        return self.present

    def restart(self, request: RestartRequest) -> None:
        self.requests.append(request)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen at the control socket until the end of the block."""
        server = ControlServer(self._socket, self)
        server.start()
        try:
            yield
        finally:
            server.close()
