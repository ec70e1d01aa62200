"""What really happens in a simulated swarm, measured as it happens: nobody inside the simulation can look at it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from swarmkeel.simulation.events import EventQueue
from swarmkeel.simulation.population import Fate, Population
from swarmkeel.swarm.span import Span


@dataclass(slots=True)
class MoveRecord:
    """One move that began while it was measured.

    Attributes:
        peer_id: The server.
        origin: The blocks that it left.
        began_at: When it stopped serving.
        target: Where it went; None until that is known.
        ended_at: When it served again; None if it never did.
        helped: Whether the swarm would have been worse off with this move alone undone; None if it never served again.
    """

    peer_id: str
    origin: Span
    began_at: float
    target: Span | None = None
    ended_at: float | None = None
    helped: bool | None = None


@dataclass(slots=True)
class _Place:
    fate: Fate
    serving: Span | None = None
    going_to: Span | None = None
    move: MoveRecord | None = None


@dataclass(slots=True)
class Trace:
    """The swarm over the measured time, as steps: each value holds from its time to the next.

    Attributes:
        times: Seconds from the beginning of the run, ascending.
        bottlenecks: Requests a second of the least served block, by ONLINE servers alone and what they truly serve.
        uncovered: Blocks that nobody serves.
    """

    times: list[float] = field(default_factory=list)
    bottlenecks: list[float] = field(default_factory=list)
    uncovered: list[int] = field(default_factory=list)


class Truth:
    """Keeps where every server really is.

    Args:
        queue: Simulated time.
        population: The servers.
        measured_from: When measuring begins.

    Attributes:
        trace: Bottleneck and holes over time, warm-up included.
        moves: The moves that began while it was measured.
        offline_seconds: Time of all servers together between leaving one place and serving at the next.
    """

    def __init__(self, queue: EventQueue, population: Population, measured_from: float) -> None:
        self._queue = queue
        self._total_blocks = population.total_blocks
        self._fates = {fate.peer_id: fate for fate in population.fates}
        self._places: dict[str, _Place] = {}
        self._measured_from = measured_from
        self.trace = Trace()
        self.moves: list[MoveRecord] = []
        self.offline_seconds = 0.0
        self._note()

    def arrives(self, peer_id: str) -> None:
        """Note that a server is there."""
        self._places[peer_id] = _Place(self._fates[peer_id])

    def loads(self, peer_id: str, span: Span) -> None:
        """Note that it loads blocks."""
        place = self._places[peer_id]
        place.going_to = span
        if place.move is not None:
            place.move.target = span

    def intends(self, peer_id: str, span: Span | None) -> None:
        """Note that a serving server is about to go to other blocks, or no longer; counts when moves are judged."""
        place = self._places.get(peer_id)
        if place is not None and place.serving is not None:
            place.going_to = span

    def serves(self, peer_id: str, span: Span) -> None:
        """Note that it serves."""
        place = self._places[peer_id]
        place.serving, place.going_to = span, None
        self._note()
        move = place.move
        if move is not None:
            place.move = None
            move.target, move.ended_at = span, self._queue.now
            move.helped = self._helps(peer_id, move.origin)
            self._count_offline(move.began_at)

    def stops(self, peer_id: str) -> None:
        """Note that it serves no more; it will be back."""
        place = self._places[peer_id]
        if place.serving is not None:
            place.move = MoveRecord(peer_id, place.serving, self._queue.now)
            if self._queue.now >= self._measured_from:
                self.moves.append(place.move)
        place.serving = place.going_to = None
        self._note()

    def leaves(self, peer_id: str) -> None:
        """Note that it is gone for good."""
        place = self._places.pop(peer_id, None)
        if place is not None and place.move is not None:
            self._count_offline(place.move.began_at)
        self._note()

    def finish(self) -> None:
        """End measuring."""
        for place in self._places.values():
            if place.move is not None:
                self._count_offline(place.move.began_at)
        self._note()

    def serving(self) -> dict[str, Span]:
        """Give the servers that serve now, and their blocks."""
        return {peer_id: place.serving for peer_id, place in self._places.items() if place.serving is not None}

    def _count_offline(self, since: float) -> None:
        self.offline_seconds += max(self._queue.now - max(since, self._measured_from), 0.0)

    def _coverage(self) -> NDArray[np.float64]:
        coverage = np.zeros(self._total_blocks)
        for place in self._places.values():
            span = place.serving
            if span is not None:
                coverage[span.start : span.end] += place.fate.throughput_of(len(span))
        return coverage

    def _note(self) -> None:
        coverage, trace = self._coverage(), self.trace
        bottleneck = float(coverage.min())
        uncovered = int(np.count_nonzero(coverage == 0)) if bottleneck == 0 else 0
        if trace.times and trace.times[-1] == self._queue.now:
            trace.bottlenecks[-1], trace.uncovered[-1] = bottleneck, uncovered
            return
        trace.times.append(self._queue.now)
        trace.bottlenecks.append(bottleneck)
        trace.uncovered.append(uncovered)

    def _helps(self, peer_id: str, origin: Span) -> bool:
        """Tell whether the swarm is better off with a server where it is now than back on `origin`.

        All others count where they will be: where they load or are about to go, else where they serve. Better is fewer
        uncovered blocks, then a higher bottleneck.
        """
        others = np.zeros(self._total_blocks)
        for other, place in self._places.items():
            span = place.going_to or place.serving
            if other != peer_id and span is not None:
                others[span.start : span.end] += place.fate.throughput_of(len(span))
        own = self._places[peer_id]

        def quality(span: Span | None) -> tuple[int, float]:
            coverage = others.copy()
            if span is not None:
                coverage[span.start : span.end] += own.fate.throughput_of(len(span))
            return -int(np.count_nonzero(coverage == 0)), float(coverage.min())

        with_move, without = quality(own.serving), quality(origin)
        # What differs by rounding alone is no gain.
        return with_move[0] > without[0] or (with_move[0] == without[0] and with_move[1] > without[1] * (1 + 1e-9))
