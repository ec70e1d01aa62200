"""The interface between the daemon and the policies: what a policy is told, and that it answers with a Decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field

from swarmkeel.balance.decision import Decision
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.snapshot import SwarmSnapshot
from swarmkeel.swarm.span import Span


class OwnServer(BaseModel):
    """The server beside which the daemon runs, as its control socket describes it.

    Attributes:
        peer_id: Its base58 peer id.
        span: The blocks that it serves; None before its first placement.
        num_blocks: How many blocks it can hold.
        throughput: Requests a second that it announces.
        load_seconds: How long a move takes it out of service, as its own history shows.
        fetch_seconds: How long it takes before that, while it still serves, to fetch the weights of a whole span.
        shapes: Other numbers of blocks that it can hold, each with the requests a second that it would serve then.
        claim: The move that its sidecar has claimed and not yet begun; None without one.
    """

    model_config = ConfigDict(frozen=True)

    peer_id: str
    span: Span | None
    num_blocks: Annotated[int, Field(ge=1)]
    throughput: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    load_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 600.0
    fetch_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    shapes: tuple[tuple[int, float], ...] = ()
    claim: Claim | None = None

    def seconds_to(self, target: Span, *, has_weights: bool = False) -> float:
        """Give how long a move takes from now until the server serves again.

        Args:
            target: The blocks that it goes to.
            has_weights: Whether it has fetched their weights; those of its present blocks it has anyway.
        """
        shared = 0 if self.span is None else min(self.span.end, target.end) - max(self.span.start, target.start)
        missing = 0.0 if has_weights else 1 - max(shared, 0) / len(target)
        return self.load_seconds + self.fetch_seconds * missing


class PolicySettings(BaseModel):
    """The part of the configuration that a policy may look at.

    Attributes:
        quality: Petals' balance_quality: move if the bottleneck is below this share of what can be reached.
        min_answered_ratio: Share of block keys that must have been answered.
        max_rejected_ratio: Share of records that may have been rejected.
        max_snapshot_age: Seconds that a snapshot may be old.
        move_cost: What a move must bring beyond its own outage, as a share of the present bottleneck: the one dial
            between throughput and restarts (policy `coordinated`).
    """

    model_config = ConfigDict(frozen=True)

    quality: float = 0.75
    min_answered_ratio: float = 0.9
    max_rejected_ratio: float = 0.5
    max_snapshot_age: float = 120.0
    move_cost: float = 0.04


class Situation(BaseModel):
    """All that a policy may know; nothing else (no clock, no file, no randomness but the seed) enters a decision.

    Attributes:
        snapshot: The swarm.
        own: The server to decide about.
        settings: The configuration's part.
        now: Seconds since the epoch.
        seed: Of the policy's randomness.
        sidecars: What the other sidecars tell, by their servers' peer ids; none where that could not be read.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    snapshot: SwarmSnapshot
    own: OwnServer
    settings: PolicySettings
    now: float
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    sidecars: Mapping[str, Sidecar] = {}


class Policy(Protocol):
    """A rule that says whether one server should serve other blocks."""

    @property
    def name(self) -> str:
        """Stable name, as in `balance.policy` of the configuration."""
        ...

    def decide(self, situation: Situation) -> Decision:
        """Decide about one server.

        Returns:
            A decision with the verdict `insufficient_information`, `balanced` or `moving`; only the last has a target,
            which is never the present span. The daemon's guards turn `moving` into `holding` or `would_move`.
        """
        ...
