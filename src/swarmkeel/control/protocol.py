"""Messages of the control protocol, version 1: JSON over HTTP/1.1 on a local Unix socket.

Standard library only: this module runs inside other people's GPU servers, beside their pinned dependencies. Both ends
use it. Fields that are not known are ignored, so that either end may be newer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from swarmkeel.swarm.span import Span

PROTOCOL_VERSION = 1
MAX_BODY_BYTES = 64 * 1024


class ServerPhase(str, Enum):
    """What the server as a whole does."""

    IDLE = "idle"
    """It has no blocks yet and waits for its first span."""
    JOINING = "joining"
    ONLINE = "online"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


class RestartPhase(str, Enum):
    """How far one restart has come; the last two are final."""

    ACCEPTED = "accepted"
    PREFETCHING = "prefetching"
    DRAINING = "draining"
    STOPPING = "stopping"
    LOADING = "loading"
    ONLINE = "online"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the restart."""
        return self in (RestartPhase.ONLINE, RestartPhase.FAILED)


@dataclass(frozen=True)
class RestartStatus:
    """The last restart that the server was asked for.

    Attributes:
        id: The id that the sidecar gave it.
        span: The blocks it was asked to serve.
        phase: How far it has come.
        progress: Share of the present phase that is done, 0 to 1; None where the server does not know.
        error: Why it failed; None otherwise.
    """

    id: str
    span: Span
    phase: RestartPhase
    progress: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class ServerStatus:
    """Answer to `GET /v1/status`.

    Attributes:
        implementation: Name and version of the server, such as `petals/2.2.0.post1`.
        peer_id: Base58 id under which it announces itself; None before it has joined the DHT.
        dht_prefix: Name of the model in the DHT.
        total_blocks: Number of blocks of the model.
        num_blocks: How many blocks this server can hold.
        throughput: Requests a second that it announces.
        state: What it does now.
        span: The blocks that it serves; None before its first placement.
        pinned: Its operator does not want it moved.
        sessions: Open inference sessions; None where it cannot tell.
        capabilities: Optional requests that it understands: `prefetch`, `drain`.
        restart: The last restart it was asked for.
        min_blocks, max_blocks, compute_rps, network_rps: Told by servers that can hold different numbers of blocks.
    """

    implementation: str
    peer_id: str | None
    dht_prefix: str
    total_blocks: int
    num_blocks: int
    throughput: float
    state: ServerPhase
    span: Span | None
    pinned: bool = False
    sessions: int | None = None
    capabilities: tuple[str, ...] = ()
    restart: RestartStatus | None = None
    min_blocks: int | None = None
    max_blocks: int | None = None
    compute_rps: float | None = None
    network_rps: float | None = None

    def to_json(self) -> dict[str, object]:
        """Give the status as the protocol writes it."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, source: object) -> ServerStatus:
        """Check and read a status.

        Raises:
            ValueError: What is wrong with it, in one line.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class RestartRequest:
    """Body of `POST /v1/restart`.

    Attributes:
        id: Makes the request idempotent: the same id again answers with the state of that restart.
        span: The exact blocks to serve.
        if_span: The blocks that the server must be serving for this to be done; None means that it must be idle.
        reason: Why, for the server's log.
        drain_seconds: How long open sessions may go on.
    """

    id: str
    span: Span
    if_span: Span | None
    reason: str
    drain_seconds: float = 0.0
