"""The sidecar's client and the server's end, talking to each other."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from swarmkeel.control.client import ControlClient, ServerRefused
from swarmkeel.control.protocol import (
    PrefetchRequest,
    RestartPhase,
    RestartRequest,
    RestartStatus,
    ServerPhase,
    ServerStatus,
)
from swarmkeel.control.server import ControlServer
from swarmkeel.swarm.span import Span
from tests.control.recording import IDLE, ONLINE, RecordingServer

TARGET = Span(62, 80)


def client_of(path: Path) -> ControlClient:
    return ControlClient(path, request_timeout=60)


def request(number: object = 1, *, if_span: Span | None = ONLINE.span, span: Span = TARGET) -> RestartRequest:
    return RestartRequest(f"restart-{number}", span, if_span=if_span, reason="blocks 62:80 are thin", drain_seconds=5)


async def test_a_restart_from_its_request_to_its_end(socket_path: Path) -> None:
    server = RecordingServer(replace(ONLINE, sessions=2, min_blocks=4, max_blocks=40, compute_rps=50, network_rps=60))
    with ControlServer(socket_path, server):
        async with client_of(socket_path) as client:
            assert await client.status() == server.present
            begun = await client.restart(request())
            assert begun.restart == RestartStatus("restart-1", TARGET, RestartPhase.LOADING)
            assert server.restarts == [request()]
            server.finish()
            done = await client.status()
            assert (done.state, done.span) == (ServerPhase.ONLINE, TARGET)
            again = await client.restart(request())
            assert again.restart == RestartStatus("restart-1", TARGET, RestartPhase.ONLINE)
    assert server.restarts == [request()]


async def test_the_first_span_of_an_idle_server(socket_path: Path) -> None:
    server = RecordingServer(IDLE)
    with ControlServer(socket_path, server):
        async with client_of(socket_path) as client:
            with pytest.raises(ServerRefused, match=r"refused \(409\): the server serves blocks none"):
                await client.restart(request(if_span=Span(0, 18)))
            await client.restart(request(if_span=None))
    assert server.restarts == [request(if_span=None)]


async def test_refusals_come_through_as_they_are(socket_path: Path) -> None:
    server = RecordingServer()
    with ControlServer(socket_path, server):
        async with client_of(socket_path) as client:
            for bad, status in ((request(span=Span(70, 88)), 422), (request(if_span=Span(1, 19)), 409)):
                with pytest.raises(ServerRefused) as refusal:
                    await client.restart(bad)
                assert refusal.value.status == status
    assert server.restarts == []


async def test_prefetch(socket_path: Path) -> None:
    server = RecordingServer()
    with ControlServer(socket_path, server):
        async with client_of(socket_path) as client:
            assert await client.prefetch(PrefetchRequest("p", TARGET)) == ONLINE
            server.present = replace(ONLINE, capabilities=())
            with pytest.raises(ServerRefused, match=r"refused \(501\)"):
                await client.prefetch(PrefetchRequest("q", TARGET))
    assert server.prefetches == [PrefetchRequest("p", TARGET)]


async def test_of_many_sidecars_at_once_one_wins(socket_path: Path) -> None:
    server = RecordingServer()
    with ControlServer(socket_path, server):
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client_of(socket_path)) for _ in range(20)]
            outcomes = await asyncio.gather(
                *(client.restart(request(number)) for number, client in enumerate(clients)), return_exceptions=True
            )
    won = [outcome for outcome in outcomes if isinstance(outcome, ServerStatus)]
    lost = [outcome.status for outcome in outcomes if isinstance(outcome, ServerRefused)]
    assert (len(won), lost) == (1, [409] * 19)
    assert [won[0].restart and won[0].restart.id] == [asked.id for asked in server.restarts]


async def test_a_full_server_is_asked_again(socket_path: Path) -> None:
    server = RecordingServer()
    with ControlServer(socket_path, server, max_connections=1):
        async with client_of(socket_path) as client:
            statuses = await asyncio.gather(*(client.status() for _ in range(4)))
    assert statuses == [ONLINE] * 4


async def test_a_server_that_starts_anew_is_found_again(socket_path: Path) -> None:
    async with client_of(socket_path) as client:
        for present in (ONLINE, IDLE):
            with ControlServer(socket_path, RecordingServer(present)):
                assert await client.status() == present


async def test_a_user_whom_the_server_does_not_allow(socket_path: Path) -> None:
    with ControlServer(socket_path, RecordingServer(), allowed_uids={12345}):
        async with client_of(socket_path) as client:
            with pytest.raises(ServerRefused, match=r"refused \(403\): user \d+ may not use this socket"):
                await client.status()
