"""Runs any server as a child process and offers the control protocol for it: a restart is a new run of its command."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final

import structlog

from swarmkeel.control.handler import Refused
from swarmkeel.control.protocol import RestartRequest, ServerStatus
from swarmkeel.control.supervisor_child import ChildProcess, CommandNotStartedError
from swarmkeel.control.supervisor_command import CommandTemplate
from swarmkeel.control.supervisor_readiness import ProbeFactory
from swarmkeel.control.supervisor_state import Step, SupervisedServer, SupervisorIsEndingError, pause_after
from swarmkeel.printable import printable
from swarmkeel.swarm.span import Span

PASSED_ON: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that mean something to the server alone."""

_log = structlog.get_logger(__name__)


class _Outcome(Enum):
    """How a race ended in which none of the waits came first."""

    TIMEOUT = auto()
    NEXT_STEP = auto()


@dataclass(frozen=True)
class SupervisorSettings:
    """What is supervised, and how patiently.

    Attributes:
        command: The server's command.
        dht_prefix: Name of the model in the DHT.
        total_blocks: Blocks of the model.
        num_blocks: Blocks that the server holds.
        throughput: Requests a second that it announces.
        start: Blocks to start on without being told; None to be idle until then.
        idle_limit: Idle for this many seconds, it starts on `fallback`; None to wait for ever.
        fallback: See `idle_limit`.
        pinned: Its operator does not want it moved.
        stop_signal: Signal that asks the server politely to end.
        stop_grace: Seconds from then to SIGKILL.
        ready_timeout: Seconds that it may take to get ready.
        first_pause: Seconds before the command is run again after it has ended by itself; doubled every further time.
        longest_pause: The most seconds of that.
        steady_after: Online for so many seconds, its former failures do not count any more.
    """

    command: CommandTemplate
    dht_prefix: str
    total_blocks: int
    num_blocks: int
    throughput: float
    start: Span | None = None
    idle_limit: float | None = None
    fallback: Span | None = None
    pinned: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace: float = 30.0
    ready_timeout: float = 900.0
    first_pause: float = 1.0
    longest_pause: float = 300.0
    steady_after: float = 60.0


class Supervisor:
    """One supervised server; also the callbacks of its control socket.

    Args:
        settings: What is supervised.
        probe: Makes what tells when a run of the command is ready.
        peer_id: Gives the server's peer id; None while it is not known. Called in other threads.
    """

    def __init__(self, settings: SupervisorSettings, probe: ProbeFactory, peer_id: Callable[[], str | None]) -> None:
        self._settings = settings
        self._make_probe = probe
        self._peer_id = peer_id
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self._child: ChildProcess | None = None
        self._end_signal = settings.stop_signal
        self._returncode: int | None = None
        # The control socket's threads and the event loop both change the server.
        self._lock = threading.Lock()
        self._server = SupervisedServer()

    def status(self) -> ServerStatus:
        """Tell the control socket what the server does."""
        settings, server = self._settings, self._server
        return ServerStatus(
            implementation=f"supervised/{printable(settings.command.name)}",
            peer_id=self._peer_id(),
            dht_prefix=settings.dht_prefix,
            total_blocks=settings.total_blocks,
            num_blocks=settings.num_blocks,
            throughput=settings.throughput,
            state=server.phase,
            span=server.span,
            pinned=settings.pinned,
            restart=server.restart,
        )

    def restart(self, request: RestartRequest) -> None:
        """Begin a restart that the control socket asks for."""
        with self._lock:
            try:
                self._server = self._server.accept(request)
            except SupervisorIsEndingError as ending:
                raise Refused(HTTPStatus.CONFLICT, str(ending)) from ending
        self._loop.call_soon_threadsafe(self._changed.set)

    def end(self, number: signal.Signals) -> None:
        """End the server and then `run`; said again, without any more grace.

        Args:
            number: The signal that said so. SIGINT is passed on as it is, any other as the settings' stop signal.
        """
        if self._server.ending:
            self._hurry.set()
        if number is signal.SIGINT:
            self._end_signal = number
        self._apply(SupervisedServer.end)
        self._changed.set()

    def pass_on(self, number: signal.Signals) -> None:
        """Send a signal to the server's process, if it runs."""
        if self._child is not None:
            self._child.send(number)

    async def run(self) -> int:
        """Supervise until `end` is called.

        Returns:
            How the last run of the command ended: its exit code, or less than 0 the signal that ended it; 0 if the end
            came while none ran.
        """
        start = self._settings.start
        if start is not None:
            self._apply(lambda server: server.begin(start))
        try:
            while True:
                match self._server.step:
                    case Step.IDLE:
                        await self._be_idle()
                    case Step.STARTING:
                        await self._get_ready()
                    case Step.ONLINE:
                        await self._watch()
                    case Step.STOPPING:
                        await self._stop_child()
                        self._apply(SupervisedServer.stopped)
                    case Step.WAITING:
                        await self._pause()
                    case Step.ENDED:
                        return self._returncode or 0
        finally:
            self._hurry.set()
            await self._stop_child()

    async def _be_idle(self) -> None:
        fallback = self._settings.fallback
        if await self._first_of(timeout=self._settings.idle_limit) is not _Outcome.TIMEOUT or fallback is None:
            return
        _log.warning("idle_limit_reached", fallback=str(fallback))
        self._apply(lambda server: server.begin(fallback))

    async def _get_ready(self) -> None:
        span = self._server.span
        assert span is not None  # noqa: S101 - it starts on blocks
        command = self._settings.command.fill(span)
        _log.info("starting", span=str(span), command=command[0])
        self._returncode = None
        probe = self._make_probe(span)
        try:
            self._child = child = ChildProcess.start(command, probe.look_at)
        except CommandNotStartedError as error:
            self._fail(f"the command could not be started: {error}")
            return
        timeout = self._settings.ready_timeout
        match await self._first_of(child.wait(), probe.wait(), timeout=timeout):
            case 0:
                self._fail(child.failure())
            case 1:
                self._apply(SupervisedServer.ready)
                _log.info("ready", span=str(span), pid=child.pid)
            case _Outcome.TIMEOUT:
                self._fail(f"the server was not ready within {timeout:g} s; {child.failure()}")

    async def _watch(self) -> None:
        child = self._child
        assert child is not None  # noqa: S101 - what is online runs
        has_failed = self._server.failures > 0
        match await self._first_of(child.wait(), timeout=self._settings.steady_after if has_failed else None):
            case 0:
                self._fail(child.failure())
            case _Outcome.TIMEOUT:
                self._apply(SupervisedServer.steady)

    async def _stop_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        number = self._end_signal if self._server.ending else self._settings.stop_signal
        self._returncode = await child.stop(number, self._settings.stop_grace, self._hurry)
        _log.info("stopped", pid=child.pid, returncode=self._returncode)

    async def _pause(self) -> None:
        settings = self._settings
        seconds = pause_after(self._server.failures, settings.first_pause, settings.longest_pause)
        _log.info("pausing", seconds=seconds, failures=self._server.failures)
        if await self._first_of(timeout=seconds) is _Outcome.TIMEOUT:
            self._apply(SupervisedServer.waited)

    def _fail(self, reason: str) -> None:
        _log.warning("failed", span=str(self._server.span), reason=reason)
        self._apply(lambda server: server.failed(reason))

    def _apply(self, change: Callable[[SupervisedServer], SupervisedServer]) -> None:
        with self._lock:
            self._server = change(self._server)

    async def _first_of(
        self,
        *waits: Coroutine[Any, Any, None],
        timeout: float | None,  # noqa: ASYNC109 - it is one of the runners of a race
    ) -> int | _Outcome:
        """Tell what is over first: one of the waits, by its index, the time, or the present step, ended by somebody else."""
        tasks = [asyncio.create_task(wait) for wait in (*waits, self._next_step())]
        try:
            done, _ = await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()  # raises what it raised
        if not done:
            return _Outcome.TIMEOUT
        first = next(index for index, task in enumerate(tasks) if task in done)
        return first if first < len(waits) else _Outcome.NEXT_STEP

    async def _next_step(self) -> None:
        """Wait until the server is at another step than now."""
        step = self._server.step
        while True:
            self._changed.clear()
            if self._server.step is not step:
                return
            await self._changed.wait()
