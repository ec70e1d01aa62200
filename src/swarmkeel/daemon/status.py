"""All that the daemon tells of itself and the swarm, as values: for `/api/v1/`, the status page and the admin socket."""

from __future__ import annotations

import math
import sys
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from swarmkeel.balance.decision import Verdict
from swarmkeel.daemon.guard import GuardKind
from swarmkeel.daemon.move import MoveStep
from swarmkeel.swarm.span import Span

_TEXT_LIMIT: Final = 300
_MOST: Final = sys.float_info.max


def _finite(value: object) -> object:
    """Sums of hostile records may be infinite, which JSON cannot say."""
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0 if math.isnan(value) else math.copysign(_MOST, value)
    return value


Number = Annotated[float, BeforeValidator(_finite)]


class _Value(BaseModel):
    """Times are seconds since the epoch, durations seconds, throughputs requests a second."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Numbers(_Value):
    """How well the swarm is balanced."""

    bottleneck_rps: Number
    """Throughput of the weakest block."""
    bound_rps: Number
    """What no placement of these servers can exceed."""
    balance_ratio: Number
    """Bottleneck over bound, 0 to 1."""
    uncovered_blocks: int
    """Blocks without a server; one that could not be read is none of them."""


class Readiness(_Value):
    """Whether the daemon does its work."""

    ready: bool
    """Whether there ever was a good snapshot."""
    snapshot_is_good: bool
    """Whether the newest attempt to read the swarm gave one."""
    server_answers: bool
    """Whether the server's control socket answers."""
    config_is_current: bool
    """Whether the newest reload of the configuration succeeded."""
    dht_peers: int
    """Peers in the routing table of the DHT node."""
    last_check_at: float | None
    """When the newest check of the balance ended."""
    last_turn_at: float
    """When the loop last turned, be it with an error."""
    check_period: float
    """Time between two checks, on average."""


class SnapshotInfo(_Value):
    """What the newest reading of the DHT gave."""

    read_at: float
    age_seconds: float
    duration_seconds: float | None
    """How long the reading took."""
    keys_asked: int
    keys_answered: int
    records_accepted: int
    rejected: dict[str, int]
    """Records that were not accepted, by reason."""


class OwnServer(_Value):
    """The server beside this sidecar, as its control socket tells."""

    peer_id: str | None
    implementation: str
    state: str
    span: Span | None
    """The blocks that it serves; null before its first placement."""
    span_since: float | None
    """Since when, as far as this sidecar has seen."""
    throughput_rps: Number
    num_blocks: int
    """How many blocks it can hold."""
    pinned: bool
    """Its operator does not want it moved."""
    sessions: int | None
    """Open inference sessions; null where it cannot tell."""
    capabilities: tuple[str, ...]
    restart: str | None
    """The last restart that it was asked for, in words."""
    restart_error: str | None
    staged_blocks: int | None
    """Blocks on its disk for what may come; null while nothing is staged."""


class ReasonInfo(_Value):
    """One reason of a verdict."""

    name: str
    """Stable."""
    sentence: str
    values: dict[str, str | int | Number | bool | None]


class VerdictInfo(_Value):
    """What the newest check ended in."""

    verdict: Verdict
    sentence: str
    """The verdict and its reasons, with their numbers."""
    reasons: tuple[ReasonInfo, ...]
    """The weightiest first."""
    policy: str
    own_span: Span | None
    target: Span | None
    """The blocks that the server should serve; null where it should stay."""
    before: Numbers | None
    after: Numbers | None
    """With the server on its target, and all others where the same plan puts them."""
    snapshot_digest: str


class CheckInfo(VerdictInfo):
    """One check of the journal."""

    check_id: str
    at: float


class GuardInfo(_Value):
    """One guard that stands before a move."""

    name: str
    """The name of the reason that it gives."""
    kind: GuardKind
    """Which moves it is asked about."""
    holds: bool
    """Whether it would hold a move now."""
    sentence: str | None
    """Why; null while it does not hold."""
    releases_at: float | None
    """When it lets go; null while it does not hold, and where that depends on others than the clock."""


class PauseInfo(_Value):
    """A pause by the operator."""

    since: float
    until: float | None
    """When it ends by itself; null if never."""
    reason: str
    uid: int
    """The user who asked for it."""


class ClaimInfo(_Value):
    """A move that a sidecar is about to make, or is making."""

    peer_id: str
    public_name: str | None
    origin: Span | None
    """The blocks that the server leaves; null for its first placement."""
    target: Span
    made_at: float
    """Of two claims the older goes first."""
    expires_at: float
    throughput_rps: Number
    gain_rps: Number
    """By how much the whole plan should raise the bottleneck."""


class ClaimsInfo(_Value):
    """What is known of the sidecars' claims."""

    readable: bool
    """Whether what sidecars tell could be read."""
    sidecars: int
    """Other sidecars that tell something."""
    implausible: int
    """Claims that cannot be true and do not count."""
    rejected: int
    """Records that were not accepted."""
    own: ClaimInfo | None
    others: tuple[ClaimInfo, ...]
    """The older first."""


class MoveInfo(_Value):
    """One move of the own server."""

    id: str
    origin: Span | None
    target: Span
    reason: str
    step: MoveStep
    is_final: bool
    started_at: float
    step_since: float
    predicted_gain_rps: Number
    """By how much the bottleneck was to rise."""
    realised_gain_rps: Number | None
    """By how much it had risen when the move was verified; null until then."""
    bottleneck_before_rps: Number
    staged: bool
    """Whether the weights had been fetched before."""
    outage_seconds: float | None
    """From telling the server to its serving the target; null where that is not known."""
    error: str | None


class DaemonStatus(_Value):
    """What one sidecar knows and does, without the servers and blocks of the swarm."""

    version: str
    model: str
    total_blocks: int
    policy: str
    enabled: bool
    dry_run: bool
    now: float
    """The daemon's clock when this was said."""
    started_at: float
    readiness: Readiness
    snapshot: SnapshotInfo | None
    """Null until the first."""
    server: OwnServer | None
    """Null while it does not answer."""
    numbers: Numbers | None
    """Bottleneck and uncovered blocks by ONLINE servers; the bound counts JOINING ones too."""
    verdict: VerdictInfo | None
    """Null until the first check."""
    guards: tuple[GuardInfo, ...]
    """Empty until the first check of a server that answers."""
    pause: PauseInfo | None
    claims: ClaimsInfo | None
    """Null while the policy makes none."""
    move: MoveInfo | None
    """The move under way."""
    moves: tuple[MoveInfo, ...]
    """The last moves, the newest first."""


class BlockState(StrEnum):
    """How well one block is served."""

    SERVED = "served"
    JOINING = "joining"
    """Only by servers that still load it."""
    UNREAD = "unread"
    """Its key could not be read, and nobody is known to serve it."""
    UNCOVERED = "uncovered"
    """By nobody, or only by servers that announce 0 requests a second."""


class BlockInfo(_Value):
    """One block of the model."""

    index: int
    state: BlockState
    throughput_rps: Number
    """Of its ONLINE servers together."""
    online: int
    """Its ONLINE servers."""
    joining: int
    """Servers that still load it."""
    weakest: bool
    """Whether no served block has less throughput."""


class SidecarInfo(_Value):
    """What a server's sidecar tells the others."""

    movable_at: float | None
    """From when on the server may be moved, 0 if at once; null if it may not be moved."""
    arrives_at: float | None
    """When it expects its server to serve on its new blocks; null if it does not move."""


class SwarmServer(_Value):
    """One server as the DHT shows it; its texts are its own."""

    peer_id: str
    public_name: str | None
    version: str | None
    state: Literal["offline", "joining", "online"]
    span: Span | None
    """Null where its record names no block of the model."""
    throughput_rps: Number
    own: bool
    """Whether it is the server beside this sidecar."""
    sidecar: SidecarInfo | None
    """Null where no sidecar tells of it."""


class SwarmStatus(_Value):
    """The swarm as the newest snapshot shows it."""

    read_at: float
    first_block: int
    numbers: Numbers
    servers: tuple[SwarmServer, ...]
    """By their first block; of those that are OFFLINE a few more minutes are remembered."""
    blocks: tuple[BlockInfo, ...]


class TimelinePoint(_Value):
    """The swarm's balance at one time, by ONLINE servers; the bound counts JOINING ones too."""

    at: float
    bottleneck_rps: Number
    bound_rps: Number
    uncovered_blocks: int


class Timeline(_Value):
    """The swarm's balance over time."""

    points: tuple[TimelinePoint, ...]
    """The oldest first."""


class Moves(_Value):
    """Moves of the own server."""

    moves: tuple[MoveInfo, ...]
    """The newest first."""


class Checks(_Value):
    """Checks of the balance."""

    checks: tuple[CheckInfo, ...]
    """The newest first."""
