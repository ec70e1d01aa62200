"""The life of a stand-in server as a pure state machine: loading, serving, draining, leaving; no clock, no I/O.

idle -> loading -> online -> (draining ->) leaving -> loading -> online
            |                                 ^
            +--- a block fails: leaving ------+--- the former blocks, or idle where there are none
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from swarmkeel.control.protocol import (
    PrefetchPhase,
    PrefetchRequest,
    PrefetchStatus,
    RestartPhase,
    RestartRequest,
    RestartStatus,
    ServerPhase,
)
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.span import Span


@dataclass(frozen=True)
class Gpu:
    """How the GPU that is not there behaves.

    Attributes:
        load_seconds: How long it takes to load a span from disk, one block after the other.
        failing_blocks: A load ends in an error when it comes to one of these.
        hanging_blocks: A load stops for ever when it comes to one of these.
        sessions: Inference sessions that are open while the server is online.
        session_seconds: How long these go on once no new ones are let in.
        download_seconds: How long it takes to download as many blocks as a span has; those on disk take no time.
    """

    load_seconds: float = 2.0
    failing_blocks: frozenset[int] = frozenset()
    hanging_blocks: frozenset[int] = frozenset()
    sessions: int = 0
    session_seconds: float = math.inf
    download_seconds: float = 0.0

    def download_time(self, span: Span, on_disk: frozenset[int]) -> float:
        """Give the seconds that downloading the blocks of a span takes."""
        missing = sum(block not in on_disk for block in range(span.start, span.end))
        return self.download_seconds * missing / len(span)

    def load_time(self, span: Span, on_disk: frozenset[int]) -> float:
        """Give the seconds that a load without mishap takes, downloads included."""
        return self.download_time(span, on_disk) + self.load_seconds

    def load_ends_after(self, span: Span, on_disk: frozenset[int] = frozenset()) -> tuple[float, str | None]:
        """Give the seconds from the start of a load to its end, and the error that it ends in if any."""
        seconds = self.load_time(span, on_disk)
        for index, block in enumerate(range(span.start, span.end)):
            if block in self.hanging_blocks:
                return math.inf, None
            if block in self.failing_blocks:
                return seconds * index / len(span), f"block {block} could not be loaded"
        return seconds, None

    def load_progress(self, span: Span, seconds: float, on_disk: frozenset[int] = frozenset()) -> float:
        """Give the share of a load that is done after this time, 0 to 1."""
        whole = self.load_time(span, on_disk)
        done = min(seconds / whole, 1.0) if whole else 1.0
        stuck_at = [block - span.start for block in self.hanging_blocks if span.start <= block < span.end]
        return min(done, min(stuck_at) / len(span)) if stuck_at else done


class Step(StrEnum):
    """What the server is at."""

    IDLE = "idle"
    """It has no blocks."""
    LOADING = "loading"
    ONLINE = "online"
    DRAINING = "draining"
    """Serving its open sessions to their end, and no new ones."""
    LEAVING = "leaving"
    """It serves nothing any more, and must tell the swarm before it goes on."""


_PHASES = {
    Step.IDLE: ServerPhase.IDLE,
    Step.LOADING: ServerPhase.JOINING,
    Step.ONLINE: ServerPhase.ONLINE,
    Step.DRAINING: ServerPhase.DRAINING,
    Step.LEAVING: ServerPhase.STOPPING,
}
_RESTART_PHASES = {
    Step.LOADING: RestartPhase.LOADING,
    Step.DRAINING: RestartPhase.DRAINING,
    Step.LEAVING: RestartPhase.STOPPING,
}
_ANNOUNCED = {
    Step.LOADING: ServerState.JOINING,
    Step.ONLINE: ServerState.ONLINE,
    Step.DRAINING: ServerState.ONLINE,
    Step.LEAVING: ServerState.OFFLINE,
}


class ServerIsBusyError(Exception):
    """The server cannot begin a restart now; the text says why."""


@dataclass(frozen=True)
class Announcement:
    """What the swarm is told: this server is in `state` on the blocks of `span`."""

    span: Span
    state: ServerState


@dataclass(frozen=True)
class ServerLife:
    """One moment in the life of a server; every method gives the next one and changes nothing.

    Attributes:
        gpu: How long things take, and what goes wrong.
        step: What it is at.
        since: When that began, on the caller's clock.
        span: The blocks that it serves, loads or leaves; None while it has none.
        following: The blocks to load after leaving; None to be idle.
        former: The blocks to load again if the present load fails.
        restart: The last restart that it was told to make.
        restart_is_over: Whether that has ended, well or not.
        restart_error: Why it failed; None otherwise.
        on_disk: Blocks that need no download.
        prefetch: The last prefetch that it was told to make.
        prefetch_until: When that is done; 0 once it is over.
        prefetch_error: Why it failed; None otherwise.
    """

    gpu: Gpu
    step: Step = Step.IDLE
    since: float = 0.0
    span: Span | None = None
    following: Span | None = None
    former: Span | None = None
    restart: RestartRequest | None = None
    restart_is_over: bool = False
    restart_error: str | None = None
    on_disk: frozenset[int] = frozenset()
    prefetch: PrefetchRequest | None = None
    prefetch_until: float = 0.0
    prefetch_error: str | None = None

    def begin(self, span: Span, now: float) -> ServerLife:
        """Load blocks by its own choice; those are on its disk, since it had them in its last life.

        Raises:
            ServerIsBusyError: If it has blocks already.
        """
        if self.step is not Step.IDLE:
            raise ServerIsBusyError(f"the server is {self.step} and chooses no blocks")
        return replace(self, step=Step.LOADING, since=now, span=span, on_disk=self.on_disk | _blocks(span))

    def fetch(self, request: PrefetchRequest, now: float) -> ServerLife:
        """Begin to download blocks while it serves, in place of what it downloads now.

        What it has of other blocks by now is lost; the same blocks, asked for by another id, go on.

        Raises:
            ServerIsBusyError: If it is in the middle of something else.
        """
        if self.step is not Step.ONLINE:
            raise ServerIsBusyError(f"the server is {self.step} and fetches nothing")
        until = now + self.gpu.download_time(request.span, self.on_disk)
        if self.prefetch is not None and self.prefetch.span == request.span and self.prefetch_until:
            until = self.prefetch_until
        return replace(self, prefetch=request, prefetch_until=until, prefetch_error=None).advance(now)

    def accept(self, request: RestartRequest, now: float) -> ServerLife:
        """Begin a restart on other blocks, or on the same ones.

        Raises:
            ServerIsBusyError: If it is in the middle of something else.
        """
        told = _without_prefetch(replace(self, since=now, restart=request, restart_is_over=False, restart_error=None))
        if self.step is Step.IDLE:
            return replace(told, step=Step.LOADING, span=request.span)
        if self.step is not Step.ONLINE:
            raise ServerIsBusyError(f"the server is {self.step} on blocks {self.span}")
        drains = self.gpu.sessions > 0 and request.drain_seconds > 0
        return replace(told, step=Step.DRAINING if drains else Step.LEAVING, following=request.span, former=self.span)

    def end(self, now: float) -> ServerLife:
        """Leave the swarm for good."""
        if self.span is None:
            return self
        left = _without_prefetch(replace(self, step=Step.LEAVING, since=now, following=None, former=None))
        return _with_restart_over(left, "the server was told to end")

    @property
    def due(self) -> float:
        """When `advance` will next change something; infinity if only others can."""
        return min(self._step_due, self.prefetch_until or math.inf)

    @property
    def _step_due(self) -> float:
        if self.step is Step.DRAINING and self.restart is not None:
            return self.since + min(self.restart.drain_seconds, self.gpu.session_seconds)
        if self.step is Step.LOADING and self.span is not None:
            return self.since + self.gpu.load_ends_after(self.span, self.on_disk)[0]
        return math.inf

    def advance(self, now: float) -> ServerLife:
        """Do what time alone brings about."""
        if 0 < self.prefetch_until <= now and self.prefetch is not None:
            fetched = replace(self, prefetch_until=0.0, on_disk=self.on_disk | _blocks(self.prefetch.span))
            return fetched.advance(now)
        if now < self._step_due:
            return self
        if self.step is Step.DRAINING:
            return replace(self, step=Step.LEAVING, since=now)
        assert self.span is not None  # noqa: S101 - only a load is left, and it has blocks
        error = self.gpu.load_ends_after(self.span, self.on_disk)[1]
        if error is None:
            after = replace(self, step=Step.ONLINE, since=now, former=None, on_disk=self.on_disk | _blocks(self.span))
        else:
            after = replace(self, step=Step.LEAVING, since=now, following=self.former, former=None)
        return _with_restart_over(after, error)

    def announced_leaving(self, now: float) -> ServerLife:
        """Go on to the next blocks: the swarm has been told that the present ones are no longer served."""
        if self.step is not Step.LEAVING:
            return self
        step = Step.IDLE if self.following is None else Step.LOADING
        return replace(self, step=step, since=now, span=self.following, following=None)

    @property
    def announcement(self) -> Announcement | None:
        """What the swarm is to be told, over and over but for OFFLINE; None while there is nothing to tell."""
        if self.span is None:
            return None
        return Announcement(self.span, _ANNOUNCED[self.step])

    @property
    def phase(self) -> ServerPhase:
        """What the server as a whole does, as its control socket tells it."""
        return _PHASES[self.step]

    @property
    def sessions(self) -> int:
        """Open inference sessions."""
        return self.gpu.sessions if self.step in (Step.ONLINE, Step.DRAINING) else 0

    def restart_status(self, now: float) -> RestartStatus | None:
        """How far the last restart has come, as the control socket tells it; None if there was none."""
        request = self.restart
        if request is None:
            return None
        if self.restart_is_over:
            phase = RestartPhase.ONLINE if self.restart_error is None else RestartPhase.FAILED
            return RestartStatus(request.id, request.span, phase, None, self.restart_error)
        progress = None
        if self.step is Step.LOADING and self.span is not None:
            progress = self.gpu.load_progress(self.span, now - self.since, self.on_disk)
        return RestartStatus(request.id, request.span, _RESTART_PHASES[self.step], progress)

    def prefetch_status(self) -> PrefetchStatus | None:
        """How far the last prefetch has come, as the control socket tells it; None if there was none."""
        request = self.prefetch
        if request is None:
            return None
        if self.prefetch_error is not None:
            phase = PrefetchPhase.FAILED
        else:
            phase = PrefetchPhase.FETCHING if self.prefetch_until else PrefetchPhase.DONE
        return PrefetchStatus(request.id, request.span, phase, self.prefetch_error)


def _blocks(span: Span) -> frozenset[int]:
    return frozenset(range(span.start, span.end))


def _without_prefetch(life: ServerLife) -> ServerLife:
    """Break off a prefetch that is not over: the restart itself downloads what is missing."""
    if not life.prefetch_until:
        return life
    return replace(life, prefetch_until=0.0, prefetch_error="a restart came first")


def _with_restart_over(life: ServerLife, error: str | None) -> ServerLife:
    if life.restart is None or life.restart_is_over:
        return life
    return replace(life, restart_is_over=True, restart_error=error)
