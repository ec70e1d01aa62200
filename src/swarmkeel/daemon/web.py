"""What holds for every answer of the daemon's HTTP: its headers, who may ask and how, and what an error looks like."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel
from yarl import URL

from swarmkeel.control.protocol import JSON_CONTENT_TYPE, PROBLEM_CONTENT_TYPE, Problem

COMPRESSED_FROM: Final = 2048
"""Shorter answers are sent as they are, in bytes."""

MAX_CONNECTIONS: Final = 128
"""More are refused at once: whoever can connect must not take all the files that this process may have open."""
IDLE_SECONDS: Final = 75.0
"""A connection that asks nothing, or not all of its question, or does not read its answer for so long is closed."""

_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def make_application(host: str) -> web.Application:
    """Make an application whose answers are as safe as a browser can be told to make them.

    Args:
        host: The address that it will listen on.
    """
    application = web.Application(client_max_size=0, middlewares=[_problems, _check_host(host)])
    application.on_response_prepare.append(_add_headers)
    return application


async def listen(runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
    """Listen for an application that has been set up, within `MAX_CONNECTIONS` and `IDLE_SECONDS`.

    Raises:
        OSError: If the address is taken or not ours.
    """
    server = runner.server
    assert server is not None  # noqa: S101 - it has been set up

    def accept() -> asyncio.BaseProtocol:
        return server() if len(server.connections) < MAX_CONNECTIONS else _Full()

    listener = await asyncio.get_running_loop().create_server(accept, host, port)
    for listening in listener.sockets:
        # Every connection inherits this. Nothing else ends one that does not read what it has asked for.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(IDLE_SECONDS * 1000))
    return listener


class _Full(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say that there is no room, and hang up."""
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - of a stream
        transport.write(_FULL)
        transport.close()


def json_answer(value: BaseModel | bytes) -> web.Response:
    """Answer with a value as JSON, compressed where it is long and the client can read that."""
    body = value if isinstance(value, bytes) else value.model_dump_json().encode()
    answer = web.Response(body=body, content_type=JSON_CONTENT_TYPE, charset="utf-8")
    if len(body) >= COMPRESSED_FROM:
        answer.enable_compression()
    return answer


def refuse(status: HTTPStatus, detail: str) -> web.HTTPException:
    """Make the error that ends a request, to be raised."""

    class Refused(web.HTTPException):
        status_code = status.value

    return Refused(text=detail)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Write every error as RFC 9457 wants it."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        detail = _DETAILS.get(HTTPStatus(error.status), error.text or error.reason)
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        body = json.dumps(Problem(error.status, detail).to_json()).encode()
        return web.Response(body=body, status=error.status, content_type=PROBLEM_CONTENT_TYPE, headers=allowed)


_DETAILS: Final = {
    HTTPStatus.NOT_FOUND: "there is nothing here; / is the status page, /api/v1/openapi.json tells what there is",
    HTTPStatus.METHOD_NOT_ALLOWED: "everything here can only be read: GET and HEAD are allowed",
}


def _check_host(bound: str) -> Middleware:
    """Make the check against DNS rebinding: pages of others, whose names were made to lead here, may read nothing.

    It holds where only this machine's own programs can connect; on any other address nobody knows all of its names.
    """
    allowed = _LOOPBACK_NAMES | {bound.lower()} if _is_loopback(bound) else None

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if allowed is not None and _host_of(request) not in allowed:
            names = ", ".join(sorted(allowed))
            raise refuse(HTTPStatus.MISDIRECTED_REQUEST, f"this is only answered under the names {names}")
        # Browsers tell where a question comes from unless it is this page itself that asks.
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"{request.scheme}://{request.host}":
            raise refuse(HTTPStatus.FORBIDDEN, "pages of others get no answer here")
        return await handler(request)

    return check


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host_of(request: web.Request) -> str | None:
    try:
        return URL(f"http://{request.host}").host
    except ValueError:
        return None
