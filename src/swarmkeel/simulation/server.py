"""A simulated GPU server: loads, serves, stops, keeps blocks on disk, announces itself, and answers its sidecar."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from random import Random

from swarmkeel.control.protocol import (
    PrefetchPhase,
    PrefetchStatus,
    RestartPhase,
    RestartRequest,
    RestartStatus,
    ServerPhase,
    ServerStatus,
)
from swarmkeel.daemon.own_server import PREFETCH
from swarmkeel.simulation.dht import Dht, announced
from swarmkeel.simulation.events import EventQueue
from swarmkeel.simulation.population import Fate
from swarmkeel.simulation.scenario import Scenario
from swarmkeel.simulation.truth import Truth
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.span import Span

DHT_PREFIX = "simulated"


def _do_nothing() -> None:
    """Stand in where nobody listens."""


class Phase(Enum):
    """What a server does."""

    IDLE = auto()
    """It is up and has no blocks."""
    STOPPING = auto()
    """It has said goodbye and frees its memory."""
    LOADING = auto()
    """It loads its blocks, and is announced JOINING."""
    SERVING = auto()
    """It serves, and is announced ONLINE."""
    GONE = auto()
    """It has left the swarm for good."""


class SimulatedServer:
    """One server.

    Args:
        fate: Its properties and life.
        scenario: The world.
        total_blocks: Blocks of the model.
        queue: Simulated time.
        dht: Where it announces itself.
        truth: Is told of all that it really does.
        draw: Its own source of randomness.

    Attributes:
        fate: As given.
        phase: What it does.
        span: The blocks that it serves or loads; None without any.
        serving_since: Since when it serves; None while it does not.
        on_change: Called after every change of phase.
    """

    def __init__(
        self,
        fate: Fate,
        scenario: Scenario,
        total_blocks: int,
        *,
        queue: EventQueue,
        dht: Dht,
        truth: Truth,
        draw: Random,
    ) -> None:
        self.fate = fate
        self.phase = Phase.IDLE
        self.span: Span | None = None
        self.serving_since: float | None = None
        self.on_change: Callable[[], None] = _do_nothing
        self._scenario = scenario
        self._total_blocks = total_blocks
        self._queue = queue
        self._dht = dht
        self._truth = truth
        self._draw = draw
        self._disk: dict[int, None] = {}  # least recently used first
        self._record: RemoteSpanInfo[str] | None = None
        self._life = 0  # counts changes of phase, so that what was planned before one does not happen after it
        self._restart: RestartStatus | None = None
        self._prefetch: PrefetchStatus | None = None
        self._prefetch_since = 0.0
        self._prefetch_count = 0
        self._left_span: Span | None = None

    @property
    def peer_id(self) -> str:
        """Its peer id."""
        return self.fate.peer_id

    @property
    def is_serving(self) -> bool:
        """Whether it serves."""
        return self.phase is Phase.SERVING

    # What it does by itself, or is told by whoever runs it.

    def start_on(self, span: Span) -> None:
        """Begin to serve at once, as a server that was there before the run."""
        self._keep_on_disk(span)
        self.span = span
        self._serve()

    def load(self, span: Span) -> None:
        """Announce JOINING and load blocks; serves when they are there."""
        seconds = self.fate.load_seconds(self.count_missing(span), self._scenario.loads, len(span))
        self._enter(Phase.LOADING)
        self.span = span
        self._announce(ServerState.JOINING)
        self._truth.loads(self.peer_id, span)
        life = self._life
        self._queue.after(seconds, lambda: self._loaded(life))

    def _loaded(self, life: int) -> None:
        if life != self._life or self.span is None:
            return
        failure_share = self._scenario.loads.failure_share
        if failure_share and self._draw.random() < failure_share:
            self._fail()
            return
        self._keep_on_disk(self.span)
        self._serve()
        self.on_change()

    def _serve(self) -> None:
        assert self.span is not None  # noqa: S101 - both callers have set it
        self._enter(Phase.SERVING)
        self.serving_since = self._queue.now
        self._announce(ServerState.ONLINE)
        self._truth.serves(self.peer_id, self.span)
        if self._restart is not None:
            self._restart = RestartStatus(self._restart.id, self._restart.span, RestartPhase.ONLINE)

    def _fail(self) -> None:
        span = self.span
        self._enter(Phase.IDLE)
        self.span = None
        self._announce(None)
        self._truth.stops(self.peer_id)
        if self._restart is not None and span is not None:
            self._restart = RestartStatus(self._restart.id, span, RestartPhase.FAILED, error="the load failed")
        self.on_change()

    def stop(self) -> None:
        """Announce OFFLINE and stop serving; its blocks are gone from memory."""
        self._enter(Phase.STOPPING)
        self.span = None
        self._announce(None)
        self._truth.stops(self.peer_id)

    def leave(self) -> None:
        """Leave the swarm for good, with or without a goodbye as its fate has it."""
        if not self.fate.crashes:
            self._announce(None)
        self._enter(Phase.GONE)
        self._truth.leaves(self.peer_id)
        self.on_change()

    def _enter(self, phase: Phase) -> None:
        self._life += 1
        self.phase = phase
        if phase is not Phase.SERVING:
            self.serving_since = None

    # Announcements.

    def _announce(self, state: ServerState | None) -> None:
        record = None
        if state is not None and self.span is not None:
            record = announced(self.peer_id, self.span, state, self.fate.announced_of(len(self.span)))
        self._record = record
        self._dht.announce(self.peer_id, record, self.fate.clock_offset)
        if record is not None:
            life = self._life
            self._queue.after(self._scenario.dht.update_period, lambda: self._refresh(life))

    def _refresh(self, life: int) -> None:
        if life != self._life or self._record is None:
            return
        self._dht.announce(self.peer_id, self._record, self.fate.clock_offset)
        self._queue.after(self._scenario.dht.update_period, lambda: self._refresh(life))

    # Its disk.

    def count_missing(self, span: Span) -> int:
        """Count the blocks of a span that are not on disk."""
        return sum(block not in self._disk for block in range(span.start, span.end))

    def _keep_on_disk(self, span: Span) -> None:
        for block in range(span.start, span.end):
            self._disk.pop(block, None)
            self._disk[block] = None
        surplus = len(self._disk) - self.fate.disk_blocks
        protected = range(self.span.start, self.span.end) if self.span is not None else range(0)
        for block in [block for block in self._disk if block not in protected][: max(surplus, 0)]:
            del self._disk[block]

    def prefetch(self, span: Span, done: Callable[[], None] = _do_nothing) -> str:
        """Begin to download the missing blocks of a span while serving, in place of what is being downloaded.

        Args:
            span: The blocks.
            done: Called when they are on disk; never if something else came first or the server has gone by then.

        Returns:
            The id under which `status` shows it.
        """
        self._break_off_prefetch()
        self._prefetch_count += 1
        name = f"{self.peer_id}-{self._prefetch_count}"
        self._prefetch = PrefetchStatus(name, span, PrefetchPhase.FETCHING)
        self._prefetch_since = self._queue.now

        def finish() -> None:
            if self.phase is Phase.GONE or self._prefetch is None or self._prefetch.id != name:
                return
            if self._prefetch.phase is PrefetchPhase.FETCHING:
                self._keep_on_disk(span)
                self._prefetch = replace(self._prefetch, phase=PrefetchPhase.DONE)
                done()

        self._queue.after(self.fate.download_seconds(self.count_missing(span), self._scenario.loads), finish)
        return name

    def _break_off_prefetch(self) -> None:
        """Let something else come first: what is downloaded by now stays, half a block is lost."""
        former = self._prefetch
        if former is None or former.phase is not PrefetchPhase.FETCHING:
            return
        seconds = self._queue.now - self._prefetch_since
        missing = [block for block in range(former.span.start, former.span.end) if block not in self._disk]
        each = self.fate.download_seconds(1, self._scenario.loads)
        for block in missing[: math.floor(seconds / each)] if each > 0 else missing:
            self._keep_on_disk(Span(block, block + 1))
        self._prefetch = replace(former, phase=PrefetchPhase.FAILED, error="something else came first")

    # The control socket, as far as a move needs it.

    def status(self) -> ServerStatus | None:
        """Answer what it does; None once it is gone."""
        if self.phase is Phase.GONE:
            return None
        state = {
            Phase.IDLE: ServerPhase.IDLE,
            Phase.STOPPING: ServerPhase.STOPPING,
            Phase.LOADING: ServerPhase.JOINING,
            Phase.SERVING: ServerPhase.ONLINE,
        }[self.phase]
        fate = self.fate
        span = self.span if self.phase is not Phase.STOPPING else self._left_span
        is_flexible = fate.rates is not None and fate.min_blocks < fate.num_blocks
        return ServerStatus(
            implementation="simulated",
            peer_id=self.peer_id,
            dht_prefix=DHT_PREFIX,
            total_blocks=self._total_blocks,
            num_blocks=fate.num_blocks,
            throughput=fate.announced_of(fate.num_blocks if span is None else len(span)),
            state=state,
            span=span,
            capabilities=(PREFETCH,) if self._scenario.sidecars.prefetch else (),
            restart=self._restart,
            min_blocks=fate.min_blocks if is_flexible else None,
            max_blocks=fate.num_blocks if is_flexible else None,
            compute_rps=fate.rates[0] * fate.lie if fate.rates is not None else None,
            network_rps=fate.rates[1] * fate.lie if fate.rates is not None else None,
            prefetch=self._prefetch,
        )

    def restart(self, request: RestartRequest) -> None:
        """Take a request to serve other blocks; one that is known already changes nothing."""
        if self._restart is not None and (self._restart.id == request.id or not self._restart.phase.is_final):
            return
        if self.phase not in (Phase.IDLE, Phase.SERVING):
            return
        self._break_off_prefetch()
        self._restart = RestartStatus(request.id, request.span, RestartPhase.LOADING)
        if self.phase is Phase.IDLE:
            self.load(request.span)
            return
        self._left_span = self.span
        self.stop()
        life = self._life
        self._queue.after(self._scenario.loads.shutdown, lambda: self._load_after_stop(life, request.span))

    def _load_after_stop(self, life: int, span: Span) -> None:
        if life == self._life:
            self.load(span)
            self.on_change()
