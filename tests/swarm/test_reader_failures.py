"""A DHT that goes away, hangs, and comes back: a reader says what it does not know, and is back when the DHT is."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from swarmkeel.swarm import dht_node
from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.failures import DhtNodeError, IdentityError, InitialPeerError, SwarmUnreachable
from swarmkeel.swarm.reader import SwarmReader
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.snapshot import KeyReading, SwarmSnapshot
from tests.support.dht import DhtPeers, freeze_process, p2pd_pid, p2pd_sockets, plant, process_runs, wait_until
from tests.support.shared_peers import beside_shared_peers

OK, ABSENT, UNKNOWN = KeyReading.OK, KeyReading.ABSENT, KeyReading.UNKNOWN
RECORD = encode_value(ServerInfo(ServerState.ONLINE, 5.0, 0, 3).to_tuple())
pytestmark = beside_shared_peers

BLOCKS = 4
"""Of which the last is served by nobody."""


def serve(nodes: Iterable[DhtNode | None]) -> None:
    for block in range(BLOCKS - 1):
        plant(nodes, f"m.{block}", "QmServer", RECORD, time.time() + 600)


@pytest.fixture
def peers(shared_peers: DhtPeers) -> DhtPeers:
    serve(shared_peers.nodes)
    return shared_peers


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def _five_peers() -> AsyncIterator[DhtPeers]:
    async with DhtPeers(5) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def five_peers(_five_peers: DhtPeers) -> DhtPeers:
    """For tests that tell most peers from some."""
    await _five_peers.as_new()
    serve(_five_peers.nodes)
    return _five_peers


@pytest_asyncio.fixture(loop_scope="session")
async def reader(peers: DhtPeers, tmp_path: Path) -> AsyncIterator[SwarmReader]:
    async with reading(peers, tmp_path / "key") as reader:
        yield reader


@pytest_asyncio.fixture(loop_scope="session")
async def reader_of_five(five_peers: DhtPeers, tmp_path: Path) -> AsyncIterator[SwarmReader]:
    async with reading(five_peers, tmp_path / "key") as reader:
        yield reader


@asynccontextmanager
async def reading(peers: DhtPeers, key: Path) -> AsyncIterator[SwarmReader]:
    reader = SwarmReader(peers.initial_peers, "m", BLOCKS, identity_path=key)
    yield reader
    async with asyncio.timeout(30):
        await reader.close()


async def read(reader: SwarmReader) -> SwarmSnapshot:
    """Read; far later than it should be back, it counts as hanging."""
    async with asyncio.timeout(60):
        return await reader.read()


def readings(snapshot: SwarmSnapshot) -> list[KeyReading]:
    return [block.reading for block in snapshot.blocks]


WHOLE = [OK, OK, OK, ABSENT]
with_five_peers = pytest.mark.xdist_group("five peers")  # which one worker starts for all of them


def node_of(reader: SwarmReader) -> DhtNode:
    assert reader._node is not None
    return reader._node


async def test_the_whole_dht_dies_and_comes_back(peers: DhtPeers, reader: SwarmReader) -> None:
    with capture_logs() as logs:
        assert readings(await read(reader)) == WHOLE
        peer_id = reader.own_peer_id
        await peers.kill_all()
        for _ in range(2):
            with pytest.raises(SwarmUnreachable, match="initial_peers"):
                await read(reader)
            assert reader.dht_peers == 0
        await peers.restart_all()
        # The peers have lost all records, but what these said holds as long as they said.
        assert readings(await read(reader)) == WHOLE
        forgetful = SwarmReader(peers.initial_peers, "m", BLOCKS, remember_seconds=0)
        assert readings(await read(forgetful)) == [ABSENT] * BLOCKS
        await forgetful.close()
        serve(peers.nodes)
        assert readings(await read(reader)) == WHOLE

    assert reader.own_peer_id == peer_id
    events = [log for log in logs if log["event"].startswith("dht_")]
    assert [log["event"] for log in events] == ["dht_joined", "dht_lost", "dht_rejoined", "dht_joined"]
    assert events[1]["reason"] == "no_answers"


async def test_it_starts_while_the_dht_is_down(peers: DhtPeers, reader: SwarmReader) -> None:
    await peers.kill_all()
    with capture_logs() as logs:
        await reader.open()
        with pytest.raises(SwarmUnreachable):
            await read(reader)
        assert not logs
        await peers.restart_all()
        serve(peers.nodes)

        assert readings(await read(reader)) == WHOLE
    assert logs[0]["event"] == "dht_joined"


async def test_what_is_wrong_with_its_own_settings_is_said_at_the_start(peers: DhtPeers, tmp_path: Path) -> None:
    with pytest.raises(InitialPeerError):
        await SwarmReader(["nowhere"], "m", 1).open()
    (tmp_path / "bad").write_text("no key")
    (tmp_path / "bad").chmod(0o400)
    with pytest.raises(IdentityError):
        await SwarmReader(peers.initial_peers, "m", 1, identity_path=tmp_path / "bad").open()


async def test_its_p2pd_is_killed_between_two_readings(peers: DhtPeers, reader: SwarmReader) -> None:
    assert peers.nodes
    with capture_logs() as logs:
        await read(reader)
        former, peer_id = node_of(reader), reader.own_peer_id
        os.kill(p2pd_pid(former), signal.SIGKILL)
        await wait_until(lambda: not process_runs(p2pd_pid(former)))
        assert readings(await read(reader)) == WHOLE

    assert reader.own_peer_id == peer_id
    assert not any(path.exists() for path in p2pd_sockets(former))
    assert [log.get("reason") for log in logs if log["event"] == "dht_lost"] == ["p2pd_gone"]


async def test_its_p2pd_is_killed_in_the_middle_of_a_reading(
    peers: DhtPeers, reader: SwarmReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert peers.nodes
    await reader.open()
    ask = DhtNode.ask
    killed: list[DhtNode] = []

    async def kill_first(self: DhtNode, *args: Any) -> Any:
        if not killed:
            killed.append(self)
            os.kill(p2pd_pid(self), signal.SIGKILL)
        return await ask(self, *args)

    monkeypatch.setattr(DhtNode, "ask", kill_first)
    snapshot = await read(reader)

    assert readings(snapshot) == WHOLE
    assert node_of(reader) is not killed[0]
    assert not any(path.exists() for path in p2pd_sockets(killed[0]))


async def test_its_p2pd_hangs(peers: DhtPeers, reader: SwarmReader) -> None:
    assert peers.nodes
    await read(reader)
    former = node_of(reader)
    freeze_process(p2pd_pid(former))
    with pytest.raises(SwarmUnreachable):
        await read(reader)
    assert not process_runs(p2pd_pid(former))

    assert readings(await read(reader)) == WHOLE


async def test_all_peers_hang_and_go_on(peers: DhtPeers, reader: SwarmReader) -> None:
    await read(reader)
    peers.freeze()
    try:
        for _ in range(2):
            with pytest.raises(SwarmUnreachable):
                await read(reader)
    finally:
        peers.thaw()

    assert readings(await read(reader)) == WHOLE


@with_five_peers
@pytest.mark.parametrize(
    ("frozen", "last"),
    [pytest.param(2, ABSENT, id="the most still answer"), pytest.param(3, UNKNOWN, id="the most do not")],
)
async def test_what_most_holders_say_decides_whether_there_is_nothing(
    five_peers: DhtPeers, reader_of_five: SwarmReader, frozen: int, last: KeyReading
) -> None:
    await read(reader_of_five)
    five_peers.freeze(*range(frozen))
    try:
        assert readings(await read(reader_of_five)) == [OK, OK, OK, last]
        # Nor does it change when they are no longer asked.
        assert readings(await read(reader_of_five)) == [OK, OK, OK, last]
    finally:
        five_peers.thaw(*range(frozen))


@with_five_peers
async def test_peers_that_died_do_not_make_a_hole_unknown(five_peers: DhtPeers, reader_of_five: SwarmReader) -> None:
    await five_peers.kill(3, 4)

    assert readings(await read(reader_of_five)) == WHOLE


@with_five_peers
async def test_the_deadline_holds_whoever_hangs(five_peers: DhtPeers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dht_node, "RPC_TIMEOUT", 300.0)
    hasty = SwarmReader(five_peers.initial_peers, "m", BLOCKS, read_timeout=2.0)
    await hasty.open()
    five_peers.freeze(1, 2, 3, 4)
    try:
        snapshot = await read(hasty)
        assert readings(snapshot) == [OK, OK, OK, UNKNOWN]
    finally:
        five_peers.thaw(1, 2, 3, 4)
        await hasty.close()


async def test_a_reading_without_any_time_left_to_join_fails(peers: DhtPeers) -> None:
    hasty = SwarmReader(peers.initial_peers, "m", BLOCKS, read_timeout=0.01)
    try:
        with pytest.raises(SwarmUnreachable):
            await read(hasty)
        assert hasty.own_peer_id is None
    finally:
        await hasty.close()


async def test_a_cancelled_reading_leaves_nothing_running(peers: DhtPeers, reader: SwarmReader) -> None:
    await read(reader)
    before = asyncio.all_tasks()
    peers.freeze()
    try:
        reading = asyncio.create_task(reader.read())
        await asyncio.wait([reading], timeout=0.3)
        assert asyncio.all_tasks() - before - {reading}
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert asyncio.all_tasks() <= before
    finally:
        peers.thaw()

    assert readings(await read(reader)) == WHOLE


async def test_closing_ends_a_reading_under_way(peers: DhtPeers, reader: SwarmReader) -> None:
    await read(reader)
    p2pd = p2pd_pid(node_of(reader))
    peers.freeze()
    try:
        reading = asyncio.create_task(reader.read())
        await asyncio.wait([reading], timeout=0.1)
        async with asyncio.timeout(30):
            await reader.close()
            with pytest.raises(SwarmUnreachable):
                await reading
    finally:
        peers.thaw()
    assert not process_runs(p2pd)
    with pytest.raises(SwarmUnreachable, match="closed"):
        await reader.read()
    assert reader.own_peer_id is None


async def test_a_process_killed_while_it_reads_leaves_no_p2pd(peers: DhtPeers) -> None:
    program = f"""if True:
        import asyncio
        from swarmkeel.swarm.reader import SwarmReader
        async def main():
            reader = SwarmReader({peers.initial_peers!r}, "m", 40)
            await reader.open()
            print(reader._node._p2p._child.pid, flush=True)
            while True:
                await reader.read()
        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE)
    assert process.stdout is not None
    try:
        lines = [await process.stdout.readline() for _ in range(3)]  # the pid is among the log
        p2pd = next(int(line) for line in lines if line.strip().isdigit())
        assert process_runs(p2pd)
    finally:
        process.kill()
        await process.wait()
    await wait_until(lambda: not process_runs(p2pd))


async def test_a_node_that_starts_more_slowly_than_a_reading_may_take_is_there_for_a_later_one(
    peers: DhtPeers, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, open_node, begun = asyncio.Event(), DhtNode.open, 0

    async def open_slowly(*args: Any, **options: Any) -> DhtNode:
        nonlocal begun
        begun += 1
        await goes_on.wait()
        return await open_node(*args, **options)

    monkeypatch.setattr(DhtNode, "open", open_slowly)
    reader = SwarmReader(peers.initial_peers, "m", BLOCKS, read_timeout=0.1)
    for _ in range(3):
        with pytest.raises(SwarmUnreachable):
            await read(reader)
    goes_on.set()
    await wait_until(lambda: reader.node is not None)
    reader._read_timeout = 30
    assert readings(await read(reader)) == WHOLE
    assert begun == 1
    await reader.close()


async def test_a_node_that_cannot_be_started_in_time_says_why_at_the_next_reading(
    peers: DhtPeers, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = asyncio.Event()

    async def fail_slowly(*_: Any, **__: Any) -> DhtNode:
        await fails.wait()
        raise DhtNodeError("no p2pd here", "install it")

    monkeypatch.setattr(DhtNode, "open", fail_slowly)
    reader = SwarmReader(peers.initial_peers, "m", BLOCKS, read_timeout=0.1)
    with pytest.raises(SwarmUnreachable):
        await read(reader)
    fails.set()
    reader._read_timeout = 30
    with pytest.raises(DhtNodeError, match="no p2pd here"):
        await read(reader)
    await reader.close()


async def test_a_reader_is_closed_although_its_node_is_still_starting(
    peers: DhtPeers, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, cut_off = asyncio.Event(), asyncio.Event()

    async def never_open(*_: Any, **__: Any) -> DhtNode:
        begun.set()
        try:
            return await asyncio.Future()
        finally:
            cut_off.set()

    monkeypatch.setattr(DhtNode, "open", never_open)
    reader = SwarmReader(peers.initial_peers, "m", BLOCKS)
    reading = asyncio.create_task(read(reader))
    await begun.wait()
    await reader.close()
    assert cut_off.is_set()
    with pytest.raises(SwarmUnreachable, match="closed"):
        await reading
