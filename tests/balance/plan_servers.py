"""One server of a plan, made up by hand."""

from __future__ import annotations

from dataclasses import replace

from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.swarm.span import Span


def plan_server(peer_id: str, start: int, end: int, throughput: float = 5.0, **changes: object) -> PlanServer:
    """Give a server that serves, may be moved, and takes ten minutes to load; `changes` are of any field of it."""
    plain = PlanServer(
        peer_id,
        Span(start, end),
        throughput,
        serving=True,
        movable=True,
        movable_in_emergency=True,
        load_seconds=600.0,
    )
    return replace(plain, **changes)  # type: ignore[arg-type] # any field of it
