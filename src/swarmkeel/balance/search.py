"""A beam search over moves of single servers: from where everybody is going to be, to the states that few moves lead to.

States are compared by a soft minimum of the coverage, since the true one does not say which of two states is nearer to a
better bottleneck. Which of the states found is the best is for the caller. Pure, and the same bits anywhere: sums are
taken in a fixed order and roots by `sqrt` alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarmkeel.balance.candidates import NOTHING, Movers, Pricing, Start, best_candidates, departures
from swarmkeel.balance.coverage import SoftMinimum, sum_coverage
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.swarm.span import Span

_Array = NDArray[np.float64]


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
    coverage = _coverage(servers, total_blocks, unit)
    serving = _coverage([server for server in servers if server.serving], total_blocks, unit)
    return State((), coverage, serving, 0.0, 0.0, float(coverage.min()), count_uncovered(coverage))


def _coverage(servers: Sequence[PlanServer], total_blocks: int, unit: float) -> _Array:
    return sum_coverage(
        [server.final for server in servers], [server.throughput / unit for server in servers], total_blocks
    )


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
    moving = _Moving([servers[mover] for mover in movers], movers, len(start.coverage), unit)
    for sharpness in rules.sharpnesses:
        soft = SoftMinimum(sharpness)
        frontier = [start]
        for _ in range(min(rules.depth, len(movers))):
            frontier = _widen(moving, frontier, soft, rules)
            if not frontier:
                break
            yield from frontier


def take_step(
    servers: Sequence[PlanServer], start: State, step: Step, *, unit: float, rules: SearchRules
) -> State | None:
    """Give the state that one move leads to; None if the rules do not allow its server to leave.

    Args:
        servers: All servers.
        start: The state before it.
        step: The move.
        unit: Requests a second that are counted as 1.
        rules: What may be done.
    """
    moving = _Moving([servers[step.mover]], [step.mover], len(start.coverage), unit)
    before = Start(start.coverage, start.serving, start.cost, ())
    allowed, costs = departures(moving.as_arrays, [before], _pricing(rules))
    if not allowed[0, 0]:
        return None
    return _apply(moving, start, (*start.steps, step), float(costs[0, 0]), start.score)


def _pricing(rules: SearchRules) -> Pricing:
    return Pricing(rules.move_cost, rules.haste, rules.may_uncover, rules.within_seconds)


class _Moving:
    """The servers that may be moved."""

    def __init__(self, servers: Sequence[PlanServer], indices: Sequence[int], total_blocks: int, unit: float) -> None:
        self.servers = servers
        self.indices = indices
        self.row_of = {index: row for row, index in enumerate(indices)}
        self.as_arrays = Movers(servers, total_blocks, unit)


def _widen(moving: _Moving, frontier: Sequence[State], soft: SoftMinimum, rules: SearchRules) -> list[State]:
    """Add one move to each state in every possible way; give the best new states, different ones."""
    starts = [
        Start(state.coverage, state.serving, state.cost, tuple(moving.row_of[step.mover] for step in state.steps))
        for state in frontier
    ]
    # So many that different ones are left for a whole beam: one set of moves can be come by from several states.
    enough = rules.beam * len(frontier)
    states: list[State] = []
    seen: set[frozenset[Step]] = set()
    for candidate in best_candidates(moving.as_arrays, starts, soft, _pricing(rules), enough=enough):
        target = Span(candidate.start, candidate.start + candidate.length)
        step = Step(moving.indices[candidate.row], target, candidate.throughput)
        steps = (*frontier[candidate.origin].steps, step)
        if frozenset(steps) not in seen:
            seen.add(frozenset(steps))
            states.append(_apply(moving, frontier[candidate.origin], steps, candidate.cost, candidate.score))
            if len(states) == rules.beam:
                break
    return states


def _apply(moving: _Moving, before: State, steps: tuple[Step, ...], cost: float, score: float) -> State:
    """Give the state that the last of some steps leads to."""
    step = steps[-1]
    row = moving.row_of[step.mover]
    server, throughput = moving.servers[row], moving.as_arrays.throughputs[row]
    coverage, serving = before.coverage.copy(), before.serving.copy()
    origin, target = server.final, step.target
    coverage[origin.start : origin.end] -= throughput
    coverage[coverage < NOTHING] = 0.0
    coverage[target.start : target.end] += step.throughput
    if server.serving:
        serving[origin.start : origin.end] -= throughput
        serving[serving < NOTHING] = 0.0
    return State(steps, coverage, serving, cost, score, float(coverage.min()), count_uncovered(coverage))
