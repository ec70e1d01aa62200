"""Which few moves would raise a swarm's bottleneck: the plan that all sidecars with the same view make alike.

A beam search over moves of single servers. States are compared by a soft minimum of the coverage, since the true one does
not say which of two states is nearer to a better bottleneck; a plan is taken on the true bottleneck alone, after the
costs of its moves. Pure, and the same bits anywhere: sums are taken in a fixed order and roots by `sqrt` alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swarmkeel.balance.coverage import SoftMinimum, WindowChange
from swarmkeel.swarm.span import Span

_Array = NDArray[np.float64]

DWELL_SECONDS: Final = 3600.0
"""What a server's outage costs is spread over this time: so long, about, does a placement last in a swarm that lives."""
_NARROW_BEAM_ABOVE: Final = 60
"""Servers; a large swarm has so many equally good moves that a wider beam finds the same plans."""
_BEAM: Final = 4
_SHARPNESSES: Final = (8, 32)
"""Exponents of the soft minimum: the blunt one sees far, the sharp one sees what the bottleneck itself does."""
_COST_FLOOR: Final = 0.1
"""A move costs at least this share of what it would cost at a bottleneck as high as the mean coverage."""
_HASTE: Final = 0.2
"""While a block has no server moves cost nothing, but so much of the mean coverage for each hour of its load decides
between a server that is quick and one that fits better."""
_NOTHING: Final = 1e-9
"""Coverage below this share of the mean is what rounding left of nothing."""


@dataclass(frozen=True, slots=True)
class PlanServer:
    """One server as a plan sees it; spans are counted from the first block read.

    Attributes:
        peer_id: Its peer id.
        final: The blocks where it will be: a claim's target, else its announced span.
        throughput: Requests a second that it will serve there.
        serving: Whether it serves `final` now and will not leave it by itself.
        movable: Whether a plan may move it now.
        movable_in_emergency: Whether a plan may move it to close a hole.
        load_seconds: How long a move takes it out of service.
        shapes: Other numbers of blocks that it can hold, each with the requests a second that it would serve then.
        unless_claimed: Where a server with a claim will be, and what it will serve there, if the claim comes to nothing;
            None without a claim.
    """

    peer_id: str
    final: Span
    throughput: float
    serving: bool
    movable: bool
    movable_in_emergency: bool
    load_seconds: float
    shapes: tuple[tuple[int, float], ...] = ()
    unless_claimed: tuple[Span, float] | None = None


@dataclass(frozen=True, slots=True)
class PlannedMove:
    """One move of a plan; spans are counted from the first block read.

    Attributes:
        peer_id: The server that moves.
        origin: The blocks that it leaves.
        target: The blocks that it goes to.
        throughput: Requests a second that it will serve there.
        load_seconds: How long it will be out of service.
    """

    peer_id: str
    origin: Span
    target: Span
    throughput: float
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """What some moves lead to.

    Attributes:
        moves: The moves, in the order in which they were found.
        bottleneck_rps: The true bottleneck when all of them are done.
        uncovered_blocks: Blocks without a server then.
        cost_rps: What the moves cost, as requests a second of the bottleneck.
        gain_rps: By how much the bottleneck rises, before costs.
    """

    moves: tuple[PlannedMove, ...]
    bottleneck_rps: float
    uncovered_blocks: int
    cost_rps: float
    gain_rps: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one search.

    Attributes:
        moves: The moves to make; none where no move is worth it.
        bottleneck_before_rps: The bottleneck when everybody is where it is going already.
        uncovered_before: Blocks without a server then.
        is_emergency: Whether a block is without a server, so that every request fails.
        best: What the moves lead to; without moves, the best that was found and not worth it; None if nothing was.
        movable: Number of servers that the search could move.
    """

    moves: tuple[PlannedMove, ...]
    bottleneck_before_rps: float
    uncovered_before: int
    is_emergency: bool
    best: Outlook | None
    movable: int

    def move_of(self, peer_id: str) -> PlannedMove | None:
        """Give the move of this server; None if the plan leaves it where it is."""
        return next((move for move in self.moves if move.peer_id == peer_id), None)


def make_plan(servers: tuple[PlanServer, ...], *, total_blocks: int, move_cost: float) -> Plan:
    """Find the few moves that raise the bottleneck most, after their costs; none if none is worth it.

    No move of a plan leaves a block without a server that has one, not even while all of its movers load. Nor does a plan
    lower the bottleneck if the claims of others come to nothing: claims are not signed, and nobody moves for the worse on
    the word of a stranger.

    Args:
        servers: The servers, each once, in the order of their peer ids; those with a span past the model are not for
            here.
        total_blocks: Number of blocks of the model, at least 1.
        move_cost: What a move must bring beyond its own outage, as a share of the present bottleneck; taken as if the
            bottleneck were at least a tenth of the mean coverage and at most all of it.
    """
    search = _Search(servers, total_blocks, move_cost)
    best = search.run()
    worth_it = best is not None and search.is_worth_it(best)
    outlook = None if best is None else search.outlook(best)
    return Plan(
        moves=outlook.moves if outlook is not None and worth_it else (),
        bottleneck_before_rps=search.bottleneck_before_rps,
        uncovered_before=search.before.uncovered,
        is_emergency=search.is_emergency,
        best=outlook,
        movable=len(search.movers),
    )


@dataclass(frozen=True, slots=True)
class _Step:
    mover: int
    target: Span
    throughput: float


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """Where a few moves lead to.

    Attributes:
        steps: The moves.
        coverage: Requests a second by block when all is done, shape (total_blocks,).
        serving: Requests a second by block while all movers load, shape (total_blocks,).
        cost: Of the moves.
        score: How good the state is, by a soft minimum and after costs.
        bottleneck: The true minimum of `coverage`.
        uncovered: Blocks of `coverage` with nothing.
    """

    steps: tuple[_Step, ...]
    coverage: _Array
    serving: _Array
    cost: float
    score: float
    bottleneck: float
    uncovered: int


class _Search:
    """One search; all throughputs inside are in units of the mean coverage."""

    def __init__(self, servers: Sequence[PlanServer], total_blocks: int, move_cost: float) -> None:
        self._servers = servers
        self._total_blocks = total_blocks
        mean = math.fsum(server.throughput * len(server.final) for server in servers) / total_blocks
        self._unit = mean if 0 < mean < math.inf else 1.0
        coverage, serving, unclaimed = np.zeros(total_blocks), np.zeros(total_blocks), np.zeros(total_blocks)
        for server in servers:
            throughput = server.throughput / self._unit
            coverage[server.final.start : server.final.end] += throughput
            stays, stays_rps = server.unless_claimed or (server.final, server.throughput)
            unclaimed[stays.start : stays.end] += stays_rps / self._unit
            if server.serving:
                serving[server.final.start : server.final.end] += throughput
        bottleneck = float(coverage.min())
        self._unclaimed = unclaimed
        # What only claims would uncover is no hole yet.
        self.is_emergency = bool(np.any((coverage <= _NOTHING) & (unclaimed <= _NOTHING)))
        self.before = _State((), coverage, serving, 0.0, 0.0, bottleneck, _count_uncovered(coverage))
        self.movers = [
            index
            for index, server in enumerate(servers)
            if (server.movable_in_emergency if self.is_emergency else server.movable)
        ]
        # Where nothing works anyway, any move that makes it work is worth it.
        self._move_cost = 0.0 if self.is_emergency else move_cost * min(max(bottleneck, _COST_FLOOR), 1.0)
        self._depth = min(max(3, math.ceil(0.03 * len(servers))), 10)
        narrow = len(servers) > _NARROW_BEAM_ABOVE
        self._beam = 1 if narrow else _BEAM
        self._sharpnesses = _SHARPNESSES[-1:] if narrow else _SHARPNESSES

    @property
    def bottleneck_before_rps(self) -> float:
        """The present bottleneck in the caller's units."""
        return self.before.bottleneck * self._unit

    def run(self) -> _State | None:
        """Give the best state found other than the present one, whether it is worth it or not; None if none was."""
        best: _State | None = None
        for sharpness in self._sharpnesses:
            soft = SoftMinimum(sharpness)
            frontier = [self.before]
            for _ in range(self._depth):
                frontier = self._widen(frontier, soft)
                for state in frontier:
                    if best is None or self._rank(state) < self._rank(best):
                        best = state
                if not frontier:
                    break
        return best

    def _rank(self, state: _State) -> tuple[float, ...]:
        distrust = not self._holds_without_claims(state)
        if self.is_emergency:
            slowest = max(self._servers[step.mover].load_seconds for step in state.steps)
            return (distrust, state.uncovered, len(state.steps), slowest, -state.bottleneck)
        return (distrust, state.cost - state.bottleneck, len(state.steps))

    def _holds_without_claims(self, state: _State) -> bool:
        """Tell whether a state is no worse than the present one if no claim comes true."""
        unclaimed = self._unclaimed.copy()
        for step in state.steps:
            server = self._servers[step.mover]
            unclaimed[server.final.start : server.final.end] -= server.throughput / self._unit
            unclaimed[step.target.start : step.target.end] += step.throughput
        if _count_uncovered(unclaimed) > _count_uncovered(self._unclaimed):
            return False
        return float(unclaimed.min()) >= float(self._unclaimed.min()) - _NOTHING

    def is_worth_it(self, state: _State) -> bool:
        """Tell whether a state is worth its moves."""
        if not self._holds_without_claims(state):
            return False
        if self.is_emergency:
            return state.uncovered == 0
        return state.bottleneck - self.before.bottleneck - state.cost > _NOTHING

    def outlook(self, state: _State) -> Outlook:
        """Put a state into the caller's units."""
        moves = []
        for step in state.steps:
            server = self._servers[step.mover]
            throughput = step.throughput * self._unit
            moves.append(PlannedMove(server.peer_id, server.final, step.target, throughput, server.load_seconds))
        return Outlook(
            tuple(moves),
            bottleneck_rps=state.bottleneck * self._unit,
            uncovered_blocks=state.uncovered,
            cost_rps=state.cost * self._unit,
            gain_rps=(state.bottleneck - self.before.bottleneck) * self._unit,
        )

    def _widen(self, frontier: Sequence[_State], soft: SoftMinimum) -> list[_State]:
        """Add one move to each state in every possible way; give the best new states, different ones."""
        found = [candidate for state in frontier for candidate in self._candidates(state, soft)]
        found.sort(key=lambda candidate: (-candidate.score, candidate.mover, candidate.target))
        states: list[_State] = []
        seen: set[frozenset[_Step]] = set()
        for candidate in found:
            steps = (*candidate.state.steps, _Step(candidate.mover, candidate.target, candidate.throughput))
            if frozenset(steps) not in seen:
                seen.add(frozenset(steps))
                states.append(self._apply(candidate, steps))
                if len(states) == self._beam:
                    break
        return states

    def _candidates(self, state: _State, soft: SoftMinimum) -> Iterator[_Candidate]:
        """Give the best moves from a state: for each length of a span as many as the frontier has room for."""
        moved = {step.mover for step in state.steps}
        movers, costs = [], []
        serving_now = max(float(state.serving.min()), 0.0)
        for mover in self.movers:
            if mover in moved:
                continue
            server = self._servers[mover]
            here = state.serving[server.final.start : server.final.end]
            left = here - server.throughput / self._unit
            if np.any((left <= _NOTHING) & (here > _NOTHING)):
                continue  # it would leave a block without a server
            lost = max(serving_now - float(left.min()), 0.0)
            movers.append(mover)
            costs.append(state.cost + self._move_cost + lost * server.load_seconds / DWELL_SECONDS)
        for length, members in self._by_length(movers).items():
            rows = [row for row, _ in members]
            change = WindowChange(
                state.coverage,
                [self._servers[movers[row]].final for row in rows],
                np.array([self._servers[movers[row]].throughput / self._unit for row in rows]),
                np.array([throughput / self._unit for _, throughput in members]),
                length,
            )
            scores = soft.of_change(change) - np.array([costs[row] for row in rows])[:, None]
            if self.is_emergency:
                loads = np.array([self._servers[movers[row]].load_seconds for row in rows])
                scores -= _HASTE * loads[:, None] / DWELL_SECONDS
            for position, row in enumerate(rows):
                origin = self._servers[movers[row]].final
                if len(origin) == length:
                    scores[position, origin.start] = -np.inf
            flat = scores.ravel()
            for index in _best_indices(flat, self._beam):
                if flat[index] == -np.inf:
                    continue
                position, start = divmod(index, scores.shape[1])
                row, throughput = members[position]
                yield _Candidate(
                    state,
                    movers[row],
                    Span(start, start + length),
                    throughput / self._unit,
                    costs[row],
                    float(flat[index]),
                )

    def _by_length(self, movers: Sequence[int]) -> dict[int, list[tuple[int, float]]]:
        """Give, for each length of a span, the positions of the movers that can have it, and their throughputs then."""
        by_length: dict[int, list[tuple[int, float]]] = {}
        for row, mover in enumerate(movers):
            server = self._servers[mover]
            for length, throughput in ((len(server.final), server.throughput), *server.shapes):
                if 0 < length <= self._total_blocks:
                    by_length.setdefault(length, []).append((row, throughput))
        return by_length

    def _apply(self, candidate: _Candidate, steps: tuple[_Step, ...]) -> _State:
        server = self._servers[candidate.mover]
        coverage, serving = candidate.state.coverage.copy(), candidate.state.serving.copy()
        origin, target = server.final, candidate.target
        coverage[origin.start : origin.end] -= server.throughput / self._unit
        coverage[coverage < _NOTHING] = 0.0
        coverage[target.start : target.end] += candidate.throughput
        if server.serving:
            serving[origin.start : origin.end] -= server.throughput / self._unit
        uncovered = _count_uncovered(coverage)
        return _State(steps, coverage, serving, candidate.cost, candidate.score, float(coverage.min()), uncovered)


@dataclass(frozen=True, slots=True)
class _Candidate:
    state: _State
    mover: int
    target: Span
    throughput: float
    cost: float
    score: float


def _best_indices(scores: _Array, count: int) -> list[int]:
    """Give where the highest scores are, highest first, ties in order; alike on every machine, as no partition is."""
    if len(scores) > count:
        threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
        (indices,) = np.nonzero(scores >= threshold)
    else:
        indices = np.arange(len(scores))
    order = np.argsort(-scores[indices], kind="stable")[:count]
    found: list[int] = indices[order].tolist()
    return found


def _count_uncovered(coverage: _Array) -> int:
    return int(np.count_nonzero(coverage <= _NOTHING))
