"""One server as a plan sees it."""

from __future__ import annotations

from dataclasses import dataclass

from swarmkeel.swarm.span import Span


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
        fetch_seconds: How long it takes before that to fetch the weights of a whole span.
        shapes: Other numbers of blocks that it can hold, each with the requests a second that it would serve then.
        unless_claimed: Where a server with a claim is, and what it serves there, until its claim comes true; None without
            a claim.
        credit: What it serves if it lies, as a share of `throughput`: a plan must do no harm then either.
        announced: What it serves if all that it says is true, likewise: as much as `throughput` or more.
        arrives_in: Seconds until it serves `final`, as far as is known; 0 for one that does.
        is_overdue: Whether it should have renewed its record by now: it may be gone.
    """

    peer_id: str
    final: Span
    throughput: float
    serving: bool
    movable: bool
    movable_in_emergency: bool
    load_seconds: float
    fetch_seconds: float = 0.0
    shapes: tuple[tuple[int, float], ...] = ()
    unless_claimed: tuple[Span, float] | None = None
    credit: float = 1.0
    announced: float = 1.0
    arrives_in: float = 0.0
    is_overdue: bool = False

    def seconds_to(self, target: Span) -> float:
        """Give how long a move would take from now until the server serves again: weights that it has need no fetching."""
        shared = min(self.final.end, target.end) - max(self.final.start, target.start)
        missing = 1 - max(shared, 0) / len(target)
        return self.load_seconds + self.fetch_seconds * missing
