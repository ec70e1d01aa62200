"""The daemon: wires the parts together, starts and stops them, and reads the configuration again."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from swarmkeel import __version__
from swarmkeel.balance.decision import Decision
from swarmkeel.config import Config, ConfigError, load_config
from swarmkeel.control.client import ControlClient
from swarmkeel.daemon.admin import AdminServer
from swarmkeel.daemon.api import Api
from swarmkeel.daemon.claimant import Claimant
from swarmkeel.daemon.http import HttpServer
from swarmkeel.daemon.journal import Journal
from swarmkeel.daemon.logs import configure_logging
from swarmkeel.daemon.loop import BalanceLoop, longest_answer, longest_reading
from swarmkeel.daemon.loop_watch import LoopWatch
from swarmkeel.daemon.metrics import Metrics
from swarmkeel.daemon.notify import ServiceNotifier
from swarmkeel.daemon.stager import Stager
from swarmkeel.daemon.state import DaemonState
from swarmkeel.swarm.reader import SwarmReader
from swarmkeel.swarm.sidecar_board import SidecarBoard

BOARD_TIMEOUT: Final = 5.0
"""Seconds that telling the other sidecars may take at most: a check waits for it."""

_log = structlog.get_logger(__name__)


class Sidecar:
    """One running daemon beside one server.

    Args:
        config: The configuration to start with.
        config_path: Where a reload reads it again.
        dry_run: Tell the server nothing, whatever the configuration says.
        clock: Seconds since the epoch.
        loop_watch: What measures the event loop that it runs on, if anything does.
    """

    def __init__(
        self,
        config: Config,
        *,
        config_path: Path,
        dry_run: bool = False,
        clock: Callable[[], float] = time.time,
        loop_watch: LoopWatch | None = None,
    ) -> None:
        self._config_path = config_path
        self._dry_run = dry_run
        self._clock = clock
        self._stop = asyncio.Event()
        self._notifier = ServiceNotifier()
        config = self._with_overrides(config)
        self.state = DaemonState(started_at=clock(), last_turn_at=clock())
        self.metrics = Metrics(
            self.state,
            version=__version__,
            dht_prefix=config.swarm.dht_prefix,
            policy=lambda: self._loop.config.balance.policy,
            clock=clock,
        )
        if loop_watch is not None:
            self.metrics.watch_loop(loop_watch)
        self._reader = SwarmReader(
            config.swarm.initial_peers,
            config.swarm.dht_prefix,
            config.swarm.total_blocks,
            identity_path=config.swarm.identity_path,
            read_timeout=config.swarm.read_timeout,
            clock=clock,
        )
        self.state.dht_traffic = self._reader.traffic
        self._server = ControlClient(
            config.server.socket, request_timeout=config.server.request_timeout, allowed_uids=config.server.uids
        )
        self._claimant = Claimant(
            board=SidecarBoard(config.swarm.dht_prefix, timeout=min(config.swarm.read_timeout, BOARD_TIMEOUT)),
            node=lambda: self._reader.node,
            server=self._server,
            clock=clock,
        )
        self._stager = Stager(
            server=self._server,
            metrics=self.metrics,
            daemon=self.state,
            is_free=lambda: self._claimant.state.claim is None,
            clock=clock,
        )
        self._journal = Journal(config.journal.path)
        self._api = Api(
            self.state,
            config=lambda: self._loop.config,
            journal=self._journal,
            version=__version__,
            clock=clock,
        )
        self._http = HttpServer(
            self.metrics.registry,
            self.state,
            stalled_after=self._stalled_after,
            clock=clock,
            api=self._api,
            host=config.http.host,
        )
        self._loop = BalanceLoop(
            config,
            reader=self._reader,
            server=self._server,
            claimant=self._claimant,
            stager=self._stager,
            journal=self._journal,
            state=self.state,
            metrics=self.metrics,
            notifier=self._notifier,
            clock=clock,
        )

        self._admin = AdminServer(
            config.admin_socket,
            loop=self._loop,
            status=self._api.status,
            longest_check=lambda: longest_answer(self._loop.config),
            allowed_uids=config.admin.uids,
            clock=clock,
        )

    def _stalled_after(self) -> float:
        config = self._loop.config
        return 60.0 + 3 * (config.balance.check_period + longest_reading(config))

    async def run(self) -> None:
        """Run until SIGTERM, SIGINT or `stop`; SIGHUP reads the configuration again.

        Raises:
            SwarmkeelError: If it cannot start.
        """
        loop = asyncio.get_running_loop()
        try:
            # Before anything is begun: an error of a task group comes as a group of errors.
            unfinished = self._loop.unfinished_moves()
            await self._admin.start()
            port = await self._http.start(self._loop.config.http.port)
            _log.info("started", version=__version__, http=f"http://{self._loop.config.http.host}:{port}")
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
            loop.add_signal_handler(signal.SIGHUP, self.reload)
            self._notifier.ready()
            async with asyncio.TaskGroup() as tasks:
                self._loop.resume_moves(unfinished, tasks)
                turning = tasks.create_task(self._loop.turn(tasks))
                await self._stop.wait()
                self._notifier.stopping()
                turning.cancel()
                if self._loop.move_task is not None:
                    # Its state is on disk: the next start of the sidecar goes on with it.
                    self._loop.move_task.cancel()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            await self._close()
        _log.info("stopped")

    async def run_once(self) -> Decision:
        """Make one check, and the move that it leads to if any, and give what it ended in.

        A move that has to be claimed first is decided again, as often as it takes.
        """
        try:
            unfinished = self._loop.unfinished_moves()
            async with asyncio.TaskGroup() as tasks:
                self._loop.resume_moves(unfinished, tasks)
                if self._loop.move_task is not None:
                    await self._loop.move_task
                await self._loop.settle(tasks)
            decision = self.state.decision
            assert decision is not None  # noqa: S101 - every check leaves one
            return decision
        finally:
            await self._close()

    def stop(self) -> None:
        """Make `run` end soon."""
        self._stop.set()

    def reload(self) -> None:
        """Read the configuration again; a bad file changes nothing."""
        self._notifier.reloading()
        try:
            new = self._with_overrides(load_config(self._config_path))
        except ConfigError as error:
            self.state.config_is_current = False
            self.state.changes.note()
            for where, what in error.findings:
                _log.error("config_rejected", file=str(error.path), where=where, what=what)
        else:
            self._apply(new)
        self._notifier.ready()

    def _apply(self, new: Config) -> None:
        old = self._loop.config
        fixed = {
            "swarm": old.swarm,
            "server": old.server,
            "http": old.http,
            "admin": old.admin,
            "journal": new.journal.model_copy(update={"path": old.journal.path}),
        }
        needs_restart = sorted(name for name, section in fixed.items() if section != getattr(new, name))
        self._loop.config = new.model_copy(update=fixed)
        self.state.config_is_current = True
        self.state.changes.note()
        configure_logging(new.log.level, new.log.format)
        _log.info("config_reloaded")
        if needs_restart:
            _log.warning("config_needs_restart", sections=needs_restart)

    def _with_overrides(self, config: Config) -> Config:
        if not self._dry_run:
            return config
        return config.model_copy(update={"balance": config.balance.model_copy(update={"dry_run": True})})

    async def _close(self) -> None:
        for close in (
            self._admin.close,
            self._http.close,
            self._stager.close,
            self._claimant.close,
            self._server.close,
            self._reader.close,
        ):
            try:
                await close()
            except Exception:  # noqa: BLE001 - what cannot be closed must not keep the rest open
                _log.exception("close_failed")
        self._journal.close()
