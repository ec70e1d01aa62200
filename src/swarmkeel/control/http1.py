"""As much of HTTP/1.1 as the control protocol needs, on a connected socket, with a bound on everything.

Standard library only. The parser takes less than the RFC allows (no chunked bodies, no folded headers) and refuses the
rest with a status code: what sits at the other end may be anything.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

MAX_HEAD_BYTES: Final = 16 * 1024

_CHUNK_BYTES: Final = 16 * 1024
_LINGER_SECONDS: Final = 1.0
_LINGER_BYTES: Final = 1024 * 1024
_HEAD_END: Final = b"\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rf"({_NAME}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_HEADER_LINE: Final = re.compile(rf"({_NAME}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")


class HttpError(Exception):
    """The request cannot be answered as asked; the connection is of no further use.

    Attributes:
        status: The status code to answer with.
        detail: One line for the client.
    """

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True)
class RequestHead:
    """Request line and headers.

    Attributes:
        method: As sent; methods are case-sensitive.
        target: As sent: path and query.
        headers: Values by lower-case name; several values of one name are joined by commas.
        keep_alive: Whether the client would send another request on this connection.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    keep_alive: bool

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Request:
    """A request that came in whole."""

    head: RequestHead
    body: bytes


@dataclass(frozen=True)
class Response:
    """What to answer.

    Attributes:
        status: The status code.
        content_type: Of the body.
        body: All of it.
        headers: Further headers.
    """

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def render(self, *, keep_alive: bool, with_body: bool = True) -> bytes:
        """Write the response as it goes over the socket."""
        headers = {
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            "Cache-Control": "no-store",
            "Connection": "keep-alive" if keep_alive else "close",
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join(lines).encode("latin-1") + _HEAD_END + (self.body if with_body else b"")


def parse_head(block: bytes) -> RequestHead:
    """Read request line and headers.

    Args:
        block: All bytes before the empty line.

    Raises:
        HttpError: 400 or 505.
    """
    request_line, *header_lines = block.decode("latin-1").split("\r\n")
    match = _REQUEST_LINE.fullmatch(request_line)
    if match is None:
        raise HttpError(HTTPStatus.BAD_REQUEST, "the request does not start like GET /v1/status HTTP/1.1")
    method, target, major, minor = match.groups()
    if major != "1":
        raise HttpError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, f"HTTP/1.1 is spoken here, not HTTP/{major}.{minor}")
    headers: dict[str, str] = {}
    for line in header_lines:
        header = _HEADER_LINE.fullmatch(line)
        if header is None:
            raise HttpError(HTTPStatus.BAD_REQUEST, "a header is not of the form Name: value")
        name, value = header[1].lower(), header[2].strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    connection = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    keep_alive = "keep-alive" in connection if minor == "0" else "close" not in connection
    return RequestHead(method, target, headers, keep_alive)


def body_length(head: RequestHead, max_bytes: int) -> int:
    """Tell how many bytes of body follow a head.

    Raises:
        HttpError: 400, 411, 413 or 501.
    """
    if "transfer-encoding" in head.headers:
        raise HttpError(HTTPStatus.NOT_IMPLEMENTED, "send the body with a Content-Length, not in chunks")
    length = head.headers.get("content-length")
    if length is None:
        if head.method == "POST":
            raise HttpError(HTTPStatus.LENGTH_REQUIRED, "send the body with a Content-Length")
        return 0
    if re.fullmatch(r"[0-9]{1,18}", length) is None:
        raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Length is not one whole number")
    if int(length) > max_bytes:
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have at most {max_bytes} bytes")
    return int(length)


class HttpConnection:
    """The server's end of one connection; not to be shared between threads.

    Args:
        connection: A connected stream socket; the caller closes it.
        request_seconds: How long a request may take to come in, counted from when it is waited for, and how long an
            answer may take to be taken: whoever sends byte by byte gains no time by it.
        max_body_bytes: Longest body taken.
    """

    def __init__(self, connection: socket.socket, *, request_seconds: float, max_body_bytes: int) -> None:
        self._socket = connection
        self._request_seconds = request_seconds
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray()

    def read_request(self) -> Request | None:
        """Read the next request; None if there is none: the client closed, or sent nothing in time.

        Raises:
            HttpError: If what came is no request that can be taken.
            OSError: If the connection broke.
        """
        deadline = time.monotonic() + self._request_seconds
        try:
            head = self._read_head(deadline)
            return None if head is None else Request(head, self._read_body(head, deadline))
        except TimeoutError:
            raise HttpError(
                HTTPStatus.REQUEST_TIMEOUT, f"a request has {self._request_seconds:g} s to come in"
            ) from None

    def send(self, rendered: bytes) -> None:
        """Send a response.

        Raises:
            OSError: If the client is gone or does not take it in time.
        """
        self._socket.settimeout(self._request_seconds)
        self._socket.sendall(rendered)

    def linger(self) -> None:
        """After an answer to a request that was not read to its end: let the client read it before it meets an error.

        Closing a socket with unread bytes makes the other end's next write fail, before it has looked for an answer.

        Raises:
            OSError: If the client is gone.
        """
        self._socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + _LINGER_SECONDS
        left = _LINGER_BYTES
        while left > 0 and (seconds := deadline - time.monotonic()) > 0:
            self._socket.settimeout(seconds)
            received = len(self._socket.recv(_CHUNK_BYTES))
            if received == 0:
                return
            left -= received

    def _read_head(self, deadline: float) -> RequestHead | None:
        while (end := self._buffer.find(_HEAD_END)) < 0 and len(self._buffer) <= MAX_HEAD_BYTES:
            try:
                more = self._receive(deadline)
            except TimeoutError:
                if self._buffer:
                    raise
                return None
            if not more:
                if self._buffer:
                    raise HttpError(HTTPStatus.BAD_REQUEST, "the connection ended in the middle of a request")
                return None
        if not 0 <= end <= MAX_HEAD_BYTES:
            raise HttpError(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"request line and headers may have at most {MAX_HEAD_BYTES} bytes",
            )
        block = bytes(self._buffer[:end])
        del self._buffer[: end + len(_HEAD_END)]
        return parse_head(block)

    def _read_body(self, head: RequestHead, deadline: float) -> bytes:
        length = body_length(head, self._max_body_bytes)
        if len(self._buffer) < length and head.headers.get("expect", "").lower() == "100-continue":
            self.send(_CONTINUE)
        while len(self._buffer) < length:
            if not self._receive(deadline):
                raise HttpError(HTTPStatus.BAD_REQUEST, "the connection ended before the end of the body")
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _receive(self, deadline: float) -> bool:
        """Add some bytes to the buffer; False at the end of the stream, TimeoutError at the deadline."""
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        self._socket.settimeout(seconds)
        chunk = self._socket.recv(_CHUNK_BYTES)
        self._buffer += chunk
        return bool(chunk)
