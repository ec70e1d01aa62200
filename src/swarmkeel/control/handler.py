"""What the server answers to each request of the control protocol: HTTP requests in, responses out, no socket.

Standard library only, as all that the server's side of the control protocol needs.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Final, Protocol, TypeVar

from swarmkeel.control.fields import parse_json, render_json
from swarmkeel.control.http1 import Request, Response
from swarmkeel.control.protocol import (
    JSON_CONTENT_TYPE,
    MAX_BODY_BYTES,
    PROBLEM_CONTENT_TYPE,
    PrefetchRequest,
    Problem,
    RestartPhase,
    RestartRequest,
    RestartStatus,
    ServerPhase,
    ServerStatus,
)
from swarmkeel.swarm.span import Span

MAX_REMEMBERED_IDS: Final = 256
PREFETCH: Final = "prefetch"

_LOCK_SECONDS: Final = 10.0

_Message = TypeVar("_Message")
_Known = TypeVar("_Known")

_log = logging.getLogger(__name__)


class Refused(Exception):  # noqa: N818 - no error: it is how a callback says no, and the sidecar is told so
    """Raised by a callback that will not do what it is asked for.

    Args:
        status: HTTP status code of the answer, 400 to 599.
        detail: Why, in one line for the sidecar's log.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail)
        self.status = HTTPStatus(status)
        self.detail = detail
        self.headers = headers or {}


class Callbacks(Protocol):
    """What the embedding server provides.

    The calls come from threads of `ControlServer`, never two at the same time. A callback that raises anything but
    `Refused` is logged and answered with 500. A server that can fetch weights while it serves also has a method
    `prefetch(request: PrefetchRequest) -> None`, which returns at once, and names `prefetch` in its capabilities.
    """

    def status(self) -> ServerStatus:
        """Tell what the server does; quick, since the sidecar asks often."""
        ...

    def restart(self, request: RestartRequest) -> None:
        """Begin to restart on `request.span` and return at once: the work is for a thread of the embedding server.

        Called once for each accepted id. From then on `status().restart` shows how far it has come.

        Raises:
            Refused: If the server will not.
        """
        ...


def problem_response(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Give the response that tells of a problem."""
    body = render_json(Problem(status=status.value, detail=detail).to_json())
    return Response(status, PROBLEM_CONTENT_TYPE, body, headers or {})


class RequestHandler:
    """Answers requests by asking the callbacks, one at a time, and sees to it that a restart is begun only once.

    Args:
        callbacks: The embedding server.
    """

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._routes: dict[str, dict[str, Callable[[Request], Response]]] = {
            "/v1/status": {"GET": self._get_status, "HEAD": self._get_status},
            "/v1/restart": {"POST": self._post_restart},
            "/v1/prefetch": {"POST": self._post_prefetch},
        }
        # Held from the look at the present state to the end of the callback: of two requests only one can find the
        # server free.
        self._lock = threading.Lock()
        self._restarts: OrderedDict[str, RestartStatus] = OrderedDict()
        self._prefetches: OrderedDict[str, Span] = OrderedDict()
        self._begun: RestartStatus | None = None
        self._shown_before: str | None = None
        self._warned = False

    def handle(self, request: Request) -> Response:
        """Answer a request; whatever goes wrong becomes a problem."""
        try:
            handle = self._route(request)
            with self._alone():
                return handle(request)
        except Refused as refused:
            return problem_response(refused.status, refused.detail, refused.headers)
        except Exception:  # noqa: BLE001 - whatever a callback raises, the client gets an answer and the log the rest
            _log.exception("control request %s %s failed", request.head.method, request.head.path[:100])
            return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed at this: see its log")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the server is busy with another request")
        try:
            yield
        finally:
            self._lock.release()

    def _route(self, request: Request) -> Callable[[Request], Response]:
        methods = self._routes.get(request.head.path)
        if methods is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is {', '.join(self._routes)} and nothing else")
        handle = methods.get(request.head.method)
        if handle is None:
            allow = ", ".join(methods)
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.head.path} takes {allow}", {"Allow": allow})
        return handle

    def _get_status(self, _request: Request) -> Response:
        return _status_response(HTTPStatus.OK, self._present_status())

    def _post_restart(self, request: Request) -> Response:
        wanted = _read(request, RestartRequest.from_json)
        status = self._present_status()
        known = self._restarts.get(wanted.id)
        if known is None:
            self._check_restart(wanted, status)
            self._callbacks.restart(wanted)
            self._begun, self._warned = RestartStatus(wanted.id, wanted.span, RestartPhase.ACCEPTED), False
            self._shown_before = None if status.restart is None else status.restart.id
            _remember(self._restarts, wanted.id, self._begun)
            _log.info("restart %s on blocks %s begun: %s", wanted.id, wanted.span, wanted.reason)
            return _status_response(HTTPStatus.ACCEPTED, self._present_status())
        if known.span != wanted.span:
            raise Refused(HTTPStatus.CONFLICT, f"restart {wanted.id} was for blocks {known.span}: take a new id")
        return _status_response(HTTPStatus.ACCEPTED, replace(status, restart=known))

    def _post_prefetch(self, request: Request) -> Response:
        wanted = _read(request, PrefetchRequest.from_json)
        status = self._present_status()
        prefetch = getattr(self._callbacks, PREFETCH, None)
        if prefetch is None or PREFETCH not in status.capabilities:
            raise Refused(HTTPStatus.NOT_IMPLEMENTED, "this server cannot prefetch: it is not among its capabilities")
        known = self._prefetches.get(wanted.id)
        if known is None:
            _check_span(wanted.span, status)
            prefetch(wanted)
            _remember(self._prefetches, wanted.id, wanted.span)
            _log.info("prefetch %s of blocks %s begun", wanted.id, wanted.span)
        elif known != wanted.span:
            raise Refused(HTTPStatus.CONFLICT, f"prefetch {wanted.id} was for blocks {known}: take a new id")
        return _status_response(HTTPStatus.ACCEPTED, self._present_status())

    def _check_restart(self, wanted: RestartRequest, status: ServerStatus) -> None:
        _check_span(wanted.span, status)
        under_way = status.restart
        if under_way is not None and not under_way.phase.is_final:
            raise Refused(
                HTTPStatus.CONFLICT,
                f"restart {under_way.id} on blocks {under_way.span} is under way ({under_way.phase})",
            )
        if not wanted.expects(status.span):
            raise Refused(
                HTTPStatus.CONFLICT,
                f"the server serves blocks {status.span or 'none'}, the request is for one that serves "
                f"{wanted.if_span or 'none'}",
            )

    def _present_status(self) -> ServerStatus:
        """Ask the callback, check what it says, and keep what it says of a restart for who asks for its id again."""
        status = self._callbacks.status()
        ServerStatus.from_json(status.to_json())
        shown = status.restart
        if self._begun is not None and (None if shown is None else shown.id) == self._shown_before:
            # The callback has begun the restart and does not show it yet: it is under way all the same.
            if status.state is ServerPhase.ONLINE and status.span == self._begun.span and not self._warned:
                self._warned = True
                _log.warning(
                    "restart %s: the server is online on blocks %s and its status() still shows no such restart; give it as "
                    "ServerStatus.restart, or the sidecar waits for its end until it gives the move up as failed",
                    self._begun.id,
                    self._begun.span,
                )
            return replace(status, restart=self._begun)
        self._begun = None
        if shown is not None:
            _remember(self._restarts, shown.id, shown)
        return status


def _read(request: Request, from_json: Callable[[object], _Message]) -> _Message:
    try:
        document = parse_json(request.body)
    except ValueError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
    try:
        return from_json(document)
    except ValueError as error:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None


def _check_span(span: Span, status: ServerStatus) -> None:
    if span.end > status.total_blocks:
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"there are no blocks {span}: the model has 0:{status.total_blocks}"
        )
    if len(span) not in status.lengths:
        least, most = status.lengths[0], status.lengths[-1]
        allowed = f"{least}" if least == most else f"{least} to {most}"
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"blocks {span} are {len(span)}: this server holds spans of {allowed}"
        )


def _status_response(code: HTTPStatus, status: ServerStatus) -> Response:
    body = render_json(status.to_json())
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"the status has {len(body)} bytes, at most {MAX_BODY_BYTES} may be sent: shorten its texts")
    return Response(code, JSON_CONTENT_TYPE, body)


def _remember(memory: OrderedDict[str, _Known], key: str, value: _Known) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > MAX_REMEMBERED_IDS:
        memory.popitem(last=False)
