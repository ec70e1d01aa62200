"""What sidecars agree on before they plan: where every server is going to be, who serves now, and who may be moved.

Sidecars that read the same records and claims see the same servers here, and so make the same plan.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol

import numpy as np

from swarmkeel.balance.candidates import NOTHING
from swarmkeel.balance.coverage import SoftMinimum
from swarmkeel.balance.plan import Plan, Standing, make_plan
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.balance.policy import OwnServer
from swarmkeel.balance.selection import find_best_start
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.sidecar import SIDECAR_VERSION, Claim, Sidecar
from swarmkeel.swarm.span import Span

_MOST_COUNTED: Final = 4.0
"""Throughput counts up to this many times the swarm's median. A server that honestly serves more is planned for as if it
served this; what a liar announces beyond it would draw everybody else away from its blocks."""
_DOUBTED_ABOVE: Final = 2.5
"""No plan is made that would do harm if a server that announces more than this many times the median served but that."""
_UNKNOWN_ARRIVAL: Final = 300.0
"""Seconds that a server which loads, and of which nobody tells how long, is taken to need from now on."""
_ARRIVAL_STEP: Final = 30.0
"""Seconds; arrivals are rounded up to these, so that sidecars which look one after the other see the same."""
_OUTLIERS_FROM: Final = 4
"""A median of fewer servers says nothing about the others."""


class Planner(Protocol):
    """What `make_plan` is; a simulator puts one with a memory in its place."""

    def __call__(
        self,
        servers: tuple[PlanServer, ...],
        *,
        total_blocks: int,
        move_cost: float,
        unread: frozenset[int] = frozenset(),
        standing: Standing | None = None,
    ) -> Plan:
        """Make a plan, see `make_plan`."""
        ...


def plan_with_others(
    spans: Mapping[str, RemoteSpanInfo[str]],
    sidecars: Mapping[str, Sidecar],
    own: OwnServer,
    *,
    total_blocks: int,
    now: float,
    move_cost: float,
    first_block: int = 0,
    unread: Collection[int] = (),
    overdue: Collection[str] = (),
    planner: Planner = make_plan,
) -> tuple[tuple[PlanServer, ...], Plan]:
    """Make the plan that the own server's sidecar follows.

    Without an own claim it is the plan of all. With one the question is whether that claim still holds: those whose
    claims are younger may be part of the plan, but where that would put them in the own server's place, they have to
    stay. Otherwise two sidecars that saw different things first could both give way to the other.

    Args:
        spans: See `view_servers`, as for all but the last two.
        sidecars: As above.
        own: As above.
        total_blocks: As above.
        now: As above.
        first_block: As above.
        move_cost: See `make_plan`.
        unread: Blocks whose keys could not be read, counted from the first block read.
        overdue: Servers whose records should have been renewed by now, see `swarm.renewal`.
        planner: Makes the plan.

    Returns:
        The servers that the plan was made of, and the plan.
    """
    servers = tuple(
        replace(server, is_overdue=True) if server.peer_id in overdue else server
        for server in view_servers(spans, sidecars, own, total_blocks=total_blocks, now=now, first_block=first_block)
    )
    hiding = hiding_places(unread, spans)
    if own.claim is None:
        return servers, planner(servers, total_blocks=total_blocks, move_cost=move_cost, unread=hiding)
    target = _shift(own.claim.target, -first_block)
    standing = None
    if own.span is not None and target is not None and target.end <= total_blocks:
        standing = Standing(own.peer_id, target, _Belief.of(spans).counted(own.claim.throughput))
    plan = planner(servers, total_blocks=total_blocks, move_cost=move_cost, unread=hiding, standing=standing)
    move = plan.move_of(own.peer_id)
    if move is not None and _shift(move.target, first_block) == own.claim.target:
        return servers, plan
    younger = {
        peer_id
        for peer_id, sidecar in sidecars.items()
        if sidecar.claim is not None and sidecar.claim.expires_at > now and peer_id != own.peer_id
    }
    firm = tuple(
        replace(server, movable=False, movable_in_emergency=False) if server.peer_id in younger else server
        for server in servers
    )
    if firm == servers:
        return servers, plan
    return firm, planner(firm, total_blocks=total_blocks, move_cost=move_cost, unread=hiding, standing=standing)


def missing_partners(
    plan: Plan,
    servers: Iterable[PlanServer],
    sidecars: Mapping[str, Sidecar],
    own: OwnServer,
    *,
    total_blocks: int,
    now: float,
    first_block: int = 0,
) -> tuple[str, ...]:
    """Give those whose moves the own server's move is for nothing without, as long as they have not claimed them.

    A plan of several moves is decided by several sidecars, one after the other. Whoever goes first has moved in vain if
    the others see another swarm by the time they look.

    Args:
        plan: The plan that the own server follows.
        servers: The servers that it was made of.
        sidecars: What sidecars tell, with plausible claims alone.
        own: The server to decide about.
        total_blocks: Number of blocks read.
        now: Seconds since the epoch.
        first_block: Index of the first block read.

    Returns:
        Their peer ids; none if the own move helps without them, if there is a hole to close, or if all have claimed.
    """
    own_move = plan.move_of(own.peer_id)
    if own_move is None or plan.is_emergency or len(plan.moves) == 1:
        return ()
    missing = []
    coverage = np.zeros(total_blocks)
    for server in servers:
        move = plan.move_of(server.peer_id)
        claim = sidecars[server.peer_id].claim if move is not None and server.peer_id in sidecars else None
        if move is None or server.peer_id == own.peer_id:
            coverage[server.final.start : server.final.end] += server.throughput
        elif claim is not None and claim.expires_at > now and claim.target == _shift(move.target, first_block):
            coverage[move.target.start : move.target.end] += move.throughput
        else:
            coverage[server.final.start : server.final.end] += server.throughput
            missing.append(server.peer_id)
    before = float(coverage.min())
    origin = next(server for server in servers if server.peer_id == own.peer_id)
    coverage[origin.final.start : origin.final.end] -= origin.throughput
    coverage[own_move.target.start : own_move.target.end] += own_move.throughput
    return () if float(coverage.min()) > before * (1 + NOTHING) else tuple(missing)


def hiding_places(unread: Collection[int], spans: Mapping[str, RemoteSpanInfo[str]]) -> frozenset[int]:
    """Give those unread blocks on which there may be servers that nobody has read of.

    A server is read of by any of its blocks, so that these are rows as long as the shortest span.

    Args:
        unread: Blocks whose keys could not be read.
        spans: The servers that were read of.
    """
    if not unread:
        return frozenset()
    shortest = min((span.length for span in spans.values() if span.length > 0), default=1)
    hiding: set[int] = set()
    row: list[int] = []
    for block in sorted(unread):
        row = [*row, block] if row and row[-1] == block - 1 else [block]
        if len(row) >= shortest:
            hiding.update(row)
    return frozenset(hiding)


def view_servers(
    spans: Mapping[str, RemoteSpanInfo[str]],
    sidecars: Mapping[str, Sidecar],
    own: OwnServer,
    *,
    total_blocks: int,
    now: float,
    first_block: int = 0,
) -> tuple[PlanServer, ...]:
    """Put records and claims together to the servers that a plan is made of.

    A server with a claim is where the claim says, and no longer serves: it is about to leave. One that loads is where it
    loads. Of servers that the DHT does not show only another newcomer believes claims: whoever makes up servers must not
    keep a hole open by claiming it again and again. If the own server has a claim, its sidecar is asking whether that still
    holds: it counts only claims that go before its own, and its own server may be moved.

    Args:
        spans: The servers, counted from the first block read. One that is OFFLINE counts only where it has said that it
            moves: its process may be starting anew.
        sidecars: What their sidecars tell, with plausible claims alone; that of the own server may be among them.
        own: The server to decide about.
        total_blocks: Number of blocks read.
        now: Seconds since the epoch.
        first_block: Index of the first block read: claims count from the model's first block.

    Returns:
        The servers in the order of their peer ids.
    """
    belief = _Belief.of(spans)
    servers: list[PlanServer] = []
    believed = {*spans, *sidecars} if own.span is None else {*spans}
    for peer_id in sorted(believed):
        span, sidecar = spans.get(peer_id), sidecars.get(peer_id)
        if sidecar is not None and sidecar.version != SIDECAR_VERSION:
            sidecar = None
        is_own = peer_id == own.peer_id
        if is_own and own.span is None:
            continue  # what is known of a server without blocks is of its last life
        if span is not None and span.state is ServerState.OFFLINE:
            span = None
            is_moving = sidecar is not None and sidecar.claim is not None and sidecar.claim.origin is not None
            if not is_moving and own.span is not None:
                continue
        present = None if span is None or not 0 <= span.start < span.end <= total_blocks else Span(span.start, span.end)
        claim = None if is_own else _open_claim(sidecar, present, own, now=now, first_block=first_block)
        if claim is not None:
            target = _shift(claim.target, -first_block)
            if target is None or target.end > total_blocks:
                continue
            assert sidecar is not None  # noqa: S101 - it has a claim
            expected = claim.made_at + sidecar.load_seconds + sidecar.fetch_seconds
            servers.append(
                PlanServer(
                    peer_id,
                    target,
                    belief.counted(claim.throughput) if peer_id in spans else min(claim.throughput, belief.median),
                    serving=False,
                    movable=False,
                    movable_in_emergency=False,
                    load_seconds=sidecar.load_seconds,
                    unless_claimed=None
                    if span is None or present is None
                    else (present, belief.counted(span.throughput)),
                    credit=belief.credit(claim.throughput),
                    announced=belief.announced(claim.throughput),
                    arrives_in=_arrives_in(expected if sidecar.arrives_at is None else sidecar.arrives_at, now),
                )
            )
        elif span is not None and present is not None:
            servers.append(_unclaimed(span, present, sidecar, own if is_own else None, now=now, belief=belief))
    return tuple(servers)


def _open_claim(
    sidecar: Sidecar | None, present: Span | None, own: OwnServer, *, now: float, first_block: int
) -> Claim | None:
    """Give a server's claim if it still has to be counted; None without one, or where its server is there already."""
    if sidecar is None or sidecar.claim is None:
        return None
    claim = sidecar.claim
    if claim.expires_at <= now or present == _shift(claim.target, -first_block):
        return None
    if own.claim is not None and not claim.precedes(sidecar.peer_id, own.claim, own.peer_id):
        return None
    return claim


def _unclaimed(
    span: RemoteSpanInfo[str],
    present: Span,
    sidecar: Sidecar | None,
    own: OwnServer | None,
    *,
    now: float,
    belief: _Belief,
) -> PlanServer:
    online = span.state is ServerState.ONLINE
    steerable = online and (own is not None or sidecar is not None)
    if sidecar is not None and sidecar.movable_at is None:
        steerable = False
    cooling = sidecar is not None and sidecar.movable_at is not None and sidecar.movable_at > now
    if own is not None:
        load_seconds, fetch_seconds, shapes = own.load_seconds, own.fetch_seconds, own.shapes
    elif sidecar is not None:
        load_seconds, fetch_seconds, shapes = sidecar.load_seconds, sidecar.fetch_seconds, sidecar.shapes
    else:
        load_seconds, fetch_seconds, shapes = 0.0, 0.0, ()
    return PlanServer(
        span.peer_id,
        present,
        belief.counted(span.throughput),
        serving=online,
        movable=steerable and not cooling,
        movable_in_emergency=steerable,
        credit=belief.credit(span.throughput),
        announced=belief.announced(span.throughput),
        arrives_in=0.0 if online else _arrives_in(None if sidecar is None else sidecar.arrives_at, now),
        load_seconds=load_seconds,
        fetch_seconds=fetch_seconds,
        shapes=tuple((length, belief.counted(throughput)) for length, throughput in shapes if length != len(present)),
    )


def _arrives_in(arrives_at: float | None, now: float) -> float:
    """Give in how many seconds a server will serve; one that is late is taken to need as long again as it is late."""
    seconds = _UNKNOWN_ARRIVAL if arrives_at is None else abs(arrives_at - now)
    return max(math.ceil(seconds / _ARRIVAL_STEP), 1) * _ARRIVAL_STEP


class _Belief:
    """How far what servers announce is believed: by how it compares with what the others announce.

    Args:
        spans: The servers.

    Attributes:
        median: Requests a second; infinite without any.
    """

    def __init__(self, spans: Collection[RemoteSpanInfo[str]]) -> None:
        announced = [span.throughput for span in spans if span.throughput > 0]
        self.median = float(np.median(announced)) if announced else math.inf
        self._usual = self.median if len(spans) >= _OUTLIERS_FROM else math.inf

    @classmethod
    def of(cls, spans: Mapping[str, RemoteSpanInfo[str]]) -> _Belief:
        """Compare with all servers but those that are OFFLINE."""
        return cls([span for span in spans.values() if span.state is not ServerState.OFFLINE])

    def counted(self, throughput: float) -> float:
        """Give what an announced throughput counts for in plans."""
        return min(throughput, _MOST_COUNTED * self._usual)

    def credit(self, throughput: float) -> float:
        """Give `PlanServer.credit` of an announced throughput."""
        return 1.0 if throughput <= _DOUBTED_ABOVE * self._usual else self._usual / self.counted(throughput)

    def announced(self, throughput: float) -> float:
        """Give `PlanServer.announced` of an announced throughput."""
        counted = self.counted(throughput)
        return throughput / counted if counted > 0 else 1.0


def _shift(span: Span, blocks: int) -> Span | None:
    return Span(span.start + blocks, span.end + blocks) if span.start + blocks >= 0 else None


def choose_first_span(servers: Iterable[PlanServer], own: OwnServer, *, total_blocks: int) -> Span:
    """Choose the blocks of a server that has none yet.

    For its usual number of blocks this is Petals' choice (`choose_best_blocks`) over where everybody is going to be. Of
    several numbers of blocks that it can hold it takes the one that leaves the best coverage behind.

    Args:
        servers: All other servers.
        own: The server; its number of blocks is at most `total_blocks`.
        total_blocks: Number of blocks read.

    Returns:
        Its span, counted from the first block read.

    Raises:
        TooManyBlocksError: If the model has fewer blocks than the server holds.
    """
    coverage = np.zeros(total_blocks)
    for server in servers:
        if server.peer_id != own.peer_id:
            coverage[server.final.start : server.final.end] += server.throughput
    usual = (own.num_blocks, own.throughput)
    start = find_best_start(coverage, own.num_blocks)
    best = Span(start, start + own.num_blocks)
    if own.shapes:
        shapes = [usual, *(shape for shape in own.shapes if 0 < shape[0] <= total_blocks)]
        placed = []
        for length, throughput in shapes:
            start = find_best_start(coverage, length)
            after = coverage.copy()
            after[start : start + length] += throughput
            placed.append((Span(start, start + length), after))
        unit = max(float(after.mean()) for _, after in placed) or 1.0
        soft = SoftMinimum(8)
        best = max(placed, key=lambda place: soft.of(place[1] / unit))[0]
    return best
