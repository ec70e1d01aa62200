"""What a policy is told of the own server: from its status and from its own history. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

from swarmkeel.balance.policy import OwnServer
from swarmkeel.balance.shapes import possible_shapes
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.daemon.move import Move, MoveStep
from swarmkeel.swarm.sidecar import Claim

PREFETCH: Final = "prefetch"
"""The capability to fetch weights while serving."""
MOVES_LEARNED_FROM: Final = 5
"""The newest moves of a kind; their median forgets one that was slow by chance."""


def own_server(
    status: ServerStatus, moves: Sequence[Move], *, claim: Claim | None, assumed_load_seconds: float
) -> OwnServer:
    """Put together what a policy is told of the own server.

    Args:
        status: The server's status; with a peer id.
        moves: Moves of this server, oldest first.
        claim: The own claim.
        assumed_load_seconds: How long a move takes it out of service, until the first one has shown.
    """
    span = None if status.state is ServerPhase.IDLE else status.span
    shapes: tuple[tuple[int, float], ...] = ()
    if status.compute_rps is not None and status.network_rps is not None and len(status.lengths) > 1:
        shapes = possible_shapes(
            status.lengths[0],
            status.lengths[-1],
            compute_rps=status.compute_rps,
            network_rps=status.network_rps,
            present=status.num_blocks if span is None else len(span),
        )
    load_seconds, fetch_seconds = learned_seconds(
        moves, can_prefetch=PREFETCH in status.capabilities, assumed=assumed_load_seconds
    )
    return OwnServer(
        peer_id=status.peer_id or "",
        span=span,
        num_blocks=status.num_blocks,
        throughput=status.throughput,
        load_seconds=load_seconds,
        fetch_seconds=fetch_seconds,
        shapes=shapes,
        claim=claim,
    )


def learned_seconds(moves: Sequence[Move], *, can_prefetch: bool, assumed: float) -> tuple[float, float]:
    """Give how long a move takes, as this server's own moves have shown.

    Moves with the weights fetched before and those without are as different as a disk and a network. What the weights take
    to fetch is the difference; a first placement, which finds nothing on disk, tells of the latter kind.

    Args:
        moves: Moves of this server, oldest first.
        can_prefetch: Whether its next move will have the weights fetched before.
        assumed: How long a move takes the server out of service, without any history.

    Returns:
        Seconds out of service, and seconds of fetching before; medians of the newest `MOVES_LEARNED_FROM` moves of each
        kind. Where only one kind is known the first number stands for both.
    """
    done = [move for move in moves if move.step is MoveStep.DONE]
    staged = _median_outage([move for move in done if move.staged and move.origin is not None])
    cold = _median_outage([move for move in done if not move.staged])
    if not can_prefetch or staged is None:
        return (assumed if cold is None else cold), 0.0
    return staged, max((cold or 0.0) - staged, 0.0)


def _median_outage(moves: Sequence[Move]) -> float | None:
    outages = [seconds for move in moves if (seconds := move.outage_seconds) is not None]
    return median(outages[-MOVES_LEARNED_FROM:]) if outages else None
