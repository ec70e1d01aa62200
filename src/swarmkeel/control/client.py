"""The sidecar's end of the control protocol: asks the server what it does and tells it to restart elsewhere.

Every request is idempotent, so a connection that breaks is tried again until the deadline. What answers is not trusted:
the kernel says which user it is before a byte is sent, and no answer can cost more than the deadline and 64 KiB.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Collection, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import aiohttp
import structlog

from swarmkeel.control.fields import parse_json, render_json
from swarmkeel.control.protocol import (
    JSON_CONTENT_TYPE,
    MAX_BODY_BYTES,
    PROBLEM_CONTENT_TYPE,
    PrefetchRequest,
    Problem,
    RestartRequest,
    ServerStatus,
)
from swarmkeel.control.unix_socket import SocketPathError, check_socket_path, own_and_root_uids, peer_uid
from swarmkeel.errors import SwarmkeelError, UsageError
from swarmkeel.printable import printable

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

_FIRST_RETRY_SECONDS: Final = 0.05
_LONGEST_RETRY_SECONDS: Final = 1.0
_RETRIED: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_SHOWN_CHARACTERS: Final = 300

_log = structlog.get_logger(__name__)


class ServerUnreachable(SwarmkeelError):  # noqa: N818 - named for what is the case, as the journal and the log say it
    """The server gave no whole answer within the deadline."""


class ServerNotTrusted(ServerUnreachable):
    """Somebody listens at the server's socket who is not allowed to; nothing was sent."""


class ProtocolError(SwarmkeelError):
    """What answers at the socket does not speak protocol 1."""


class ServerRefused(SwarmkeelError):  # noqa: N818 - named for what is the case, as the journal and the log say it
    """The server will not do what it was asked for; the same request again would get the same answer.

    Attributes:
        status: HTTP status code: 409 if the server is not in the state that the request expects, 422 if it has no such
            blocks, 500 if it failed at it.
        detail: What it says about it, made printable.
    """

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = printable(detail, _SHOWN_CHARACTERS)
        super().__init__(f"the server refused ({status}): {self.detail}", "see the server's own log for more")


class ControlClient:
    """Talks to one server over its control socket.

    Args:
        socket_path: The server's socket.
        request_timeout: Seconds for one call, all its attempts together.
        allowed_uids: User ids that may own the other end; the process's own and root where None.

    Raises:
        UsageError: If no socket can have that path.
    """

    def __init__(
        self,
        socket_path: str | os.PathLike[str],
        *,
        request_timeout: float,
        allowed_uids: Collection[int] | None = None,
    ) -> None:
        try:
            self._socket_path = str(check_socket_path(socket_path))
        except SocketPathError as error:
            raise UsageError(str(error), "set server.socket to the server's control socket") from error
        self._request_timeout = request_timeout
        self._allowed_uids = own_and_root_uids() if allowed_uids is None else frozenset(allowed_uids)
        self._session: aiohttp.ClientSession | None = None

    async def status(self) -> ServerStatus:
        """Ask the server what it does.

        Raises:
            ServerUnreachable: If there is no whole answer within the deadline.
            ProtocolError: If the answer makes no sense.
            ServerRefused: If the server says that it cannot tell.
        """
        return await self._call("GET", "/v1/status", None, HTTPStatus.OK)

    async def restart(self, request: RestartRequest) -> ServerStatus:
        """Tell the server to serve other blocks.

        Returns:
            The server's status, whose `restart` is that of this request: just begun, or as far as it is by now if the
            same id was sent before.

        Raises:
            ServerUnreachable: If there is no whole answer within the deadline; the server may have begun all the same.
            ProtocolError: If the answer makes no sense.
            ServerRefused: If the server will not.
        """
        status = await self._call("POST", "/v1/restart", request.to_json(), HTTPStatus.ACCEPTED)
        if status.restart is None or (status.restart.id, status.restart.span) != (request.id, request.span):
            raise self._nonsense(f"it answered restart {request.id} with the state of another or of none")
        return status

    async def prefetch(self, request: PrefetchRequest) -> ServerStatus:
        """Let the server fetch the weights of some blocks while it serves others.

        Raises:
            ServerUnreachable: If there is no whole answer within the deadline; the server may have begun all the same.
            ProtocolError: If the answer makes no sense.
            ServerRefused: If the server will not, with status 501 if it cannot.
        """
        return await self._call("POST", "/v1/prefetch", request.to_json(), HTTPStatus.ACCEPTED)

    async def close(self) -> None:
        """Close what is open. More than once does no harm."""
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(
        self, method: str, path: str, message: Mapping[str, object] | None, expected: HTTPStatus
    ) -> ServerStatus:
        body = None if message is None else render_json(message)
        failure = "it accepted the connection and said nothing, or not all"
        delay = _FIRST_RETRY_SECONDS
        try:
            async with asyncio.timeout(self._request_timeout):
                while True:
                    try:
                        code, content_type, answer = await self._send(method, path, body)
                    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                        failure = _describe(error)
                    else:
                        if code not in _RETRIED:
                            return self._read_answer(code, content_type, answer, expected)
                        failure = f"it answered {code}, not now"
                    _log.debug("control_request_retried", path=path, failure=failure, delay=delay)
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, _LONGEST_RETRY_SECONDS)
        except TimeoutError:
            raise ServerUnreachable(
                f"no answer from the server at {self._socket_path} within {self._request_timeout:g} s ({failure})",
                "see that it runs and that its control socket is the one in server.socket",
            ) from None

    async def _send(self, method: str, path: str, body: bytes | None) -> tuple[int, str, bytes]:
        """Make one attempt; gives status code, content type and body."""
        try:
            async with self._open_session().request(
                method,
                f"http://server{path}",
                data=body,
                headers={} if body is None else {"Content-Type": JSON_CONTENT_TYPE},
                allow_redirects=False,
            ) as response:
                answer = bytearray()
                while chunk := await response.content.read(MAX_BODY_BYTES + 1 - len(answer)):
                    answer += chunk
                    if len(answer) > MAX_BODY_BYTES:
                        raise self._nonsense(f"its answer has more than {MAX_BODY_BYTES} bytes")
                return response.status, response.content_type, bytes(answer)
        except aiohttp.ClientResponseError as error:
            raise self._nonsense(f"its answer is not HTTP: {error.message}") from None

    def _read_answer(self, code: int, content_type: str, answer: bytes, expected: HTTPStatus) -> ServerStatus:
        try:
            if code == expected:
                return ServerStatus.from_json(parse_json(answer))
            if code >= HTTPStatus.BAD_REQUEST and content_type == PROBLEM_CONTENT_TYPE:
                raise ServerRefused(code, Problem.from_json(parse_json(answer)).detail)
        except ValueError as error:
            raise self._nonsense(str(error)) from None
        raise self._nonsense(f"it answered {code} with {content_type}, not {expected.value}")

    def _nonsense(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"what listens at {self._socket_path} does not speak control protocol 1: {printable(what, _SHOWN_CHARACTERS)}",
            "see that server.socket is the server's control socket and that both ends are of fitting versions",
        )

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_CheckedConnector(self._socket_path, self._allowed_uids),
                timeout=aiohttp.ClientTimeout(total=None),  # `_call` has the deadline, over all attempts
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "swarmkeel"},
            )
        return self._session


class _CheckedConnector(aiohttp.UnixConnector):
    """Connects to a Unix socket only if it belongs to an allowed user."""

    def __init__(self, path: str, allowed_uids: Collection[int]) -> None:
        # A connection for each request: the server may be another process by the next one, and is checked anew.
        super().__init__(path, force_close=True)
        self._allowed_uids = allowed_uids

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> ResponseHandler:
        connection = await super()._create_connection(req, traces, timeout)
        transport = connection.transport
        if transport is None:
            raise aiohttp.ServerDisconnectedError
        uid = peer_uid(transport.get_extra_info("socket"))
        if uid in self._allowed_uids:
            return connection
        transport.abort()
        raise ServerNotTrusted(
            f"user {uid} listens at {self.path} and is not allowed to",
            "see whose process that is; if it is the server, add its user id to server.uids",
        )


def _describe(error: aiohttp.ClientConnectionError | aiohttp.ClientPayloadError) -> str:
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it closed the connection in the middle of its answer"
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return "there is no such socket"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return printable(str(error), _SHOWN_CHARACTERS)
