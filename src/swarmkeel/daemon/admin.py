"""The admin socket: whatever an operator may change in a running sidecar comes in here, and nowhere else.

HTTP/1.1 and JSON on a private Unix socket, on the same ground as the control socket. Requests are taken in by threads and
answered on the event loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from typing import Annotated, Final, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarmkeel.control.fields import parse_json
from swarmkeel.control.handler import Refused, problem_response
from swarmkeel.control.http1 import Request, Response
from swarmkeel.control.private_server import PrivateHttpServer
from swarmkeel.control.protocol import JSON_CONTENT_TYPE
from swarmkeel.control.unix_socket import SocketPathError
from swarmkeel.daemon.describe import describe_check, describe_pause
from swarmkeel.daemon.journal import JournalError
from swarmkeel.daemon.loop import BalanceLoop
from swarmkeel.daemon.pause import LONGEST_SECONDS, MAX_REASON_LENGTH, Pause
from swarmkeel.daemon.status import CheckInfo, DaemonStatus, MoveInfo, PauseInfo
from swarmkeel.errors import SwarmkeelError
from swarmkeel.printable import printable

ANSWER_SECONDS: Final = 60.0
"""What is answered without a reading of the swarm may take so long: a pause waits for what is being decided."""
MAX_CLIENTS: Final = 8

_log = structlog.get_logger(__name__)

_Asked = TypeVar("_Asked", bound=BaseModel)
_Answer = TypeVar("_Answer")


class AdminSocketError(SwarmkeelError):
    """The admin socket cannot be where it should be."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class PauseRequest(_Message):
    """What `POST /v1/pause` takes; unknown fields are ignored."""

    for_seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)] | None = None
    """When it ends by itself; left out, only `resume` ends it."""
    reason: Annotated[str, Field(max_length=MAX_REASON_LENGTH)] = ""
    """Why, for whoever looks."""


class PauseAnswer(_Message):
    """What `POST /v1/pause` answers."""

    pause: PauseInfo
    move: MoveInfo | None
    """A move under way, which is taken to its end."""


class ResumeAnswer(_Message):
    """What `POST /v1/resume` answers."""

    resumed: PauseInfo | None
    """The pause that is over now; null if none held."""


class _NothingAsked(_Message):
    pass


class AdminServer:
    """Answers the operator's commands.

    Args:
        socket_path: File of the socket; its directory is made, for this user alone, if it is missing.
        loop: Is told what they ask for.
        status: Says what the daemon knows and does; JournalError if the last moves cannot be read.
        longest_check: Gives the seconds that a check which is asked for may take.
        allowed_uids: User ids that may use the socket; the process's own and root where None.
        clock: Seconds since the epoch.

    Raises:
        AdminSocketError: If no socket can have that path.
    """

    def __init__(
        self,
        socket_path: str | os.PathLike[str],
        *,
        loop: BalanceLoop,
        status: Callable[[], Awaitable[DaemonStatus]],
        longest_check: Callable[[], float],
        allowed_uids: Collection[int] | None = None,
        clock: Callable[[], float],
    ) -> None:
        self._balance = loop
        self._status = status
        self._longest_check = longest_check
        self._clock = clock
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._routes: dict[str, tuple[str, Callable[[Request, int], BaseModel]]] = {
            "/v1/status": ("GET", self._get_status),
            "/v1/pause": ("POST", self._post_pause),
            "/v1/resume": ("POST", self._post_resume),
            "/v1/check-now": ("POST", self._post_check_now),
        }
        try:
            self._server = PrivateHttpServer(
                socket_path, self.answer, name="admin", allowed_uids=allowed_uids, max_connections=MAX_CLIENTS
            )
        except SocketPathError as error:
            raise _unusable(error) from error

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            AdminSocketError: If the socket cannot be there.
        """
        self._event_loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._server.start)
        except OSError as error:  # a SocketPathError too
            raise _unusable(error) from error

    async def close(self) -> None:
        """Stop listening and remove the socket, when the requests under way are answered."""
        await asyncio.to_thread(self._server.close)

    def answer(self, request: Request, uid: int) -> Response:
        """Answer a request of a user; not to be called on the event loop, which does the work."""
        try:
            answer = self._route(request)(request, uid)
        except Refused as refused:
            return problem_response(refused.status, refused.detail, refused.headers)
        except JournalError as error:
            return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except Exception as error:  # noqa: BLE001 - the client gets an answer, and the log the rest
            _log.exception("admin_request_failed", path=request.head.path[:100], error=str(error))
            return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, "the sidecar failed at this: see its log")
        return Response(HTTPStatus.OK, JSON_CONTENT_TYPE, answer.model_dump_json().encode())

    def _route(self, request: Request) -> Callable[[Request, int], BaseModel]:
        found = self._routes.get(request.head.path)
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is {', '.join(self._routes)} and nothing else")
        method, answer = found
        if request.head.method != method:
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.head.path} takes {method}", {"Allow": method})
        return answer

    def _get_status(self, _request: Request, _uid: int) -> DaemonStatus:
        async def status() -> DaemonStatus:
            return await self._status()

        return self._run(status, ANSWER_SECONDS)

    def _post_pause(self, request: Request, uid: int) -> PauseAnswer:
        wanted = _read(request, PauseRequest)
        now = self._clock()
        until = None if wanted.for_seconds is None else now + wanted.for_seconds
        pause = Pause(since=now, until=until, reason=printable(wanted.reason, MAX_REASON_LENGTH), uid=uid)

        async def pause_and_look() -> PauseAnswer:
            await self._balance.pause(pause)
            status = await self._status()
            return PauseAnswer(pause=describe_pause(pause), move=status.move)

        return self._run(pause_and_look, ANSWER_SECONDS)

    def _post_resume(self, request: Request, uid: int) -> ResumeAnswer:
        _read(request, _NothingAsked)

        async def resume() -> ResumeAnswer:
            ended = await self._balance.resume(uid)
            return ResumeAnswer(resumed=None if ended is None else describe_pause(ended))

        return self._run(resume, ANSWER_SECONDS)

    def _post_check_now(self, request: Request, uid: int) -> CheckInfo:
        _read(request, _NothingAsked)
        _log.info("check_asked_for", uid=uid)

        async def check() -> CheckInfo:
            record = await self._balance.check_now()
            return describe_check(record.check_id, record.at, record.decision)

        return self._run(check, self._longest_check())

    def _run(self, work: Callable[[], Awaitable[_Answer]], seconds: float) -> _Answer:
        """Do something on the event loop, and wait for it; what takes longer than that goes on by itself."""

        async def working() -> _Answer:
            return await work()

        assert self._event_loop is not None  # noqa: S101 - it listens
        task = asyncio.run_coroutine_threadsafe(working(), self._event_loop)
        try:
            return task.result(seconds)
        except concurrent.futures.CancelledError:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the sidecar is about to end") from None
        except TimeoutError:
            detail = f"it takes longer than {seconds:.0f} s and goes on: see the status later"
            raise Refused(HTTPStatus.GATEWAY_TIMEOUT, detail) from None


def _unusable(error: OSError) -> AdminSocketError:
    return AdminSocketError(
        f"no admin socket can be opened: {error}", "set admin.socket to a file in a directory of its own"
    )


def _read(request: Request, model: type[_Asked]) -> _Asked:
    try:
        document = parse_json(request.body) if request.body else {}
    except ValueError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
    try:
        return model.model_validate(document, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in found["loc"])
        detail = f"{place}: {found['msg']}" if place else found["msg"]
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, printable(detail, 300)) from None
