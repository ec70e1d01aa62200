"""The swarm of the demo: DHT peers, stand-in servers and real sidecars, all of them gone when it is left."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from swarmkeel.control.unix_socket import SocketPathError, check_socket_path
from swarmkeel.demo.processes import ChildProcess, RunningStandIn, start_stand_in
from swarmkeel.demo.scenario import DHT_PREFIX, TOTAL_BLOCKS, ServerPlan, Timing
from swarmkeel.demo.server_life import Gpu
from swarmkeel.demo.stand_in import StandInSettings
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.reader import SwarmReader
from swarmkeel.swarm.snapshot import SwarmSnapshot

_DHT_PEERS: Final = 3
_READ_SECONDS: Final = 5.0


class DemoSwarm:
    """Everything that runs in the demo; used as an asynchronous context manager.

    Args:
        plans: The servers.
        timing: How fast things go.
        policy: The sidecars' policy.

    Attributes:
        folder: Everything written is in here; removed in the end.
        servers: The servers that came up, by peer id, the killed ones too.
        dead: Peer ids of the killed servers.
    """

    def __init__(self, plans: Sequence[ServerPlan], timing: Timing, policy: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="swarmkeel-demo-"))
        self.servers: dict[str, RunningStandIn] = {}
        self.dead: set[str] = set()
        self._plans = plans
        self._timing = timing
        self._policy = policy
        self._peers: list[DhtNode] = []
        self._reader: SwarmReader | None = None
        self._sidecars: list[ChildProcess] = []
        # Each start is a second or more of computing; more of them at a time would only all be late.
        self._starts = asyncio.Semaphore((os.cpu_count() or 1) + 1)

    async def __aenter__(self) -> Self:
        try:
            for plan in self._plans:
                check_socket_path(self._folder_of(plan) / "control.sock")
                self._folder_of(plan).mkdir(mode=0o700)
            while len(self._peers) < _DHT_PEERS:
                self._peers.append(await DhtNode.open(self._initial_peers[:1], client_mode=False))
            self._reader = SwarmReader(self._initial_peers, DHT_PREFIX, TOTAL_BLOCKS, read_timeout=_READ_SECONDS)
        except SocketPathError as error:
            await self._close()
            raise SwarmkeelError(str(error), "set TMPDIR to a shorter folder") from error
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close(politely=error is not None)

    async def _close(self, *, politely: bool = True) -> None:
        """End everything.

        Args:
            politely: Some processes may only be starting, and would leave a p2pd's socket behind if they were killed.
                Without that a goodbye from each would only take seconds, with nobody left to hear it.
        """
        try:
            processes = [*self._sidecars, *(server.process for server in self.servers.values())]
            await asyncio.gather(*(process.end() if politely else process.crash() for process in processes))
            if self._reader is not None:
                await self._reader.close()
            for peer in self._peers:
                await peer.close()
        finally:
            shutil.rmtree(self.folder)

    @property
    def _initial_peers(self) -> list[str]:
        return [address for peer in self._peers for address in peer.visible_maddrs()]

    @property
    def living(self) -> list[RunningStandIn]:
        """The servers that have not been killed."""
        return [server for peer_id, server in self.servers.items() if peer_id not in self.dead]

    async def start_servers(self) -> None:
        """Start all servers and wait until they are up; they may still be loading.

        Raises:
            ExceptionGroup: Of ProcessFailedError, if one does not come up.
        """
        async with asyncio.TaskGroup() as starting:
            for plan in self._plans:
                starting.create_task(self._start_server(plan))

    async def _start_server(self, plan: ServerPlan) -> None:
        folder, timing = self._folder_of(plan), self._timing
        settings = StandInSettings(
            socket=folder / "control.sock",
            dht_prefix=DHT_PREFIX,
            total_blocks=TOTAL_BLOCKS,
            num_blocks=plan.num_blocks,
            throughput=plan.throughput,
            gpu=Gpu(load_seconds=timing.load, download_seconds=timing.download),
            first_block=plan.first_block,
            initial_peers=tuple(self._initial_peers),
            public_name=plan.name,
            update_period=timing.update_period,
            lifetime=timing.lifetime,
        )
        async with self._starts:
            server = await start_stand_in(settings, folder / "server.log")
        self.servers[server.peer_id] = server

    async def start_sidecars(self) -> None:
        """Start a sidecar for each server and wait until they watch the swarm.

        Raises:
            ExceptionGroup: Of ProcessFailedError, if one does not come up.
        """
        async with asyncio.TaskGroup() as starting:
            for server in self.servers.values():
                starting.create_task(self._start_sidecar(server))

    async def _start_sidecar(self, server: RunningStandIn) -> None:
        folder = server.settings.socket.parent
        config = folder / "sidecar.yaml"
        config.write_text(yaml.safe_dump(self._configuration(server), sort_keys=False))
        command = (sys.executable, "-m", "swarmkeel", "run", "--config", str(config))
        async with self._starts:
            name = f"sidecar of {server.settings.public_name}"
            sidecar = await ChildProcess.start(name, command, folder / "sidecar.log")
            self._sidecars.append(sidecar)
            await sidecar.wait_for_log('"event": "started"')

    def _configuration(self, server: RunningStandIn) -> dict[str, Any]:
        """Give a sidecar's configuration: as in real life, but for the speed."""
        timing = self._timing
        return {
            "swarm": {
                "dht_prefix": DHT_PREFIX,
                "total_blocks": TOTAL_BLOCKS,
                "initial_peers": self._initial_peers,
                "read_timeout": _READ_SECONDS,
            },
            "server": {"socket": str(server.settings.socket), "peer_id": server.peer_id},
            "balance": {
                "policy": self._policy,
                "quality": timing.quality,
                "load_seconds": timing.load,
                "check_period": timing.check_period,
                "check_jitter": 0.4,
            },
            "claims": {"settle": timing.settle, "lifetime": 20, "prefetch_poll": 0.3, "prefetch_timeout": 20},
            "guards": {
                "cooldown": timing.cooldown,
                "minimum_uptime": 0,
                "moves_per_day": 1000,
                "confirmations": 1,
                "breaker_base": timing.cooldown,
                "breaker_max": 2 * timing.cooldown,
            },
            "move": {
                "drain": 0,
                "request_timeout": 10,
                "restart_timeout": 20 + timing.load + timing.download,
                "verify_timeout": 10,
                "poll_period": 0.5,
            },
            "journal": {"path": str(server.settings.socket.parent / "journal.sqlite")},
            "http": {"port": 0},
            "log": {"format": "json"},
        }

    async def read(self) -> SwarmSnapshot:
        """Read the swarm from the DHT.

        Raises:
            SwarmkeelError: If that fails.
        """
        assert self._reader is not None  # noqa: S101 - there is one between __aenter__ and __aexit__
        return await self._reader.read()

    async def kill(self, peer_id: str) -> None:
        """Kill a server without a goodbye."""
        self.dead.add(peer_id)
        await self.servers[peer_id].process.crash()

    async def check_processes(self) -> None:
        """See that whatever was not killed still runs.

        Raises:
            ProcessFailedError: If a process has ended by itself.
        """
        for process in [*self._sidecars, *(server.process for server in self.living)]:
            if not process.is_running:
                raise process.failure(f"ended by itself with code {await process.wait()}")

    def metrics_urls(self) -> dict[str, str]:
        """Give the addresses of the sidecars' metrics, by the sidecars' names, as their logs tell them."""
        urls = {}
        for sidecar in self._sidecars:
            for line in sidecar.log_path.read_text().splitlines():
                with suppress(ValueError):
                    event = json.loads(line)
                    if event.get("event") == "started":
                        urls[sidecar.name] = f"{event['http']}/metrics"
        return urls

    def _folder_of(self, plan: ServerPlan) -> Path:
        return self.folder / plan.name
