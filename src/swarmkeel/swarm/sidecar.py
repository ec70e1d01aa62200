"""What one sidecar tells the others of its server: that it may be moved, and the move that it is about to make.

A value alone; how it is kept in the DHT is `swarm.sidecar_record`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from swarmkeel.swarm.span import Span

SIDECAR_VERSION: Final = 1
"""Version of the record's meaning. A sidecar counts records of other versions as those of servers that it knows
nothing about: it neither plans for them nor believes their claims."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A move that a sidecar is about to make, or is making.

    Attributes:
        origin: The blocks that the server leaves; None for its first placement.
        target: The blocks that it will serve.
        made_at: When the claim was first published, seconds since the epoch; of two claims the older goes first.
        expires_at: When it counts no more, seconds since the epoch; extended while the move is under way.
        throughput: Requests a second that the server will serve on the target.
        gain_rps: By how much the bottleneck should rise by the whole plan that the move belongs to.
        digest: The beginning of the digest of the snapshot that the move rests on.
    """

    origin: Span | None
    target: Span
    made_at: float
    expires_at: float
    throughput: float
    gain_rps: float = 0.0
    digest: str = ""

    def precedes(self, peer_id: str, other: Claim, other_peer_id: str) -> bool:
        """Tell whether this claim, made by `peer_id`, goes before another's: the older does, ties go by peer id."""
        return (self.made_at, peer_id) < (other.made_at, other_peer_id)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What one sidecar tells of the server beside it.

    Attributes:
        peer_id: The server's peer id, base58.
        movable_at: From when on the server may be moved again (its cooldown ends), seconds since the epoch; None if it
            may not be moved at all: pinned, paused, a dry run, another policy, out of its budget of moves.
        load_seconds: How long a move takes it out of service, as its own history shows.
        shapes: The numbers of blocks that it can hold other than the present one, each with the requests a second that
            it would serve then; empty for a server of one length.
        claim: The move that it is about to make; None without one.
        fetch_seconds: How long it takes before a move, while it still serves, to fetch the weights of a whole span.
        arrives_at: When it expects its server, which moves or is about to, to serve on its new blocks, seconds since the
            epoch; None if it does not move.
        dry_run_movable_at: In a dry run, what `movable_at` would be without it; None otherwise. Only other dry runs count
            it, so that together they want what they would do together.
        version: Of the record, see `SIDECAR_VERSION`.
    """

    peer_id: str
    movable_at: float | None
    load_seconds: float
    shapes: tuple[tuple[int, float], ...] = ()
    claim: Claim | None = None
    fetch_seconds: float = 0.0
    arrives_at: float | None = None
    dry_run_movable_at: float | None = None
    version: int = SIDECAR_VERSION
