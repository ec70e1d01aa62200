"""Messages of the control protocol, version 1: JSON over HTTP/1.1 on a local Unix socket.

Standard library only: this module runs inside other people's GPU servers, beside their pinned dependencies. Both ends
use it. Fields that are not known are ignored, so that either end may be newer. What is read is hostile until checked:
every reader raises ValueError with one line, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from swarmkeel.control.fields import MAX_TEXT_LENGTH, Fields
from swarmkeel.printable import printable
from swarmkeel.swarm.span import Span

PROTOCOL_VERSION: Final = 1
MAX_BODY_BYTES: Final = 64 * 1024
JSON_CONTENT_TYPE: Final = "application/json"
PROBLEM_CONTENT_TYPE: Final = "application/problem+json"

_MAX_SECONDS: Final = 1e9


class ServerPhase(StrEnum):
    """What the server as a whole does."""

    IDLE = "idle"
    """It has no blocks yet and waits for its first span."""
    JOINING = "joining"
    ONLINE = "online"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


class RestartPhase(StrEnum):
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

    def to_json(self) -> dict[str, object]:
        """Give the restart as the protocol writes it."""
        return {
            "id": self.id,
            "span": self.span.to_json(),
            "phase": str(self.phase),
            "progress": None if self.progress is None else float(self.progress),
            "error": None if self.error is None else printable(self.error, MAX_TEXT_LENGTH),
        }

    @classmethod
    def from_json(cls, source: object) -> RestartStatus:
        """Check and read a restart.

        Raises:
            ValueError: What is wrong with it, in one line.
        """
        fields = Fields(source, "restart")
        return cls(
            id=fields.identifier("id"),
            span=fields.span("span"),
            phase=fields.phase("phase", RestartPhase),
            progress=fields.number("progress", most=1) if fields.has("progress") else None,
            error=fields.text("error") if fields.has("error") else None,
        )


class PrefetchPhase(StrEnum):
    """How far fetching weights has come; the last two are final."""

    FETCHING = "fetching"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class PrefetchStatus:
    """The last prefetch that the server was asked for.

    Attributes:
        id: The id that the sidecar gave it.
        span: The blocks whose weights it was asked to fetch.
        phase: How far it has come.
        error: Why it failed; None otherwise.
    """

    id: str
    span: Span
    phase: PrefetchPhase
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """Give the prefetch as the protocol writes it."""
        return {
            "id": self.id,
            "span": self.span.to_json(),
            "phase": str(self.phase),
            "error": None if self.error is None else printable(self.error, MAX_TEXT_LENGTH),
        }

    @classmethod
    def from_json(cls, source: object) -> PrefetchStatus:
        """Check and read a prefetch.

        Raises:
            ValueError: What is wrong with it, in one line.
        """
        fields = Fields(source, "prefetch")
        return cls(
            id=fields.identifier("id"),
            span=fields.span("span"),
            phase=fields.phase("phase", PrefetchPhase),
            error=fields.text("error") if fields.has("error") else None,
        )


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
        prefetch: The last prefetch it was asked for; None where there was none, or where the server does not tell.
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
    prefetch: PrefetchStatus | None = None

    @property
    def lengths(self) -> range:
        """How many blocks a span of this server may have: `num_blocks` alone unless it tells a minimum or maximum."""
        least = self.num_blocks if self.min_blocks is None else self.min_blocks
        most = self.num_blocks if self.max_blocks is None else self.max_blocks
        return range(least, most + 1)

    def to_json(self) -> dict[str, object]:
        """Give the status as the protocol writes it; what the server does not tell of the last five is left out."""
        optional = {
            "min_blocks": self.min_blocks,
            "max_blocks": self.max_blocks,
            "compute_rps": None if self.compute_rps is None else float(self.compute_rps),
            "network_rps": None if self.network_rps is None else float(self.network_rps),
            "prefetch": None if self.prefetch is None else self.prefetch.to_json(),
        }
        return {
            "protocol": PROTOCOL_VERSION,
            "implementation": self.implementation,
            "peer_id": self.peer_id,
            "dht_prefix": self.dht_prefix,
            "total_blocks": self.total_blocks,
            "num_blocks": self.num_blocks,
            "throughput": float(self.throughput),
            "state": str(self.state),
            "span": None if self.span is None else self.span.to_json(),
            "pinned": self.pinned,
            "sessions": self.sessions,
            "capabilities": list(self.capabilities),
            "restart": None if self.restart is None else self.restart.to_json(),
            **{name: value for name, value in optional.items() if value is not None},
        }

    @classmethod
    def from_json(cls, source: object) -> ServerStatus:
        """Check and read a status.

        Raises:
            ValueError: What is wrong with it, in one line.
        """
        fields = Fields(source, "status")
        if fields.whole("protocol") != PROTOCOL_VERSION:
            fields.refuse("protocol", f"must be {PROTOCOL_VERSION}, the version that this end speaks")
        status = cls(
            implementation=fields.name("implementation"),
            peer_id=fields.name("peer_id") if fields.has("peer_id") else None,
            dht_prefix=fields.name("dht_prefix"),
            total_blocks=fields.whole("total_blocks", least=1),
            num_blocks=fields.whole("num_blocks", least=1),
            throughput=fields.number("throughput"),
            state=fields.phase("state", ServerPhase),
            span=fields.span("span") if fields.has("span") else None,
            pinned=fields.flag("pinned") if fields.has("pinned") else False,
            sessions=fields.whole("sessions") if fields.has("sessions") else None,
            capabilities=fields.names("capabilities") if fields.has("capabilities") else (),
            restart=RestartStatus.from_json(fields.source["restart"]) if fields.has("restart") else None,
            min_blocks=fields.whole("min_blocks", least=1) if fields.has("min_blocks") else None,
            max_blocks=fields.whole("max_blocks", least=1) if fields.has("max_blocks") else None,
            compute_rps=fields.number("compute_rps") if fields.has("compute_rps") else None,
            network_rps=fields.number("network_rps") if fields.has("network_rps") else None,
            prefetch=PrefetchStatus.from_json(fields.source["prefetch"]) if fields.has("prefetch") else None,
        )
        if status.span is not None and status.span.end > status.total_blocks:
            fields.refuse("span", f"must end at total_blocks = {status.total_blocks} or before")
        if not status.lengths:
            fields.refuse("num_blocks", "with min_blocks and max_blocks must leave at least one length of a span")
        return status


@dataclass(frozen=True)
class RestartRequest:
    """Body of `POST /v1/restart`.

    Attributes:
        id: Makes the request idempotent: the same id again answers with the state of that restart.
        span: The exact blocks to serve.
        if_span: The blocks that the server must be serving for this to be done; None means that it must have none.
        reason: Why, for the server's log.
        drain_seconds: How long open sessions may go on.
        conditional: With False the present span does not matter: the body has no `if_span`.

    Raises:
        ValueError: If it is not conditional and yet names the span that must be served.
    """

    id: str
    span: Span
    if_span: Span | None
    reason: str
    drain_seconds: float = 0.0
    conditional: bool = True

    def __post_init__(self) -> None:
        if not self.conditional and self.if_span is not None:
            raise ValueError("an unconditional restart request cannot name an if_span")

    def expects(self, present: Span | None) -> bool:
        """Tell whether the request is meant for a server that serves `present`."""
        return not self.conditional or self.if_span == present

    def to_json(self) -> dict[str, object]:
        """Give the request as the protocol writes it."""
        condition = {"if_span": None if self.if_span is None else self.if_span.to_json()} if self.conditional else {}
        return {
            "id": self.id,
            "span": self.span.to_json(),
            **condition,
            "reason": printable(self.reason, MAX_TEXT_LENGTH),
            "drain_seconds": float(self.drain_seconds),
        }

    @classmethod
    def from_json(cls, source: object) -> RestartRequest:
        """Check and read a request; whether the server has such blocks is for the server to say.

        Raises:
            ValueError: What is wrong with it, in one line.
        """
        fields = Fields(source, "restart request")
        return cls(
            id=fields.identifier("id"),
            span=fields.span("span"),
            if_span=fields.span("if_span") if fields.has("if_span") else None,
            reason=fields.text("reason") if fields.has("reason") else "",
            drain_seconds=fields.number("drain_seconds", most=_MAX_SECONDS) if fields.has("drain_seconds") else 0.0,
            conditional="if_span" in fields.source,
        )


@dataclass(frozen=True)
class PrefetchRequest:
    """Body of `POST /v1/prefetch`: fetch the weights of some blocks while still serving others.

    Attributes:
        id: Makes the request idempotent.
        span: The blocks whose weights to fetch.
    """

    id: str
    span: Span

    def to_json(self) -> dict[str, object]:
        """Give the request as the protocol writes it."""
        return {"id": self.id, "span": self.span.to_json()}

    @classmethod
    def from_json(cls, source: object) -> PrefetchRequest:
        """Check and read a request; whether the server has such blocks is for the server to say.

        Raises:
            ValueError: What is wrong with it, in one line.
        """
        fields = Fields(source, "prefetch request")
        return cls(id=fields.identifier("id"), span=fields.span("span"))


@dataclass(frozen=True)
class Problem:
    """An error as RFC 9457 writes it.

    Attributes:
        status: The HTTP status code, 400 to 599.
        detail: What is wrong with this request and what would be right.
        title: The kind of problem; the name of the status code where the type is `about:blank`.
        type: A URI for the kind of problem; `about:blank` says no more than the status code.
    """

    status: int
    detail: str
    title: str = ""
    type: str = "about:blank"

    def to_json(self) -> dict[str, object]:
        """Give the problem as RFC 9457 writes it."""
        return {
            "type": self.type,
            "title": self.title or HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": printable(self.detail, MAX_TEXT_LENGTH),
        }

    @classmethod
    def from_json(cls, source: object) -> Problem:
        """Check and read a problem.

        Raises:
            ValueError: What is wrong with it, in one line.
        """
        fields = Fields(source, "problem")
        return cls(
            status=fields.whole("status", least=400, most=599),
            detail=fields.text("detail") if fields.has("detail") else "",
            title=fields.text("title") if fields.has("title") else "",
            type=fields.text("type") if fields.has("type") else "about:blank",
        )
