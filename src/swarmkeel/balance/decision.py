"""What a check of the balance ends in: a verdict, its reasons as data, and the numbers before and after."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from swarmkeel.balance.reasons import render_reason
from swarmkeel.swarm.span import Span


class Verdict(StrEnum):
    """Stable names, also the labels of the metric `swarmkeel_verdict`."""

    DISABLED = "disabled"
    PAUSED = "paused"
    INSUFFICIENT_INFORMATION = "insufficient_information"
    BALANCED = "balanced"
    HOLDING = "holding"
    WOULD_MOVE = "would_move"
    MOVING = "moving"
    FAILED = "failed"


class Reason(BaseModel):
    """One reason of a verdict.

    Attributes:
        name: A name of `balance.reasons.SENTENCES`; stable.
        values: The values that the reason's sentence is rendered from.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    values: Mapping[str, str | int | float | bool | None] = {}

    @property
    def sentence(self) -> str:
        """The reason in words."""
        return render_reason(self.name, self.values)


class SwarmNumbers(BaseModel):
    """How well a swarm is balanced.

    Attributes:
        bottleneck_rps: Throughput of the weakest block, requests a second.
        bound_rps: What no placement of these servers can exceed (see `balance.bound`).
        uncovered_blocks: Blocks that no server serves, or only servers that announce 0 requests a second.
    """

    model_config = ConfigDict(frozen=True)

    bottleneck_rps: float
    bound_rps: float
    uncovered_blocks: int

    @property
    def balance_ratio(self) -> float:
        """Bottleneck over bound, 0 to 1; 0 where no placement covers all blocks."""
        return min(self.bottleneck_rps / self.bound_rps, 1.0) if self.bound_rps > 0 else 0.0


class Decision(BaseModel):
    """The outcome of one check; a pure value, the same for the same input on every machine.

    Attributes:
        verdict: What follows.
        reasons: Why, the weightiest first.
        policy: Name of the policy that decided.
        peer_id: The server that is decided about.
        own_span: The blocks that it serves, None before its first placement.
        target: The exact blocks that it should serve; None where it should stay.
        before: The swarm as it is; None where it is not known well enough.
        after: The swarm as it would be with this server on `target`, and with all others where the same plan puts them; None
            without one.
        snapshot_digest: Digest of the snapshot that the decision rests on.
        seed: Seed of the policy's randomness.
    """

    model_config = ConfigDict(frozen=True)

    verdict: Verdict
    reasons: tuple[Reason, ...]
    policy: str
    peer_id: str
    own_span: Span | None
    target: Span | None
    before: SwarmNumbers | None
    after: SwarmNumbers | None
    snapshot_digest: str
    seed: int

    @property
    def sentence(self) -> str:
        """The verdict and its reasons as one sentence."""
        return f"{self.verdict.value}: {'; '.join(reason.sentence for reason in self.reasons)}"
