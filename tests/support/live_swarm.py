"""A live swarm for long runs: a real DHT, watched servers and real sidecars, each a process that can be ended and restarted.

Unlike the demo's, everything in it may be struck, and comes back under the same name, with the same peer id and journal.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from swarmkeel.balance.decision import Verdict
from swarmkeel.daemon.journal import Journal, JournalError
from swarmkeel.demo.processes import ChildProcess, ProcessFailedError
from swarmkeel.demo.scenario import ServerPlan
from swarmkeel.demo.server_life import Gpu
from swarmkeel.demo.stand_in import StandInSettings
from tests.support.dht import DhtPeers
from tests.support.sidecars import write_config
from tests.support.watched_server import Orders, diary_path, watched_command

READY_SECONDS = 300.0
"""Everything starts in seconds, but on a machine that is far too busy."""
LOOKED_BACK = 10
Sections = Mapping[str, dict[str, object]]


@dataclass(frozen=True)
class Speed:
    """How fast the servers of a swarm live, in seconds.

    Attributes:
        load: How long a server loads.
        download: How long it downloads a whole span.
        update_period: Time between two of its announcements.
        lifetime: How long each holds.
    """

    load: float = 1.5
    download: float = 1.0
    update_period: float = 3.0
    lifetime: float = 12.0


@dataclass
class Slot:
    """One server and the sidecar beside it.

    Attributes:
        plan: The server.
        folder: Sockets, journal, logs, diary.
        peer_id: The server's peer id; empty until it has first been up.
        server: Its process; None while it is down on purpose.
        sidecar: The sidecar's process; None while it is down on purpose.
        free: Held by whoever does something to them.
        beside: The slot whose server this one's sidecar watches in a dry run; None where it has a server of its own.
    """

    plan: ServerPlan
    folder: Path
    peer_id: str = ""
    server: ChildProcess | None = None
    sidecar: ChildProcess | None = None
    free: asyncio.Lock = field(default_factory=asyncio.Lock)
    beside: Slot | None = None

    @property
    def name(self) -> str:
        return self.plan.name if self.beside is None else f"{self.plan.name}, {self.folder.name}"

    @property
    def socket(self) -> Path:
        return self.folder / "s" if self.beside is None else self.beside.socket

    @property
    def journal(self) -> Path:
        return self.folder / "journal.sqlite"

    @property
    def diary(self) -> Path:
        return diary_path(self.folder)

    @property
    def sidecar_log(self) -> Path:
        return self.folder / "sidecar.log"

    def checks(self) -> int:
        """Count the checks in the journal, 0 if it cannot be read."""
        with suppress(JournalError), Journal(self.journal, read_only=True) as journal:
            return len(journal.check_ids())
        return 0

    def verdict(self, since: float) -> Verdict | None:
        """Give the last verdict since then, seconds since the epoch; what could not be read for once is passed over."""
        with suppress(JournalError), Journal(self.journal, read_only=True) as journal:
            verdicts = (check.decision.verdict for check in journal.checks(limit=LOOKED_BACK, since=since))
            return next((one for one in verdicts if one is not Verdict.INSUFFICIENT_INFORMATION), None)
        return None


class LiveSwarm:
    """The swarm; an asynchronous context manager.

    Args:
        plans: The servers.
        total_blocks: Blocks of the model.
        speed: How fast servers live.
        sections: The sidecars' configuration beside where everything is.
        model: Name of the model.
        peers: How many peers of the DHT there are beside the servers.

    Attributes:
        folder: Everything written is in here; removed in the end.
        temporary: What the processes take for the folder of temporary files.
        peers: Its first DHT peers, through which all others join.
        slots: The servers with their sidecars.
        watchers: More sidecars, see `start_watchers`.
    """

    def __init__(
        self,
        plans: Sequence[ServerPlan],
        *,
        total_blocks: int,
        speed: Speed,
        sections: Sections,
        model: str = "tiny",
        peers: int = 3,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sk-"))
        self.temporary = self.folder / "tmp"
        self.model = model
        self.total_blocks = total_blocks
        self.speed = speed
        self.peers = DhtPeers(peers)
        self.slots = [Slot(plan, self.folder / str(number)) for number, plan in enumerate(plans)]
        self.watchers: list[Slot] = []
        self._sections = sections
        self._former_temporary: str | None = None
        self._is_up = False
        # Each start is a second or more of computing.
        self._starts = asyncio.Semaphore((os.cpu_count() or 1) + 1)

    async def __aenter__(self) -> Self:
        self.temporary.mkdir()
        for slot in self.slots:
            slot.folder.mkdir(mode=0o700)
        # All that is started inherits this, by which it is found again, whatever becomes of its parent.
        self._former_temporary = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = str(self.temporary)
        try:
            await self.peers.__aenter__()
        except BaseException:
            await self._close()
            raise
        self._is_up = True
        return self

    @property
    def mark(self) -> str:
        """What all processes of this swarm have in their environment, see `resources.processes_with`."""
        return f"TMPDIR={self.temporary}"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.end_processes()
        finally:
            await self._close()

    async def end_processes(self) -> None:
        """End all servers and sidecars, and the DHT; a second time does nothing."""
        if not self._is_up:
            return
        self._is_up = False
        slots = [*self.slots, *self.watchers]
        running = [process for slot in slots for process in (slot.sidecar, slot.server) if process is not None]
        for slot in slots:
            slot.sidecar = slot.server = None
        await asyncio.gather(*(process.end() for process in running))
        await self.peers.__aexit__(None, None, None)

    async def _close(self) -> None:
        if self._former_temporary is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = self._former_temporary
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def start(self) -> None:
        """Start all servers, then all sidecars."""
        async with asyncio.TaskGroup() as starting:
            for slot in self.slots:
                starting.create_task(self.start_server(slot))
        async with asyncio.TaskGroup() as starting:
            for slot in self.slots:
                starting.create_task(self.start_sidecar(slot))

    async def start_watchers(self, of_each: int) -> None:
        """Start more sidecars beside each server, which tell neither it nor anybody else anything: dry runs of `petals`."""
        for slot in list(self.slots):
            for number in range(of_each):
                watcher = Slot(slot.plan, self.folder / f"{slot.folder.name}-{number}", slot.peer_id, beside=slot)
                watcher.folder.mkdir(mode=0o700)
                self.watchers.append(watcher)
        async with asyncio.TaskGroup() as starting:
            for watcher in self.watchers:
                starting.create_task(self.start_sidecar(watcher))

    async def start_server(self, slot: Slot, *, idle: bool = False, orders: Orders | None = None) -> None:
        """Start a server, on its first blocks or on none, and wait until it is in the DHT and its socket is open."""
        (orders or Orders()).give(slot.folder)
        plan, speed = slot.plan, self.speed
        settings = StandInSettings(
            socket=slot.socket,
            dht_prefix=self.model,
            total_blocks=self.total_blocks,
            num_blocks=plan.num_blocks,
            throughput=plan.throughput,
            gpu=Gpu(load_seconds=speed.load, download_seconds=speed.download),
            first_block=None if idle else plan.first_block,
            initial_peers=tuple(self.peers.initial_peers),
            identity=slot.folder / "identity",
            public_name=plan.name,
            update_period=speed.update_period,
            lifetime=speed.lifetime,
        )
        async with self._starts:
            for may_retry in (True, True, False):
                server = await ChildProcess.start(
                    slot.name, watched_command(settings, slot.folder), slot.folder / "server.log", has_output=True
                )
                try:
                    ready = await server.read_line(READY_SECONDS)
                    break
                except ProcessFailedError:  # its p2pd has only some seconds to start, on a busy machine too few
                    await server.end()
                    if not may_retry:
                        raise
                except BaseException:
                    await server.end()
                    raise
        slot.server, slot.peer_id = server, ready.partition('"peer_id": "')[2].partition('"')[0]

    async def start_sidecar(self, slot: Slot) -> None:
        """Start a sidecar and wait until it has started.

        Raises:
            ProcessFailedError: If it ends instead.
        """
        swarm = {"dht_prefix": self.model, "total_blocks": self.total_blocks, **self._sections["swarm"]}
        sections: dict[str, dict[str, object]] = {**self._sections, "swarm": swarm}
        if slot.beside is not None:
            sections["balance"] = {**sections.get("balance", {}), "policy": "petals", "dry_run": True}
        config = write_config(slot.folder / "c.yaml", slot.socket, self.peers.initial_peers, **sections)
        command = [sys.executable, "-m", "swarmkeel", "run", "-c", str(config)]
        said = _count_starts(slot.sidecar_log)
        async with self._starts:
            sidecar = await ChildProcess.start(f"sidecar of {slot.name}", command, slot.sidecar_log)
            deadline = time.monotonic() + READY_SECONDS
            while _count_starts(slot.sidecar_log) == said:
                if not sidecar.is_running or time.monotonic() > deadline:
                    await sidecar.end()
                    raise sidecar.failure("did not start")
                await asyncio.sleep(0.05)
        slot.sidecar = sidecar

    async def crash_server(self, slot: Slot) -> None:
        """Kill a server without a goodbye."""
        server, slot.server = slot.server, None
        if server is not None:
            await server.crash()

    async def crash_sidecar(self, slot: Slot) -> None:
        sidecar, slot.sidecar = slot.sidecar, None
        if sidecar is not None:
            await sidecar.crash()

    def ended_by_themselves(self) -> list[ProcessFailedError]:
        """Give what was not ended on purpose and runs no more."""
        return [
            process.failure("ended by itself")
            for slot in self.slots
            for process in (slot.server, slot.sidecar)
            if process is not None and not process.is_running
        ]


def _count_starts(log: Path) -> int:
    return log.read_text(errors="replace").count('"event": "started"') if log.exists() else 0


def settings_of(**sections: dict[str, Any]) -> Sections:
    """Give sections of a configuration for `LiveSwarm`."""
    return {"swarm": {}, **sections}
