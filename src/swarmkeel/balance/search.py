"""A beam search over moves of single servers: from where everybody is going to be, to the states that few moves lead to.

States are compared by a soft minimum of the coverage, since the true one does not say which of two states is nearer to a
better bottleneck. Which of the states found is the best is for the caller. Pure, and the same bits anywhere: sums are
taken in a fixed order and roots by `sqrt` alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swarmkeel.balance.coverage import SoftMinimum, WindowChange
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.swarm.span import Span

_Array = NDArray[np.float64]

DWELL_SECONDS: Final = 3600.0
"""What a server's outage costs is spread over this time: so long, about, does a placement last in a swarm that lives."""
NOTHING: Final = 1e-9
"""Coverage below this share of the mean is what rounding left of nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One move.

    Attributes:
        mover: Index of the server.
        target: The blocks that it goes to.
        throughput: What it will serve there, in units of the mean coverage.
    """

    mover: int
    target: Span
    throughput: float


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where a few moves lead to; coverage in units of its mean.

    Attributes:
        steps: The moves.
        coverage: By block when all is done, shape (total_blocks,).
        serving: By block while all movers load, shape (total_blocks,).
        cost: Of the moves.
        score: How good the state is, by a soft minimum and after costs.
        bottleneck: The true minimum of `coverage`.
        uncovered: Blocks of `coverage` with nothing.
    """

    steps: tuple[Step, ...]
    coverage: _Array
    serving: _Array
    cost: float
    score: float
    bottleneck: float
    uncovered: int


@dataclass(frozen=True, slots=True)
class SearchRules:
    """What a search may do, and what it looks for.

    Attributes:
        depth: Most moves of a state.
        beam: States that are kept at each number of moves.
        sharpnesses: Exponents of the soft minimum; each is searched for itself.
        move_cost: Of every move, beside what its outage costs.
        haste: What an hour until a mover serves again counts for, when moves are compared.
        may_uncover: Whether a move may leave a block without a server that has one.
        within_seconds: No move is looked at whose server would serve again later than this.
    """

    depth: int
    beam: int
    sharpnesses: tuple[int, ...]
    move_cost: float
    haste: float = 0.0
    may_uncover: bool = False
    within_seconds: float = math.inf


def initial_state(servers: Sequence[PlanServer], total_blocks: int, unit: float) -> State:
    """Give the state that no move has been made in."""
    coverage, serving = np.zeros(total_blocks), np.zeros(total_blocks)
    for server in servers:
        coverage[server.final.start : server.final.end] += server.throughput / unit
        if server.serving:
            serving[server.final.start : server.final.end] += server.throughput / unit
    return State((), coverage, serving, 0.0, 0.0, float(coverage.min()), count_uncovered(coverage))


def count_uncovered(coverage: _Array) -> int:
    """Count the blocks with nothing."""
    return int(np.count_nonzero(coverage <= NOTHING))


def find_states(
    servers: Sequence[PlanServer], movers: Sequence[int], start: State, *, unit: float, rules: SearchRules
) -> Iterator[State]:
    """Give the states that the search comes across, other than the first one.

    Args:
        servers: All servers.
        movers: Indices of those that may be moved.
        start: From where to search.
        unit: Requests a second that are counted as 1.
        rules: What may be done.
    """
    moving = _Movers(servers, movers, len(start.coverage), unit)
    for sharpness in rules.sharpnesses:
        soft = SoftMinimum(sharpness)
        frontier = [start]
        for _ in range(min(rules.depth, len(movers))):
            frontier = _widen(moving, frontier, soft, rules)
            if not frontier:
                break
            yield from frontier


class _Movers:
    """The servers that may be moved, as arrays; m of them."""

    def __init__(self, servers: Sequence[PlanServer], movers: Sequence[int], total_blocks: int, unit: float) -> None:
        self.servers = [servers[mover] for mover in movers]
        self.indices = list(movers)
        self.unit = unit
        self.throughputs: _Array = np.array([server.throughput / unit for server in self.servers])
        self.serving = np.array([server.serving for server in self.servers], dtype=bool)
        self.load_seconds: _Array = np.array([server.load_seconds for server in self.servers])
        self.fetch_seconds: _Array = np.array([server.fetch_seconds for server in self.servers])
        self.starts = np.array([server.final.start for server in self.servers], dtype=int)
        self.ends = np.array([server.final.end for server in self.servers], dtype=int)
        blocks = np.arange(total_blocks)
        self.here = (blocks >= self.starts[:, None]) & (blocks < self.ends[:, None])
        self.row_of = {index: row for row, index in enumerate(movers)}
        by_length: dict[int, list[tuple[int, float]]] = {}
        for row, server in enumerate(self.servers):
            for length, throughput in ((len(server.final), server.throughput), *server.shapes):
                if 0 < length <= total_blocks:
                    by_length.setdefault(length, []).append((row, throughput / unit))
        self.by_length = {
            length: (np.array([row for row, _ in members]), np.array([throughput for _, throughput in members]))
            for length, members in by_length.items()
        }


@dataclass(frozen=True, slots=True)
class _Candidate:
    state: State
    row: int
    target: Span
    throughput: float
    cost: float
    score: float


def _widen(movers: _Movers, frontier: Sequence[State], soft: SoftMinimum, rules: SearchRules) -> list[State]:
    """Add one move to each state in every possible way; give the best new states, different ones."""
    states: list[State] = []
    seen: set[frozenset[Step]] = set()
    for candidate in _candidates(movers, frontier, soft, rules):
        step = Step(movers.indices[candidate.row], candidate.target, candidate.throughput)
        steps = (*candidate.state.steps, step)
        if frozenset(steps) not in seen:
            seen.add(frozenset(steps))
            states.append(_apply(movers, candidate, steps))
            if len(states) == rules.beam:
                break
    return states


def _candidates(
    movers: _Movers, frontier: Sequence[State], soft: SoftMinimum, rules: SearchRules
) -> Iterator[_Candidate]:
    """Give the best moves from all states of a frontier, best first; ties by server and place."""
    serving = np.array([state.serving for state in frontier])
    coverage = np.array([state.coverage for state in frontier])
    can_move = np.ones((len(frontier), len(movers.indices)), dtype=bool)
    for number, state in enumerate(frontier):
        for step in state.steps:
            can_move[number, movers.row_of[step.mover]] = False
    left = np.where(movers.here, serving[:, None, :] - movers.throughputs[:, None], np.inf)
    if not rules.may_uncover:
        can_move &= ~np.any(movers.here & (left <= NOTHING) & (serving[:, None, :] > NOTHING), axis=2)
    serving_now = np.maximum(serving.min(axis=1), 0.0)
    lost = np.maximum(serving_now[:, None] - left.min(axis=2), 0.0)
    costs = np.array([[state.cost] for state in frontier]) + rules.move_cost
    costs = costs + lost * movers.load_seconds / DWELL_SECONDS
    # So many that different ones are left for a whole beam: one set of moves can be come by from several states.
    enough = rules.beam * len(frontier)
    found = []
    for length, (all_rows, all_throughputs) in movers.by_length.items():
        # One row of what follows for each state and each server that can have this length.
        states, members = np.nonzero(can_move[:, all_rows])
        if not len(states):
            continue
        rows, throughputs = all_rows[members], all_throughputs[members]
        change = WindowChange(coverage[states], movers.here[rows], movers.throughputs[rows], throughputs, length)
        scores = soft.of_change(change) - costs[states, rows][:, None]
        if rules.haste or rules.within_seconds < math.inf:
            arrivals = _arrivals(movers, rows, scores.shape[1], length)
            scores -= rules.haste * arrivals / DWELL_SECONDS
            scores[arrivals > rules.within_seconds] = -np.inf
        same_length = movers.ends[rows] - movers.starts[rows] == length
        scores[np.nonzero(same_length)[0], movers.starts[rows][same_length]] = -np.inf
        flat = scores.ravel()
        best = _best_indices(flat, enough)
        line, start = np.divmod(best, scores.shape[1])
        found.append((flat[best], rows[line], start, np.full(len(best), length), states[line], throughputs[line]))
    if not found:
        return
    score, row, start, lengths, state_of, throughput = (np.concatenate(column) for column in zip(*found, strict=True))
    for each in np.lexsort((lengths, start, row, -score))[:enough]:
        if score[each] > -np.inf:
            target = Span(int(start[each]), int(start[each] + lengths[each]))
            origin, mover = int(state_of[each]), int(row[each])
            yield _Candidate(
                frontier[origin],
                mover,
                target,
                float(throughput[each]),
                float(costs[origin, mover]),
                float(score[each]),
            )


def _arrivals(movers: _Movers, rows: NDArray[np.int_], windows: int, length: int) -> _Array:
    """Give when each server would serve from each start on, see `PlanServer.seconds_to`; shape (rows, windows)."""
    starts = np.arange(windows)
    ends, begins = movers.ends[rows][:, None], movers.starts[rows][:, None]
    shared = np.maximum(np.minimum(starts + length, ends) - np.maximum(starts, begins), 0)
    missing = (length - shared) / length
    arrivals: _Array = movers.load_seconds[rows][:, None] + movers.fetch_seconds[rows][:, None] * missing
    return arrivals


def _apply(movers: _Movers, candidate: _Candidate, steps: tuple[Step, ...]) -> State:
    server = movers.servers[candidate.row]
    coverage, serving = candidate.state.coverage.copy(), candidate.state.serving.copy()
    origin, target = server.final, candidate.target
    coverage[origin.start : origin.end] -= movers.throughputs[candidate.row]
    coverage[coverage < NOTHING] = 0.0
    coverage[target.start : target.end] += candidate.throughput
    if server.serving:
        serving[origin.start : origin.end] -= movers.throughputs[candidate.row]
        serving[serving < NOTHING] = 0.0
    uncovered = count_uncovered(coverage)
    return State(steps, coverage, serving, candidate.cost, candidate.score, float(coverage.min()), uncovered)


def _best_indices(scores: _Array, count: int) -> NDArray[np.int_]:
    """Give where the highest scores are, highest first, ties in order; alike on every machine, as no partition is."""
    if len(scores) > count:
        threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
        (indices,) = np.nonzero(scores >= threshold)
    else:
        indices = np.arange(len(scores))
    order = np.argsort(-scores[indices], kind="stable")[:count]
    return indices[order]
