"""An embedding server that does nothing but remember what it was asked for, and raw bytes to ask it with."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swarmkeel.control.protocol import (
    PrefetchRequest,
    RestartPhase,
    RestartRequest,
    RestartStatus,
    ServerPhase,
    ServerStatus,
)
from swarmkeel.swarm.span import Span

IDLE = ServerStatus(
    implementation="recording/1",
    peer_id="QmRecording",
    dht_prefix="model",
    total_blocks=80,
    num_blocks=18,
    throughput=41.5,
    state=ServerPhase.IDLE,
    span=None,
    capabilities=("prefetch",),
)
ONLINE = replace(IDLE, state=ServerPhase.ONLINE, span=Span(0, 18))


@dataclass
class RecordingServer:
    """Callbacks; a restart is under way until `finish`.

    Attributes:
        present: What it shows.
        shows_restarts: With False a restart is begun and never shown, as by a server that does it later.
    """

    present: ServerStatus = ONLINE
    shows_restarts: bool = True
    restarts: list[RestartRequest] = field(default_factory=list)
    prefetches: list[PrefetchRequest] = field(default_factory=list)

    def status(self) -> ServerStatus:
        return self.present

    def restart(self, request: RestartRequest) -> None:
        self.restarts.append(request)
        if self.shows_restarts:
            self.show(RestartStatus(request.id, request.span, RestartPhase.LOADING))

    def prefetch(self, request: PrefetchRequest) -> None:
        self.prefetches.append(request)

    def show(self, restart: RestartStatus) -> None:
        self.present = replace(self.present, restart=restart)

    def finish(self) -> None:
        last = self.restarts[-1]
        self.present = replace(
            self.present,
            state=ServerPhase.ONLINE,
            span=last.span,
            restart=RestartStatus(last.id, last.span, RestartPhase.ONLINE),
        )


@dataclass(frozen=True)
class Answer:
    """A response, read from raw bytes by other code than Swarmkeel's."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document

    @property
    def is_problem(self) -> bool:
        """Whether it is what RFC 9457 and the protocol ask of every error."""
        document = self.json
        return (
            self.headers["content-type"] == "application/problem+json"
            and document["status"] == self.status
            and all(isinstance(document[name], str) and document[name] for name in ("type", "title", "detail"))
        )


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(30)
    connection.connect(str(path))
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    while True:
        try:
            chunk = connection.recv(65536)
        except ConnectionResetError:
            return received
        if not chunk:
            return received
        received += chunk


def parse_answers(raw: bytes) -> list[Answer]:
    answers = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ", 2)[1])
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", "0"))
        answers.append(Answer(status, headers, rest[:length]))
        raw = rest[length:]
    return answers


def exchange(path: Path, raw: bytes) -> list[Answer]:
    """Send raw bytes, end the stream, and give what comes back."""
    with connect(path) as connection:
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # cut off: what it said before is still to be read
        return parse_answers(read_to_end(connection))


def request_bytes(method: str, path: str, body: object = None, headers: str = "") -> bytes:
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    length = "" if body is None else f"Content-Length: {len(content)}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: server\r\n{length}{headers}\r\n".encode("latin-1") + content


def ask(path: Path, method: str, target: str, body: object = None, headers: str = "") -> Answer:
    """Make one good request and give its answer."""
    (answer,) = exchange(path, request_bytes(method, target, body, f"Connection: close\r\n{headers}"))
    return answer


def restart_body(number: object = 1, **changes: object) -> dict[str, object]:
    return {
        "id": f"restart-{number}",
        "span": {"start": 10, "end": 28},
        "reason": "test",
        "drain_seconds": 1,
        **changes,
    }


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for what another thread or process does."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        pause.wait(0.01)


def restart(path: Path, number: object = 1, **changes: object) -> Answer:
    return ask(path, "POST", "/v1/restart", restart_body(number, **changes))


def shown_restart(answer: Answer) -> dict[str, Any]:
    assert answer.status == 202, answer
    shown = answer.json["restart"]
    assert isinstance(shown, dict)
    return shown


def assert_unharmed(path: Path, recording: RecordingServer) -> None:
    """Nothing has been begun, and the next good request works."""
    assert recording.restarts == []
    assert recording.prefetches == []
    assert ServerStatus.from_json(ask(path, "GET", "/v1/status").json) == recording.present
