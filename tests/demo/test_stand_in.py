"""A stand-in as a real process, in a real DHT and at a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from swarmkeel.control.client import ControlClient, ServerRefused
from swarmkeel.control.protocol import RestartPhase, RestartRequest, RestartStatus, ServerPhase, ServerStatus
from swarmkeel.demo.processes import ProcessFailedError, RunningStandIn, start_stand_in
from swarmkeel.demo.server_life import Gpu
from swarmkeel.demo.stand_in import StandInSettings, parse_arguments
from swarmkeel.swarm.reader import SwarmReader
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.span import Span
from tests.support.dht import DhtPeers, process_runs
from tests.support.servers import MODEL, TOTAL_BLOCKS, stand_in
from tests.support.shared_peers import beside_shared_peers

FIRST, SECOND = Span(0, 4), Span(2, 6)


pytestmark = beside_shared_peers


@pytest.fixture
def peers(shared_peers: DhtPeers) -> DhtPeers:
    return shared_peers


@pytest_asyncio.fixture(loop_scope="session")
async def reader(peers: DhtPeers) -> AsyncIterator[SwarmReader]:
    swarm = SwarmReader(peers.initial_peers, MODEL, TOTAL_BLOCKS)
    yield swarm
    await swarm.close()


async def wait_for_span(
    reader: SwarmReader, server: RunningStandIn, expected: Callable[[RemoteSpanInfo[str] | None], bool]
) -> RemoteSpanInfo[str] | None:
    async with asyncio.timeout(60):
        while True:
            span = (await reader.read()).spans(ServerState.OFFLINE).get(server.peer_id)
            if expected(span):
                return span
            await asyncio.sleep(0.05)


def shows(state: ServerState, blocks: Span) -> Callable[[RemoteSpanInfo[str] | None], bool]:
    return lambda span: span is not None and (span.state, span.start, span.end) == (state, blocks.start, blocks.end)


async def wait_for_status(client: ControlClient, expected: Callable[[ServerStatus], bool]) -> ServerStatus:
    async with asyncio.timeout(60):
        while not expected(status := await client.status()):
            await asyncio.sleep(0.02)
    return status


def is_over(status: ServerStatus) -> bool:
    return status.restart is not None and status.restart.phase.is_final


def restart_to(span: Span, drain_seconds: float = 0.0) -> RestartRequest:
    return RestartRequest(f"to-{span}", span, FIRST, "test", drain_seconds)


async def test_it_serves_where_it_is_told_and_the_swarm_knows(peers: DhtPeers, reader: SwarmReader) -> None:
    async with (
        stand_in(peers.initial_peers, throughput=12.5, public_name="it") as server,
        ControlClient(server.settings.socket, request_timeout=5) as client,
    ):
        online = await wait_for_span(reader, server, shows(ServerState.ONLINE, FIRST))
        assert online is not None
        assert (online.throughput, online.server_info.public_name) == (12.5, "it")

        await client.restart(restart_to(SECOND))
        await wait_for_span(reader, server, shows(ServerState.ONLINE, SECOND))
        done = await client.status()
        assert done.restart == RestartStatus(f"to-{SECOND}", SECOND, RestartPhase.ONLINE)
        # The blocks that it left say so, until the record expires.
        blocks = (await reader.read()).blocks
        for index in range(FIRST.start, SECOND.start):
            left = blocks[index].servers.get(server.peer_id)
            assert left is None or left.state is ServerState.OFFLINE


async def test_a_load_that_fails_brings_the_former_blocks_back(peers: DhtPeers, reader: SwarmReader) -> None:
    gpu = Gpu(load_seconds=0.3, failing_blocks=frozenset({5}))
    async with (
        stand_in(peers.initial_peers, gpu=gpu) as server,
        ControlClient(server.settings.socket, request_timeout=5) as client,
    ):
        await wait_for_status(client, lambda status: status.state is ServerPhase.ONLINE)
        await client.restart(restart_to(SECOND))
        failed = await wait_for_status(client, is_over)
        assert failed.restart == RestartStatus(
            f"to-{SECOND}", SECOND, RestartPhase.FAILED, None, "block 5 could not be loaded"
        )
        await wait_for_status(client, lambda status: (status.state, status.span) == (ServerPhase.ONLINE, FIRST))
        await wait_for_span(reader, server, shows(ServerState.ONLINE, FIRST))


async def test_while_it_loads_at_its_start_it_is_joining(peers: DhtPeers, reader: SwarmReader) -> None:
    async with (
        stand_in(peers.initial_peers, gpu=Gpu(load_seconds=0.2, hanging_blocks=frozenset({2}))) as server,
        ControlClient(server.settings.socket, request_timeout=5) as client,
    ):
        status = await client.status()
        assert (status.state, status.span, status.peer_id) == (ServerPhase.JOINING, FIRST, server.peer_id)
        assert shows(ServerState.JOINING, FIRST)(await wait_for_span(reader, server, lambda span: span is not None))


async def test_a_load_that_hangs_stays_joining_and_refuses_another_restart(
    peers: DhtPeers, reader: SwarmReader
) -> None:
    async with (
        stand_in(peers.initial_peers, gpu=Gpu(load_seconds=0.2, hanging_blocks=frozenset({4}))) as server,
        ControlClient(server.settings.socket, request_timeout=5) as client,
    ):
        await wait_for_status(client, lambda status: status.state is ServerPhase.ONLINE)
        await client.restart(restart_to(SECOND))
        hanging = await wait_for_status(client, lambda status: bool(status.restart and status.restart.progress == 0.5))
        assert (hanging.state, hanging.span) == (ServerPhase.JOINING, SECOND)
        await wait_for_span(reader, server, shows(ServerState.JOINING, SECOND))
        with pytest.raises(ServerRefused, match="409"):
            await client.restart(RestartRequest("other", FIRST, SECOND, "test"))


async def test_sessions_are_drained_first(peers: DhtPeers) -> None:
    async with (
        stand_in(peers.initial_peers, gpu=Gpu(load_seconds=0.2, sessions=3, session_seconds=0.5)) as server,
        ControlClient(server.settings.socket, request_timeout=5) as client,
    ):
        await wait_for_status(client, lambda status: status.sessions == 3)
        draining = await client.restart(restart_to(SECOND, drain_seconds=600.0))
        assert (draining.state, draining.span) == (ServerPhase.DRAINING, FIRST)
        done = await wait_for_status(client, is_over)
        assert (done.state, done.span) == (ServerPhase.ONLINE, SECOND)


async def test_sigterm_is_a_goodbye(peers: DhtPeers, reader: SwarmReader) -> None:
    async with stand_in(peers.initial_peers, lifetime=60.0) as server:
        await wait_for_span(reader, server, shows(ServerState.ONLINE, FIRST))
        assert await server.process.end() == 0
        assert not server.settings.socket.exists()
        await wait_for_span(reader, server, shows(ServerState.OFFLINE, FIRST))


async def test_after_a_crash_its_records_outlive_it_for_a_while(peers: DhtPeers, reader: SwarmReader) -> None:
    async with stand_in(peers.initial_peers, lifetime=3.0) as server:
        await wait_for_span(reader, server, shows(ServerState.ONLINE, FIRST))
        p2pds = children(server.process.pid)
        assert p2pds
        await server.process.crash()
        assert not any(map(process_runs, p2pds))
        assert shows(ServerState.ONLINE, FIRST)(await wait_for_span(reader, server, lambda _: True))
        await wait_for_span(reader, server, lambda span: span is None)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_idle_it_waits_for_its_first_blocks(peers: DhtPeers, reader: SwarmReader) -> None:
    async with (
        stand_in(peers.initial_peers, first_block=None) as server,
        ControlClient(server.settings.socket, request_timeout=5) as client,
    ):
        status = await client.status()
        assert (status.state, status.span) == (ServerPhase.IDLE, None)
        await client.restart(RestartRequest("first", SECOND, None, "test"))
        await wait_for_span(reader, server, shows(ServerState.ONLINE, SECOND))


async def test_idle_for_too_long_it_chooses_the_weakest_blocks(peers: DhtPeers, reader: SwarmReader) -> None:
    async with stand_in(peers.initial_peers, first_block=0, num_blocks=5) as other:
        await wait_for_span(reader, other, shows(ServerState.ONLINE, Span(0, 5)))
        async with stand_in(peers.initial_peers, first_block=None, num_blocks=3, idle_limit=0.1) as server:
            await wait_for_span(reader, server, shows(ServerState.ONLINE, Span(5, 8)))


async def test_it_outlives_its_swarm_and_is_found_again(peers: DhtPeers, reader: SwarmReader) -> None:
    async with (
        stand_in(peers.initial_peers, update_period=0.5) as server,
        ControlClient(server.settings.socket, request_timeout=5) as client,
    ):
        await wait_for_span(reader, server, shows(ServerState.ONLINE, FIRST))
        await peers.kill_all()
        # What it is told while it is alone, it does all the same.
        await client.restart(restart_to(SECOND))
        alone = await wait_for_status(client, is_over)
        assert (alone.state, alone.span) == (ServerPhase.ONLINE, SECOND)
        await peers.restart_all()
        await wait_for_span(reader, server, shows(ServerState.ONLINE, SECOND))


async def test_without_p2pd_it_ends(peers: DhtPeers) -> None:
    async with stand_in(peers.initial_peers) as server:
        for p2pd in children(server.process.pid):
            os.kill(p2pd, signal.SIGKILL)
        assert await server.process.wait() == 1
        assert "p2pd has ended" in server.process.log_path.read_text()


async def test_a_stand_in_that_cannot_start_says_why(tmp_path: Path) -> None:
    settings = StandInSettings(tmp_path / ("long" * 30), MODEL, TOTAL_BLOCKS, 4, 10.0, public_name="it")
    with pytest.raises(ProcessFailedError, match=r"it ended before it was ready: it last logged: .*at most 107 bytes"):
        await start_stand_in(settings, tmp_path / "log")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--num-blocks=9"], "--num-blocks must be between 1 and --total-blocks"),
        (["--num-blocks=0"], "--num-blocks must be between 1 and --total-blocks"),
        (["--num-blocks=4", "--first-block=5"], "--first-block must leave room"),
        (["--num-blocks=4", "--fail-blocks=x"], "--fail-blocks"),
    ],
)
async def test_bad_arguments_are_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    required = ["--socket=s", "--dht-prefix=m", "--total-blocks=8", "--throughput=1"]
    with pytest.raises(SystemExit, match="2"):
        parse_arguments([*required, *arguments])
    assert complaint in capsys.readouterr().err
