"""A GPU server whose every step the test decides: a real control socket, real records in the DHT, no GPU."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

from swarmkeel.control.protocol import RestartPhase, RestartRequest, RestartStatus, ServerPhase, ServerStatus
from swarmkeel.control.server import ControlServer, Refused
from swarmkeel.daemon.journal import Journal, JournalError
from swarmkeel.daemon.move import Move
from swarmkeel.swarm.announcer import Announcer
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.span import Span
from tests.support.sidecars import TOTAL_BLOCKS

HELD_SECONDS = 120.0
"""A test that forgets to let go fails; it does not hang."""


def last_move(journal: Path) -> Move | None:
    """Give the newest move of a sidecar's journal."""
    if not journal.exists():
        return None
    try:
        with Journal(journal, read_only=True) as opened:
            return next(iter(opened.moves(limit=1)), None)
    except (JournalError, sqlite3.Error):
        return None


Point = Callable[[Move, "SteeredServer"], bool]
"""Tells whether a move has come to a certain point."""


class SteeredServer:
    """Obeys at once and tells the swarm, unless it is told to misbehave.

    Attributes:
        present: What it says of itself.
        taken: Ids of the restarts that it began: those that had an effect.
        loads: What comes of loading a span: `done`, `fails`; anything else leaves it JOINING until the test goes on.
        announces: Whether it tells the swarm where it is.
        drops: Whether it turns every request away (503).
    """

    def __init__(self, socket: Path, journal: Path, *, node: Callable[[], DhtNode], model: str, span: Span) -> None:
        self.socket = socket
        self.taken: list[str] = []
        self.loads: Callable[[Span], str] = lambda _: "done"
        self.announces = True
        self.drops = False
        self.present = ServerStatus(
            "steered/1", node().peer_id, model, TOTAL_BLOCKS, len(span), 10.0, ServerPhase.ONLINE, span
        )
        self.is_held = threading.Event()
        self._journal = journal
        self._point: Point | None = None
        self._holds_taken = False
        self._let_go = threading.Event()
        self._node, self._model = node, model
        self._loop = asyncio.get_running_loop()
        self._telling: list[Future[None]] = []

    def hold_at(self, point: Point | None, *, taken: bool = False) -> None:
        """Answer nothing any more once a move has come to a point, or once a restart is taken, until `let_go`."""
        self._point, self._holds_taken = point, taken

    def let_go(self) -> None:
        self._let_go.set()

    def status(self) -> ServerStatus:
        move = last_move(self._journal) if self._point is not None else None
        if move is not None and self._point is not None and self._point(move, self):
            self._hold()
        if self.drops:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "not now")
        return self.present

    def restart(self, request: RestartRequest) -> None:
        self.taken.append(request.id)
        self._tell(ServerState.OFFLINE)
        loading = RestartStatus(request.id, request.span, RestartPhase.LOADING)
        self.present = replace(self.present, state=ServerPhase.JOINING, span=request.span, restart=loading)
        self._tell(ServerState.JOINING)
        if self._holds_taken:
            self._hold()
        match self.loads(request.span):
            case "done":
                self.finish()
            case "fails":
                self.fail()

    def finish(self) -> None:
        """Serve what was asked for."""
        restart = self.present.restart
        assert restart is not None
        done = replace(restart, phase=RestartPhase.ONLINE)
        self.present = replace(self.present, state=ServerPhase.ONLINE, span=restart.span, restart=done)
        self._tell(ServerState.ONLINE)

    def fail(self) -> None:
        """Serve nothing: what was asked for cannot be loaded."""
        restart = self.present.restart
        assert restart is not None
        self._tell(ServerState.OFFLINE)
        failed = replace(restart, phase=RestartPhase.FAILED, error="out of memory")
        self.present = replace(self.present, state=ServerPhase.FAILED, span=None, restart=failed)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen at the control socket until the end of the block."""
        with ControlServer(self.socket, self):
            try:
                yield
            finally:
                self.let_go()

    async def announce(self, state: ServerState, span: Span, lifetime: float = 600) -> None:
        info = ServerInfo(state, self.present.throughput, start_block=span.start, end_block=span.end)
        await Announcer(self._node(), self._model).announce(info, range(span.start, span.end), lifetime)

    async def told(self) -> None:
        """Wait until the swarm has been told all that there was to tell."""
        while self._telling:
            await asyncio.wrap_future(self._telling.pop(0))

    def _hold(self) -> None:
        self.is_held.set()
        self._let_go.wait(HELD_SECONDS)

    def _tell(self, state: ServerState) -> None:
        span = self.present.span
        if span is None or not self.announces:
            return
        # Called in a thread of the control socket; what is told goes out in the order in which it was said.
        former = self._telling[-1] if self._telling else None

        async def tell() -> None:
            if former is not None:
                await asyncio.wrap_future(former)
            await self.announce(state, span)

        self._telling.append(asyncio.run_coroutine_threadsafe(tell(), self._loop))
