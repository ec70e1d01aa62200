"""Which few moves would help a swarm most: the plan that all sidecars with the same view make alike.

Where every block has a server, or will have one soon, the plan raises the bottleneck. Where one has none, it closes the
hole. A plan is taken on the true bottleneck alone, after the costs of its moves (`balance.search` finds the states to
choose from).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swarmkeel.balance.arrivals import Arrivals
from swarmkeel.balance.candidates import DWELL_SECONDS, NOTHING
from swarmkeel.balance.coverage import sum_coverage
from swarmkeel.balance.layout import lay_out
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.balance.search import (
    SearchRules,
    State,
    Step,
    count_uncovered,
    find_states,
    initial_state,
    take_step,
)
from swarmkeel.swarm.span import Span

_Array = NDArray[np.float64]

_NARROW_BEAM_ABOVE: Final = 60
"""Servers; a large swarm has so many equally good moves that a wider beam finds the same plans."""
_BEAM: Final = 4
_SHARPNESSES: Final = (8, 32)
"""Exponents of the soft minimum: the blunt one sees far, the sharp one sees what the bottleneck itself does."""
_COST_FLOOR: Final = 0.1
"""A move costs at least this share of what it would cost at a bottleneck as high as the mean coverage."""
_COST_OF_PLAN: Final = 50.0
"""A plan of as many moves as are made at once costs at most this many times what a server serves, times the dial: twice what
it serves, usually. In a swarm of thousands nothing that so few moves can bring is a share of the whole, and without this limit
a block that has lost nearly all of its servers would stay as it is."""
_HASTE: Final = 0.2
"""While a block has no server moves cost nothing, but so much of the mean coverage for each hour until its end decides
between a server that is quick and one that fits better."""
_KEPT_REPAIR: Final = 0.9
"""A claimed move stays part of a repair that is worth so much of the best one."""
_REPAIR_DEPTH: Final = 10
_REPAIR_BEAM: Final = 8
"""Where no few moves close every hole the whole of a small swarm may have to be laid out anew."""
_SLOW_SECONDS: Final = 120.0
"""A hole that is being closed, but not within this time, may be closed by others sooner."""


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
        covered_in_seconds: When every block will have a server; infinite if one never will.
    """

    moves: tuple[PlannedMove, ...]
    bottleneck_rps: float
    uncovered_blocks: int
    cost_rps: float
    gain_rps: float
    covered_in_seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one search.

    Attributes:
        moves: The moves to make; none where no move is worth it.
        bottleneck_before_rps: The bottleneck when everybody is where it is going already.
        uncovered_before: Blocks without a server then.
        is_emergency: Whether it was made to close holes: a block has no server, and none is on its way, or a slow one.
        best: What the moves lead to; without moves, the best that was found and not worth it; None if nothing was.
        movable: Number of servers that the search could move.
        covered_in_seconds_before: When every block will have a server without this plan; infinite if one never will.
    """

    moves: tuple[PlannedMove, ...]
    bottleneck_before_rps: float
    uncovered_before: int
    is_emergency: bool
    best: Outlook | None
    movable: int
    covered_in_seconds_before: float = 0.0

    def move_of(self, peer_id: str) -> PlannedMove | None:
        """Give the move of this server; None if the plan leaves it where it is."""
        return next((move for move in self.moves if move.peer_id == peer_id), None)


@dataclass(frozen=True, slots=True)
class Standing:
    """A move that its sidecar has claimed already.

    Attributes:
        peer_id: The server, one that may be moved.
        target: The blocks that it is going to, counted from the first block read.
        throughput: Requests a second that it will serve there.
    """

    peer_id: str
    target: Span
    throughput: float


def make_plan(
    servers: tuple[PlanServer, ...],
    *,
    total_blocks: int,
    move_cost: float,
    unread: frozenset[int] = frozenset(),
    standing: Standing | None = None,
) -> Plan:
    """Find the few moves that raise the bottleneck most, after their costs; none if none is worth it.

    No move of a plan leaves a block without a server that has one, not even while all of its movers load. Of this there is
    one exception: a block has no server already, so that every request fails, and no such plan gives it one. Then servers
    may be moved from anywhere, if every block has a server in the end.

    Nor does a plan lower the bottleneck if the claims of others come to nothing and those who announce far more than the
    others serve no more than these (`PlanServer.credit`): nothing is signed, and nobody moves for the worse on the word of
    a stranger.

    Args:
        servers: The servers, each once, in the order of their peer ids; those with a span past the model are not for
            here.
        total_blocks: Number of blocks of the model, at least 1.
        move_cost: What a move must bring beyond its own outage, as a share of the present bottleneck; taken as if the
            bottleneck were at least a tenth of the mean coverage and at most all of it.
        unread: Blocks on which there may be servers that nobody has read of. They may be better off than they look, so
            that a plan has to lead to more than what the other blocks have now.
        standing: A claimed move. It is part of the plan as long as no plan without it leads to more by the cost of a move,
            or, where a block has no server, by a tenth: to begin again takes time, and others have planned with it.
    """
    planning = _Planning(servers, total_blocks, move_cost, unread, standing)
    seconds = planning.covered_in(())
    if seconds == math.inf:
        best = planning.find_repair()
        return planning.to_plan(best, is_worth_it=best is not None and best.uncovered == 0, is_emergency=True)
    if seconds > _SLOW_SECONDS:
        best = planning.find_quicker_repair(seconds)
        if best is not None:
            return planning.to_plan(best, is_worth_it=True, is_emergency=True)
    best = planning.find_improvement()
    return planning.to_plan(best, is_worth_it=best is not None and planning.improves(best), is_emergency=False)


class _Planning:
    """The making of one plan; throughputs inside are in units of the mean coverage."""

    def __init__(
        self,
        servers: tuple[PlanServer, ...],
        total_blocks: int,
        move_cost: float,
        unread: frozenset[int],
        standing: Standing | None,
    ) -> None:
        self._servers = servers
        self._total_blocks = total_blocks
        self._dial = move_cost
        mean = math.fsum(server.throughput * len(server.final) for server in servers) / total_blocks
        self._unit = mean if 0 < mean < math.inf else 1.0
        self._before = initial_state(servers, total_blocks, self._unit)
        stays = [server.unless_claimed or (server.final, server.throughput) for server in servers]
        self._doubted = sum_coverage(
            [span for span, _ in stays],
            [rps / self._unit * server.credit for (_, rps), server in zip(stays, servers, strict=True)],
            total_blocks,
        )
        finals = [server.final for server in servers]
        self._announced = sum_coverage(
            finals, [server.throughput / self._unit * server.announced for server in servers], total_blocks
        )
        self._renewed = self._before.coverage.copy()
        self._has_overdue = any(server.is_overdue for server in servers)
        for server in servers:
            if server.is_overdue:
                self._renewed[server.final.start : server.final.end] -= server.throughput / self._unit
        self._arrivals = Arrivals(servers, total_blocks, self._unit)
        read = [block for block in range(total_blocks) if block not in unread]
        self._at_most = float(self._before.coverage[read].min()) if read else math.inf
        self._is_large = len(servers) > _NARROW_BEAM_ABOVE
        self._depth = min(max(3, math.ceil(0.03 * len(servers))), 10)
        served = math.fsum(server.throughput / self._unit for server in servers) / max(len(servers), 1)
        self._move_cost = move_cost * min(
            max(self._before.bottleneck, _COST_FLOOR), 1.0, _COST_OF_PLAN * served / self._depth
        )

        self._standing: Step | None = None
        if standing is not None:
            mover = next((index for index, each in enumerate(servers) if each.peer_id == standing.peer_id), None)
            if mover is not None and standing.target != servers[mover].final:
                self._standing = Step(mover, standing.target, standing.throughput / self._unit)

    # Raising the bottleneck.

    def find_improvement(self) -> State | None:
        """Give the best state found, whether it is worth it or not; None if none was."""
        rules = SearchRules(
            depth=self._depth,
            beam=1 if self._is_large else _BEAM,
            sharpnesses=_SHARPNESSES[-1:] if self._is_large else _SHARPNESSES,
            move_cost=self._move_cost,
        )
        movers = self._movers()
        best = min(
            find_states(self._servers, movers, self._before, unit=self._unit, rules=rules), key=self._rank, default=None
        )
        kept = min(self._with_standing(movers, rules), key=self._rank, default=None)
        if kept is None or not self.improves(kept):
            return best
        if best is None or not self.improves(best):
            return kept
        return kept if kept.bottleneck - kept.cost >= best.bottleneck - best.cost - self._move_cost else best

    def _with_standing(self, movers: list[int], rules: SearchRules) -> Iterator[State]:
        """Give the states that lead on from the claimed move."""
        step = self._standing
        if step is None or step.mover not in movers:
            return
        begun = take_step(self._servers, self._before, step, unit=self._unit, rules=rules)
        if begun is not None:
            yield begun
            fewer = replace(rules, depth=rules.depth - 1)
            yield from find_states(self._servers, movers, begun, unit=self._unit, rules=fewer)

    def _rank(self, state: State) -> tuple[float, ...]:
        return (
            not self._stands_doubt(state),
            not self._helps_without_overdue(state),
            state.cost - state.bottleneck,
            len(state.steps),
        )

    def improves(self, state: State) -> bool:
        """Tell whether a state is worth its moves."""
        gain = state.bottleneck - self._at_most - state.cost
        return gain > NOTHING and self._stands_doubt(state) and self._helps_without_overdue(state)

    def _helps_without_overdue(self, state: State) -> bool:
        """Tell whether a state is better than the present one even if those are gone whose records are overdue.

        Most moves that turn out to have been for nothing were planned with a server that had crashed already.
        """
        if not self._has_overdue:
            return True
        after = self._renewed.copy()
        for step in state.steps:
            server = self._servers[step.mover]
            if not server.is_overdue:
                after[server.final.start : server.final.end] -= server.throughput / self._unit
                after[step.target.start : step.target.end] += step.throughput
        return float(after.min()) > float(self._renewed.min()) + NOTHING

    def _stands_doubt(self, state: State) -> bool:
        """Tell whether a state is no worse than the present one, whoever may be lying.

        Neither if no claim comes true and those who announce far more than others serve as little as these, nor if all is
        as announced.
        """
        doubted, announced = self._doubted.copy(), self._announced.copy()
        for step in state.steps:
            server = self._servers[step.mover]
            origin, throughput = server.final, server.throughput / self._unit
            doubted[origin.start : origin.end] -= throughput * server.credit
            doubted[step.target.start : step.target.end] += step.throughput * server.credit
            announced[origin.start : origin.end] -= throughput * server.announced
            announced[step.target.start : step.target.end] += step.throughput * server.announced
        return _is_no_worse(doubted, self._doubted) and _is_no_worse(announced, self._announced)

    # Closing holes.

    def find_repair(self) -> State | None:
        """Give the state that closes every hole best; where none does, the one that leaves fewest; None if none was."""
        rules = SearchRules(
            depth=self._depth,
            beam=1 if self._is_large else _BEAM,
            sharpnesses=_SHARPNESSES[-1:] if self._is_large else _SHARPNESSES,
            move_cost=0.0,
            haste=_HASTE,
        )
        best = self._best_repair(self._before, rules)
        if best is not None and best.uncovered == 0:
            return self._keep_repair(best, rules)
        anywhere = replace(rules, depth=_REPAIR_DEPTH, beam=_REPAIR_BEAM, may_uncover=True)
        thorough = self._best_repair(self._before, anywhere)
        laid_out = self._laid_out()
        closing = [state for state in (thorough, laid_out) if state is not None and state.uncovered == 0]
        return min(closing, key=lambda state: -self._value(state.steps), default=best)

    def _keep_repair(self, best: State, rules: SearchRules) -> State:
        """Give a repair that has the claimed move in it if it is hardly worse than the best one, else that one."""
        states = self._with_standing(self._movers(in_emergency=True), rules)
        closing = [state for state in states if state.uncovered == 0 and self._stands_doubt(state)]
        kept = max(closing, key=lambda state: self._value(state.steps), default=best)
        return kept if self._value(kept.steps) >= _KEPT_REPAIR * self._value(best.steps) else best

    def _laid_out(self) -> State | None:
        placements = lay_out(self._servers, self._total_blocks)
        if not placements:
            return None
        steps = tuple(Step(each.server, each.target, each.throughput / self._unit) for each in placements)
        coverage = self._coverage_after(steps)
        state = State(steps, coverage, self._before.serving, 0.0, 0.0, float(coverage.min()), count_uncovered(coverage))
        return state if self._stands_doubt(state) else None

    def find_quicker_repair(self, seconds: float) -> State | None:
        """Give a state that closes in half the time what others are about to close; None if none is worth its moves.

        Args:
            seconds: When those others will have closed every hole.
        """
        rules = SearchRules(
            depth=self._depth,
            beam=_BEAM,
            sharpnesses=_SHARPNESSES[-1:],
            move_cost=0.0,
            haste=_HASTE,
            within_seconds=seconds / 2,
        )
        soon = [server for server in self._servers if server.arrives_in <= seconds / 2]
        best = self._best_repair(initial_state(soon, self._total_blocks, self._unit), rules)
        if best is None or best.uncovered:
            return None
        return best if self._value(best.steps) > self._value(()) + NOTHING else None

    def _best_repair(self, start: State, rules: SearchRules) -> State | None:
        best: tuple[tuple[float, ...], State] | None = None
        for state in find_states(self._servers, self._movers(in_emergency=True), start, unit=self._unit, rules=rules):
            rank = (
                not self._stands_doubt(state),
                state.uncovered,
                -self._value(state.steps),
                len(state.steps),
            )
            if best is None or rank < best[0]:
                best = rank, state
        return None if best is None or best[0][0] else best[1]

    def _value(self, steps: tuple[Step, ...]) -> float:
        """Give what moves lead to: the bottleneck, less for the time until it is there, and for every move."""
        bottleneck = float(self._coverage_after(steps).min())
        return bottleneck * (DWELL_SECONDS / (DWELL_SECONDS + self.covered_in(steps)) - self._dial * len(steps))

    def _coverage_after(self, steps: tuple[Step, ...]) -> _Array:
        coverage = self._before.coverage.copy()
        for step in steps:
            server = self._servers[step.mover]
            coverage[server.final.start : server.final.end] -= server.throughput / self._unit
            coverage[step.target.start : step.target.end] += step.throughput
        coverage[coverage < NOTHING] = 0.0
        return coverage

    def covered_in(self, steps: tuple[Step, ...]) -> float:
        """Give how many seconds it is after some moves until every block has a server; infinite if one never has."""
        return self._arrivals.covered_in({step.mover: step.target for step in steps})

    # What both share.

    def _movers(self, *, in_emergency: bool = False) -> list[int]:
        return [
            index
            for index, server in enumerate(self._servers)
            if (server.movable_in_emergency if in_emergency else server.movable)
        ]

    def to_plan(self, best: State | None, *, is_worth_it: bool, is_emergency: bool) -> Plan:
        """Put what was found into the caller's units."""
        outlook = None if best is None else self._outlook(best)
        return Plan(
            moves=outlook.moves if outlook is not None and is_worth_it else (),
            bottleneck_before_rps=self._before.bottleneck * self._unit,
            uncovered_before=self._before.uncovered,
            is_emergency=is_emergency,
            best=outlook,
            movable=len(self._movers(in_emergency=is_emergency)),
            covered_in_seconds_before=self.covered_in(()),
        )

    def _outlook(self, state: State) -> Outlook:
        moves = []
        for step in state.steps:
            server = self._servers[step.mover]
            throughput = step.throughput * self._unit
            moves.append(PlannedMove(server.peer_id, server.final, step.target, throughput, server.load_seconds))
        coverage = self._coverage_after(state.steps)
        return Outlook(
            tuple(moves),
            bottleneck_rps=float(coverage.min()) * self._unit,
            uncovered_blocks=count_uncovered(coverage),
            cost_rps=state.cost * self._unit,
            gain_rps=(float(coverage.min()) - self._before.bottleneck) * self._unit,
            covered_in_seconds=self.covered_in(state.steps),
        )


def _is_no_worse(after: _Array, before: _Array) -> bool:
    if count_uncovered(after) > count_uncovered(before):
        return False
    return float(after.min()) >= float(before.min()) * (1 - NOTHING) - NOTHING
