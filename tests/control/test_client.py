"""The sidecar's end against whatever may listen at a socket: every case ends in the right error, in time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientOSError
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.control.client import (
    ControlClient,
    ProtocolError,
    ServerNotTrusted,
    ServerRefused,
    ServerUnreachable,
    _describe,
)
from swarmkeel.control.protocol import PrefetchRequest, RestartPhase, RestartRequest, RestartStatus, ServerStatus
from swarmkeel.errors import SwarmkeelError, UsageError
from swarmkeel.swarm.span import Span
from tests.control.recording import ONLINE
from tests.support.examples import examples

REQUEST = RestartRequest("restart-1", Span(10, 28), if_span=Span(0, 18), reason="test")
PATIENCE = 60.0
"""Far more than any deadline here: a call that takes longer hangs."""

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def _no_file_descriptor_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a number, no paths
    yield
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208 - a number, no paths


@asynccontextmanager
async def listening(path: Path, behaviour: Behaviour) -> AsyncIterator[list[bytes]]:
    """Let `behaviour` answer at the socket; gives what comes in, one item a connection."""
    received: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        number = len(received)
        received.append(b"")
        # Python 3.11 logs the cancellation of such a task as an error, so it ends here.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            received[number] = await reader.readuntil(b"\r\n\r\n")
            await behaviour(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield received
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets in the loop's next turn
        os.unlink(path)  # noqa: PTH108 - the linter takes pathlib in a coroutine for slow


def says(raw: bytes, *, then_waits: bool = False) -> Behaviour:
    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if then_waits:
            await asyncio.Event().wait()
        writer.write_eof()

    return behave


def http(status: int, body: bytes, content_type: str = "application/json", headers: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode()
        + body
    )


def status_answer(code: int = 200, **changes: object) -> bytes:
    return http(code, json.dumps({**ONLINE.to_json(), **changes}).encode())


def problem(code: int, detail: str) -> bytes:
    body = json.dumps({"type": "about:blank", "title": "x", "status": code, "detail": detail}).encode()
    return http(code, body, "application/problem+json")


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drips(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in status_answer():
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


async def drips_interim(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def closes(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return


def endless(start: bytes, part: bytes) -> Behaviour:
    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(part)
            await writer.drain()

    return behave


async def fails(path: Path, behaviour: Behaviour, *, request_timeout: float = PATIENCE) -> SwarmkeelError:
    """Ask for the status and give the error that it ends in."""
    async with (
        listening(path, behaviour),
        ControlClient(path, request_timeout=request_timeout) as client,
        asyncio.timeout(2 * PATIENCE),
    ):
        with pytest.raises(SwarmkeelError) as error:
            await client.status()
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 700
    assert error.value.remedy
    return error.value


async def test_status_is_read(socket_path: Path) -> None:
    async with listening(socket_path, says(status_answer())) as received:
        client = ControlClient(socket_path, request_timeout=PATIENCE)
        assert await client.status() == ONLINE
        await client.close()
        await client.close()
    assert received[0].startswith(b"GET /v1/status HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (silent, "it accepted the connection and said nothing, or not all"),
        (drips, "it accepted the connection and said nothing, or not all"),
        (drips_interim, "it accepted the connection and said nothing, or not all"),
        (says(http(200, b"x" * 50)[:-20], then_waits=True), "it accepted the connection and said nothing, or not all"),
        (says(b"HTTP/1.1 200 OK\r\n", then_waits=True), "it accepted the connection and said nothing, or not all"),
        (closes, "it closed the connection without an answer"),
        (says(b"HTTP/1.1 200 OK\r\nContent-"), "it closed the connection without an answer"),
        (says(http(200, b"x" * 50)[:-20]), "it closed the connection in the middle of its answer"),
        (says(problem(503, "not now")), "it answered 503, not now"),
        (says(problem(408, "too slow")), "it answered 408, not now"),
    ],
)
async def test_no_whole_answer_ends_at_the_deadline(socket_path: Path, behaviour: Behaviour, said: str) -> None:
    error = await fails(socket_path, behaviour, request_timeout=0.8)
    assert type(error) is ServerUnreachable
    assert error.problem == f"no answer from the server at {socket_path} within 0.8 s ({said})"


async def test_no_socket_and_nobody_listening(socket_path: Path) -> None:
    async with ControlClient(socket_path, request_timeout=0.2) as client:
        with pytest.raises(ServerUnreachable, match=r"there is no such socket"):
            await client.status()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(socket_path))
        with pytest.raises(ServerUnreachable, match=r"connection refused"):
            await client.status()


BIG = b"x" * 10_000_000
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "its answer is not HTTP"),
        (says(b"\x00" * 100 + b"\r\n\r\n"), "its answer is not HTTP"),
        (says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), "its answer is not HTTP"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n" * 100), "its answer is not HTTP"),
        (says(http(200, b"garbage")), "the body is not JSON"),
        (says(http(200, b"\xff\xfe")), "the body is not UTF-8"),
        (says(http(200, b"[" * 60_000)), "the body is nested too deeply"),
        (says(http(200, b"[]")), "a status must be a JSON object, not a list"),
        (says(http(200, b"")), "the body is not JSON"),
        (says(status_answer(protocol=2)), "status: protocol must be 1"),
        (says(status_answer(state="\x1b[2J")), 'not "?[2J"'),
        (says(status_answer(202)), "it answered 202 with application/json, not 200"),
        (says(http(204, b"")), "it answered 204"),
        (says(http(302, b"", headers="Location: http://169.254.169.254/\r\n")), "it answered 302"),
        (says(http(404, b"<h1>no", "text/html")), "it answered 404 with text/html, not 200"),
        (says(http(500, b"{}", "application/problem+json")), "problem: status must be a whole number"),
        (says(http(500, b"no", "application/problem+json")), "the body is not JSON"),
        (says(http(200, b"\x1f\x8b\x08", headers="Content-Encoding: gzip\r\n")), "the body is not UTF-8"),
        (says(http(200, BIG)), "its answer has more than 65536 bytes"),
        (endless(CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"), "its answer has more than 65536 bytes"),
        (endless(b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 4096), "its answer has more than 65536 bytes"),
    ],
)
async def test_nonsense_is_an_error_at_once(socket_path: Path, behaviour: Behaviour, said: str) -> None:
    error = await fails(socket_path, behaviour)
    assert type(error) is ProtocolError
    assert error.problem.startswith(f"what listens at {socket_path} does not speak control protocol 1: ")
    assert said in error.problem


@pytest.mark.parametrize("code", [400, 403, 404, 409, 422, 500, 501])
async def test_a_problem_is_a_refusal_and_final(socket_path: Path, code: int) -> None:
    async with (
        listening(socket_path, says(problem(code, "no\n\x1b[31m" + "x" * 5000))) as received,
        ControlClient(socket_path, request_timeout=PATIENCE) as client,
    ):
        with pytest.raises(ServerRefused) as error:
            await client.restart(REQUEST)
    assert len(received) == 1
    assert error.value.status == code
    assert error.value.detail.startswith("no??[31mxxx")
    assert len(error.value.detail) <= 300


@pytest.mark.parametrize("first", [closes, says(b"HTTP/1.1 2"), says(problem(503, "full")), says(status_answer()[:-9])])
async def test_what_breaks_is_tried_again_within_the_deadline(socket_path: Path, first: Behaviour) -> None:
    attempts = 0

    async def better_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await (first if attempts <= 2 else says(status_answer()))(reader, writer)

    async with (
        listening(socket_path, better_later),
        ControlClient(socket_path, request_timeout=PATIENCE) as client,
    ):
        assert await client.status() == ONLINE
    assert attempts == 3


async def test_a_server_that_appears_within_the_deadline_is_found(socket_path: Path) -> None:
    async with ControlClient(socket_path, request_timeout=PATIENCE) as client, asyncio.TaskGroup() as group:
        asked = group.create_task(client.status())
        await asyncio.sleep(0.1)
        assert not asked.done()
        async with listening(socket_path, says(status_answer())):
            assert await asked == ONLINE


async def test_nothing_is_sent_to_a_user_who_is_not_allowed(socket_path: Path) -> None:
    async with (
        listening(socket_path, says(status_answer())) as received,
        ControlClient(socket_path, request_timeout=PATIENCE, allowed_uids={12345}) as client,
    ):
        for call in (client.status(), client.restart(REQUEST)):
            with pytest.raises(ServerNotTrusted, match=f"user {os.geteuid()} listens at .* server.uids"):
                await call
    assert received == [b"", b""]


async def test_each_request_has_its_own_connection_and_check(socket_path: Path) -> None:
    async with (
        listening(socket_path, says(status_answer(), then_waits=True)) as received,
        ControlClient(socket_path, request_timeout=5) as client,
    ):
        assert [await client.status() for _ in range(3)] == [ONLINE] * 3
    assert len(received) == 3


async def test_a_user_who_is_allowed_is_heard(socket_path: Path) -> None:
    async with (
        listening(socket_path, says(status_answer())),
        ControlClient(socket_path, request_timeout=PATIENCE, allowed_uids=(12345, os.geteuid())) as client,
    ):
        assert await client.status() == ONLINE


async def test_restart_sends_the_request_and_gives_its_state(socket_path: Path) -> None:
    state = RestartStatus(REQUEST.id, REQUEST.span, RestartPhase.LOADING, progress=0.5)
    bodies: list[bytes] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await reader.readexactly(len(json.dumps(REQUEST.to_json()))))
        await says(status_answer(202, restart=state.to_json()))(reader, writer)

    async with (
        listening(socket_path, behave) as received,
        ControlClient(socket_path, request_timeout=PATIENCE) as client,
    ):
        status = await client.restart(REQUEST)
    assert status.restart == state
    assert received[0].startswith(b"POST /v1/restart HTTP/1.1\r\n")
    assert RestartRequest.from_json(json.loads(bodies[0])) == REQUEST


@pytest.mark.parametrize(
    "restart",
    [
        None,
        RestartStatus("restart-2", REQUEST.span, RestartPhase.ONLINE).to_json(),
        RestartStatus(REQUEST.id, Span(0, 18), RestartPhase.ONLINE).to_json(),
    ],
)
async def test_the_state_of_another_restart_is_nonsense(socket_path: Path, restart: object) -> None:
    async with (
        listening(socket_path, says(status_answer(202, restart=restart))),
        ControlClient(socket_path, request_timeout=PATIENCE) as client,
    ):
        with pytest.raises(ProtocolError, match="the state of another or of none"):
            await client.restart(REQUEST)


async def test_prefetch_sends_the_request(socket_path: Path) -> None:
    async with (
        listening(socket_path, says(status_answer(202))) as received,
        ControlClient(socket_path, request_timeout=PATIENCE) as client,
    ):
        assert await client.prefetch(PrefetchRequest("p", Span(0, 18))) == ONLINE
    assert received[0].startswith(b"POST /v1/prefetch HTTP/1.1\r\n")


async def test_a_cancelled_call_leaves_nothing_behind(socket_path: Path) -> None:
    entered = asyncio.Event()

    async def never_answers(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with (
        listening(socket_path, never_answers),
        ControlClient(socket_path, request_timeout=PATIENCE) as client,
    ):
        asked = asyncio.create_task(client.status())
        await entered.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ClientOSError(errno.ECONNREFUSED, "hidden"), "connection refused"),
        (ClientOSError("odd\nwords"), "odd?words"),
        (ClientConnectionError("other\x1b[31m words"), "other?[31m words"),
    ],
)
def test_an_error_is_told_by_its_number_or_in_its_own_words(error: ClientConnectionError, said: str) -> None:
    assert _describe(error) == said


def test_a_path_that_no_socket_can_have_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"at most 107 bytes.*set server.socket"):
        ControlClient("/tmp/" + "x" * 200, request_timeout=1)


ANSWER_PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 409 Conflict",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Type: application/problem+json",
        b"Content-Type: \xff/;;=",
        b"Content-Length: 2",
        b"Content-Length: -2",
        b"Transfer-Encoding: chunked",
        b"Content-Encoding: gzip",
        b"Set-Cookie: a=b; Domain=x",
        b"Location: ///",
        b"2\r\n{}\r\n0\r\n\r\n",
        b"{}",
        b"\x00",
        status_answer(),
    ]
)


@examples(0.6)
@given(raw=st.binary(max_size=300) | st.lists(ANSWER_PIECES, max_size=8).map(b"".join))
def test_any_answer_is_a_status_or_an_error_of_ours(raw: bytes) -> None:
    async def ask() -> ServerStatus | SwarmkeelError:
        async with listening(path, says(raw)), ControlClient(path, request_timeout=0.02) as client:
            try:
                return await client.status()
            except SwarmkeelError as error:
                return error

    directory = tempfile.mkdtemp(prefix="sk-")
    path = Path(directory) / "server.sock"
    try:
        outcome = asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    finally:
        shutil.rmtree(directory)
    assert outcome == ONLINE or str(outcome).isprintable()
