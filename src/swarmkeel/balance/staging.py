"""Which blocks a server will most likely be asked to serve next: what to have on disk before it is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from swarmkeel.balance.coordination import Planner
from swarmkeel.balance.plan import make_plan
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.swarm.span import Span

MAX_DEPARTURES: Final = 4
"""Departures that are thought through, those that hurt most: each takes a plan, and with all of them no more was gained."""


@dataclass(frozen=True, slots=True)
class LikelySpan:
    """Blocks that the own server would be asked to serve.

    Attributes:
        span: The blocks, counted from the first block read.
        departures: Of how many of the other servers the departure would lead there.
    """

    span: Span
    departures: int


def likely_next_spans(
    servers: Sequence[PlanServer],
    peer_id: str,
    *,
    total_blocks: int,
    move_cost: float,
    planner: Planner = make_plan,
) -> tuple[LikelySpan, ...]:
    """Think through the departure of each other server, and see where the plan would then put the own one.

    Who leaves next is not known; every other server may. Departures that no block would feel lead to no plan and are
    passed over. The plans are those that all sidecars would make, so that where this server is asked, no other is.

    Args:
        servers: All servers, in the order of their peer ids, see `make_plan`.
        peer_id: The own server.
        total_blocks: Number of blocks read.
        move_cost: See `make_plan`.
        planner: Makes the plans.

    Returns:
        The spans by how many departures lead to them, then by their place; without blocks that it serves anyway.
    """
    coverage = np.zeros(total_blocks)
    for server in servers:
        coverage[server.final.start : server.final.end] += server.throughput
    left = {
        server.peer_id: float((coverage[server.final.start : server.final.end] - server.throughput).min())
        for server in servers
        if server.peer_id != peer_id
    }
    bottleneck = float(coverage.min(initial=np.inf))
    # Where even the weakest block that is left behind is stronger than the bottleneck is now, nobody has to move.
    feared = sorted((rest, other) for other, rest in left.items() if rest < bottleneck)[:MAX_DEPARTURES]
    targets: Counter[Span] = Counter()
    for _, departing in feared:
        rest = tuple(server for server in servers if server.peer_id != departing)
        move = planner(rest, total_blocks=total_blocks, move_cost=move_cost).move_of(peer_id)
        if move is not None:
            targets[move.target] += 1
    return tuple(
        LikelySpan(span, count) for span, count in sorted(targets.items(), key=lambda item: (-item[1], item[0]))
    )


def choose_spans_to_stage(likely: Sequence[LikelySpan], present: Span, *, disk_blocks: int) -> tuple[Span, ...]:
    """Choose what to have on disk beside the blocks that are served.

    A span is of use only as a whole: what is missing of it has to be fetched while nobody serves it.

    Args:
        likely: Where the server may be asked to go, most likely first.
        present: The blocks that it serves, which are on disk already.
        disk_blocks: How many blocks there is room for beside these.

    Returns:
        As many whole spans as fit, the likeliest first.
    """
    chosen: list[Span] = []
    on_disk = set(range(present.start, present.end))
    room = disk_blocks
    for each in likely:
        missing = set(range(each.span.start, each.span.end)) - on_disk
        if len(missing) <= room:
            chosen.append(each.span)
            on_disk |= missing
            room -= len(missing)
    return tuple(chosen)
