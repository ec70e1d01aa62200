"""What a sidecar sees, and what its policy makes of it: the production functions, computed once for equal views."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

import numpy as np

from swarmkeel.balance.coordination import (
    choose_first_span,
    hiding_places,
    missing_partners,
    plan_with_others,
    view_servers,
)
from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.balance.plan import Plan, Standing, make_plan
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.balance.policy import OwnServer
from swarmkeel.balance.selection import find_best_start
from swarmkeel.balance.staging import LikelySpan, likely_next_spans
from swarmkeel.daemon.claiming import throughput_on
from swarmkeel.simulation.dht import Reading, View
from swarmkeel.simulation.petals_loop import check_like_petals, view_throughputs
from swarmkeel.simulation.scenario import PetalsPart
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.sidecar import Sidecar
from swarmkeel.swarm.sidecar_check import (
    CLOCK_TOLERANCE,
    MAX_CLAIM_AGE,
    MAX_CLAIM_REST,
    MAX_FIRST_CLAIM_AGE,
    check_sidecars,
)
from swarmkeel.swarm.span import Span

MIN_ANSWERED: Final = 0.9
"""As `balance.min_answered_ratio` of the configuration: below it nothing is decided."""

_Servers = tuple[PlanServer, ...]


@lru_cache(maxsize=4096)
def _plan_once(
    servers: _Servers,
    *,
    total_blocks: int,
    move_cost: float,
    unread: frozenset[int] = frozenset(),
    standing: Standing | None = None,
) -> Plan:
    return make_plan(servers, total_blocks=total_blocks, move_cost=move_cost, unread=unread, standing=standing)


@dataclass(frozen=True, slots=True)
class Eyes:
    """One sidecar's reading of the DHT.

    Attributes:
        reading: What servers announce.
        told: What sidecars tell, as read.
        total_blocks: Blocks of the model.
        now: The sidecar's clock, seconds.
    """

    reading: Reading
    told: View[Sidecar]
    total_blocks: int
    now: float

    def is_good_enough(self, own: OwnServer) -> bool:
        """Tell whether it may be decided on: as `balance.doubts` has it for snapshots."""
        reading = self.reading
        if reading.answered < MIN_ANSWERED:
            return False
        if not reading.lost or own.span is None:
            return True
        throughputs = view_throughputs(reading.servers, self.total_blocks)
        return not any(throughputs[block] <= 0 for block in reading.lost)

    def shows(self, peer_id: str, span: Span, *states: ServerState) -> bool:
        """Tell whether a server is announced on exactly these blocks, in one of these states."""
        seen = self.reading.servers.entries.get(peer_id)
        return seen is not None and (seen.start, seen.end) == (span.start, span.end) and seen.state in states

    @property
    def is_shared(self) -> bool:
        """Whether other sidecars may have the same reading."""
        return self.reading.servers.number >= 0

    @property
    def period(self) -> int:
        """Number of the stretch of time in which nothing of what sidecars tell begins or ceases to count."""
        return bisect_right(self.told.compute("changes", lambda: _changes(self.told)), self.now)

    def plausible(self) -> View[Sidecar]:
        """Give what sidecars tell, without claims that cannot be true (the production check)."""

        def check() -> View[Sidecar]:
            servers = self.reading.servers.entries
            checked = check_sidecars(self.told.entries, servers, total_blocks=self.total_blocks, now=self.now)
            return View(self.told.number, checked.sidecars)

        if not self.is_shared:
            return check()
        return self.reading.servers.compute(("plausible", self.told.number, self.period), check)


def _changes(told: View[Sidecar]) -> list[float]:
    times: set[float] = set()
    for sidecar in told.entries.values():
        if sidecar.movable_at is not None:
            times.add(sidecar.movable_at)
        if sidecar.claim is not None:
            made_at, expires_at = sidecar.claim.made_at, sidecar.claim.expires_at
            times |= {expires_at, expires_at - MAX_CLAIM_REST, made_at - CLOCK_TOLERANCE}
            times |= {made_at + MAX_CLAIM_AGE, made_at + MAX_FIRST_CLAIM_AGE}
    return sorted(times)


class Decider(Protocol):
    """A policy as a simulated sidecar asks it."""

    def decide(self, eyes: Eyes, own: OwnServer, mine: Sidecar, seed: int) -> Decision | None:
        """Decide about one server.

        Args:
            eyes: What its sidecar reads.
            own: The server.
            mine: What its sidecar tells of it now, without a claim.
            seed: Of the policy's randomness.

        Returns:
            A decision with the verdict `moving`, or None where the server should stay.
        """
        ...


class CoordinatedDecider:
    """The policy `coordinated`: the functions that it is made of, on what a simulated sidecar reads.

    Args:
        move_cost: What a move must bring, as a share of the bottleneck.
    """

    def __init__(self, move_cost: float) -> None:
        self._move_cost = move_cost

    def decide(self, eyes: Eyes, own: OwnServer, mine: Sidecar, seed: int) -> Decision | None:
        """See `Decider.decide`."""
        del seed
        if own.span is None:
            return self._first(eyes, own)
        servers, plan = self._plan(eyes, own, mine)
        move = plan.move_of(own.peer_id)
        if move is None:
            return None
        name = "raises_bottleneck"
        if plan.is_emergency:
            name = "closes_holes_sooner" if plan.covered_in_seconds_before < math.inf else "closes_holes"
        placed = {server.peer_id: (server.final, server.throughput) for server in servers}
        placed.update({each.peer_id: (each.target, each.throughput) for each in plan.moves})
        partners = missing_partners(
            plan, servers, eyes.plausible().entries, own, total_blocks=eyes.total_blocks, now=eyes.now
        )
        return _decision(
            own,
            move.target,
            Reason(name=name, values=_worth(plan)),
            *([Reason(name="needs_others", values={"moves": len(partners)})] if partners else []),
            before=SwarmNumbers(
                bottleneck_rps=plan.bottleneck_before_rps, bound_rps=0.0, uncovered_blocks=plan.uncovered_before
            ),
            after=_numbers(list(placed.values()), eyes.total_blocks),
        )

    def likely_next(self, eyes: Eyes, own: OwnServer, mine: Sidecar) -> tuple[LikelySpan, ...]:
        """Say where the plans after others' departures would put a server, see `balance.staging`."""
        servers, _ = self._plan(eyes, own, mine)
        return likely_next_spans(
            servers, own.peer_id, total_blocks=eyes.total_blocks, move_cost=self._move_cost, planner=_plan_once
        )

    def _plan(self, eyes: Eyes, own: OwnServer, mine: Sidecar) -> tuple[_Servers, Plan]:
        spans, told = eyes.reading.servers, eyes.plausible()
        # All who see their own server as the others do see the same, and need only one plan.
        is_alike = own.claim is None and told.entries.get(own.peer_id) == mine and own.peer_id in spans.entries
        # Else, as in the daemon, what stands in the DHT of the own server does not count.
        others = (
            told.entries if is_alike else {peer: each for peer, each in told.entries.items() if peer != own.peer_id}
        )

        unread = hiding_places(eyes.reading.lost, spans.entries)

        def plan() -> tuple[_Servers, Plan]:
            return plan_with_others(
                spans.entries,
                others,
                own,
                total_blocks=eyes.total_blocks,
                now=eyes.now,
                move_cost=self._move_cost,
                unread=unread,
                overdue=eyes.reading.overdue,
                planner=_plan_once,
            )

        if not eyes.is_shared or not is_alike or unread:
            return plan()
        # How soon a hole will be closed depends on when one looks.
        moment = int(eyes.now // 30) if spans.compute("hole", lambda: has_hole(spans, eyes.total_blocks)) else 0
        return spans.compute(("plan", told.number, eyes.period, moment, self._move_cost, eyes.reading.overdue), plan)

    def _first(self, eyes: Eyes, own: OwnServer) -> Decision:
        servers = view_servers(
            eyes.reading.servers.entries, eyes.plausible().entries, own, total_blocks=eyes.total_blocks, now=eyes.now
        )
        target = choose_first_span(servers, own, total_blocks=eyes.total_blocks)
        return _first_placement(eyes, own, target)


def has_hole(view: View[RemoteSpanInfo[str]], total_blocks: int) -> bool:
    """Tell whether a block has no ONLINE server."""
    covered = np.zeros(total_blocks, dtype=bool)
    for span in view.entries.values():
        if span.state is ServerState.ONLINE:
            covered[span.start : span.end] = True
    return not bool(covered.all())


class PetalsDecider:
    """The policy `petals` in a sidecar: Petals' check, and the target that Petals would choose, named beforehand.

    Args:
        world: Petals' parameters.
    """

    def __init__(self, world: PetalsPart) -> None:
        self._world = world

    def decide(self, eyes: Eyes, own: OwnServer, mine: Sidecar, seed: int) -> Decision | None:
        """See `Decider.decide`."""
        del mine
        spans = eyes.reading.servers
        others = View(-1, {peer_id: span for peer_id, span in spans.entries.items() if peer_id != own.peer_id})
        if own.span is None:
            start = _best_start(others, own.num_blocks, eyes.total_blocks)
            return _first_placement(eyes, own, Span(start, start + own.num_blocks))
        if not check_like_petals(own.peer_id, spans, self._world, eyes.total_blocks, seed).should_move:
            return None
        start = _best_start(others, own.num_blocks, eyes.total_blocks)
        target = Span(start, start + own.num_blocks)
        if target == own.span:
            return None
        places = [(Span(span.start, span.end), span.throughput) for span in spans.entries.values()]
        moved = [(Span(span.start, span.end), span.throughput) for span in others.entries.values()]
        return _decision(
            own,
            target,
            Reason(name="imbalance"),
            before=_numbers(places, eyes.total_blocks),
            after=_numbers([*moved, (target, own.throughput)], eyes.total_blocks),
        )


def _best_start(view: View[RemoteSpanInfo[str]], num_blocks: int, total_blocks: int) -> int:
    return find_best_start(view_throughputs(view, total_blocks), num_blocks)


def _worth(plan: Plan) -> dict[str, str | int | float | bool | None]:
    return {"bottleneck_rps": plan.bottleneck_before_rps, "moves": len(plan.moves)}


def _first_placement(eyes: Eyes, own: OwnServer, target: Span) -> Decision:
    places = [(Span(span.start, span.end), span.throughput) for span in eyes.reading.servers.entries.values()]
    return _decision(
        own,
        target,
        Reason(name="first_placement", values={"target": str(target)}),
        before=_numbers(places, eyes.total_blocks),
        after=_numbers([*places, (target, throughput_on(own, target))], eyes.total_blocks),
    )


def _numbers(places: Sequence[tuple[Span, float]], total_blocks: int) -> SwarmNumbers:
    """Put a placement into numbers; the bound, which no guard looks at, is left out."""
    coverage = np.zeros(total_blocks)
    for span, throughput in places:
        coverage[span.start : span.end] += throughput
    return SwarmNumbers(
        bottleneck_rps=float(coverage.min()), bound_rps=0.0, uncovered_blocks=int(np.count_nonzero(coverage <= 0))
    )


def _decision(
    own: OwnServer, target: Span, *reasons: Reason, before: SwarmNumbers | None, after: SwarmNumbers | None
) -> Decision:
    return Decision(
        verdict=Verdict.MOVING,
        reasons=reasons,
        policy="simulated",
        peer_id=own.peer_id,
        own_span=own.span,
        target=target,
        before=before,
        after=after,
        snapshot_digest="",
        seed=0,
    )


def staying(own: OwnServer, verdict: Verdict) -> Decision:
    """Give a decision without a target."""
    return Decision(
        verdict=verdict,
        reasons=(),
        policy="simulated",
        peer_id=own.peer_id,
        own_span=own.span,
        target=None,
        before=None,
        after=None,
        snapshot_digest="",
        seed=0,
    )
