from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from swarmkeel.swarm.announcer import Announcer
from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.reader import SwarmReader
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.snapshot import KeyReading, SwarmSnapshot
from tests.support.dht import DhtPeers, plant
from tests.support.shared_peers import beside_shared_peers

OK, ABSENT = KeyReading.OK, KeyReading.ABSENT


pytestmark = beside_shared_peers


@pytest.fixture
def peers(shared_peers: DhtPeers) -> DhtPeers:
    return shared_peers


async def announce(peers: DhtPeers, info: ServerInfo, blocks: Iterable[int], lifetime: float = 600.0) -> str:
    """Announce a server and let it vanish without goodbye."""
    node = await DhtNode.open(peers.initial_peers)
    try:
        assert (await Announcer(node, "m").announce(info, blocks, lifetime)).complete
    finally:
        await node.close()
    return node.peer_id


def readings(snapshot: SwarmSnapshot) -> list[KeyReading]:
    return [block.reading for block in snapshot.blocks]


async def test_it_reads_what_servers_announce(peers: DhtPeers, tmp_path: Path) -> None:
    whole = ServerInfo(ServerState.ONLINE, 12.5, 0, 3, adapters=("a",), next_pings={"Qm1": 0.5})
    joining = ServerInfo(ServerState.JOINING, 1.0, 2, 4)
    first, second = await announce(peers, whole, range(3)), await announce(peers, joining, range(2, 4))
    # It knows one peer; the others it learns of.
    reader = SwarmReader(peers.initial_peers[:1], "m", 5, identity_path=tmp_path / "key", clock=lambda: 123.0)
    try:
        with capture_logs() as logs:
            snapshot = await reader.read()
        servers = [dict(block.servers) for block in snapshot.blocks]

        assert servers == [{first: whole}, {first: whole}, {first: whole, second: joining}, {second: joining}, {}]
        assert readings(snapshot) == [OK, OK, OK, OK, ABSENT]
        assert snapshot.read_at == 123.0
        assert snapshot.rejected == {}
        assert reader.dht_peers == 3
        assert [log["event"] for log in logs] == ["dht_joined", "snapshot_read"]
        assert logs[0]["peer_id"] == reader.own_peer_id
        assert logs[1]["log_level"] == "debug"
        assert {name: logs[1][name] for name in ("ok", "absent", "unknown", "records")} == {
            "ok": 4,
            "absent": 1,
            "unknown": 0,
            "records": 5,
        }
    finally:
        await reader.close()
    assert reader.dht_peers == 0
    assert reader.own_peer_id is None


async def test_it_reads_a_stretch_of_the_model(peers: DhtPeers) -> None:
    peer_id = await announce(peers, ServerInfo(ServerState.ONLINE, 1.0, 0, 9), range(9))
    reader = SwarmReader(peers.initial_peers, "m", 3, first_block=7)
    try:
        snapshot = await reader.read()
    finally:
        await reader.close()

    assert [block.uid for block in snapshot.blocks] == ["m.7", "m.8", "m.9"]
    assert [list(block.servers) for block in snapshot.blocks] == [[peer_id], [peer_id], []]


async def test_a_server_that_dies_silently_vanishes_when_its_record_ends(peers: DhtPeers) -> None:
    reader = SwarmReader(peers.initial_peers, "m", 2)
    try:
        await reader.open()
        await announce(peers, ServerInfo(ServerState.ONLINE, 1.0, 0, 1), [0], lifetime=3.0)
        seen = await reader.read()
        assert readings(seen) == [OK, ABSENT]
        async with asyncio.timeout(60):
            while (await reader.read()).blocks[0].servers:
                await asyncio.sleep(0.1)
        assert readings(await reader.read()) == [ABSENT, ABSENT]
    finally:
        await reader.close()


async def test_a_server_whose_record_is_not_renewed_in_time_is_overdue_until_it_is(peers: DhtPeers) -> None:
    node = await DhtNode.open(peers.initial_peers)
    reader = SwarmReader(peers.initial_peers, "m", 2)
    announcer = Announcer(node, "m")
    online = ServerInfo(ServerState.ONLINE, 1.0, 0, 2)
    try:
        await announcer.announce(online, range(2), 20.0)
        assert (await reader.read()).overdue == frozenset()
        async with asyncio.timeout(60):
            while not (seen := await reader.read()).overdue:
                await asyncio.sleep(0.2)
        assert seen.overdue == {node.peer_id}
        assert node.peer_id in seen.blocks[1].servers
        await announcer.announce(online, range(2), 20.0)
        assert (await reader.read()).overdue == frozenset()
    finally:
        await reader.close()
        await node.close()


async def test_what_a_server_announces_later_counts(peers: DhtPeers) -> None:
    node = await DhtNode.open(peers.initial_peers)
    reader = SwarmReader(peers.initial_peers, "m", 1)
    try:
        announcer = Announcer(node, "m")
        for state in (ServerState.JOINING, ServerState.ONLINE, ServerState.OFFLINE):
            await announcer.announce(ServerInfo(state, 1.0, 0, 1), [0], 60)
            snapshot = await reader.read()
            assert {peer: info.state for peer, info in snapshot.blocks[0].servers.items()} == {node.peer_id: state}
    finally:
        await reader.close()
        await node.close()


async def test_of_records_that_differ_from_peer_to_peer_the_latest_counts(peers: DhtPeers) -> None:
    later = time.time() + 600
    for node, throughput, expiration in zip(peers.nodes, (1.0, 2.0, 3.0), (later, later + 2, later + 1), strict=True):
        info = ServerInfo(ServerState.ONLINE, throughput, 0, 1)
        plant([node], "m.0", "QmServer", encode_value(info.to_tuple()), expiration)
    reader = SwarmReader(peers.initial_peers, "m", 1)
    try:
        snapshot = await reader.read()
    finally:
        await reader.close()

    assert {peer: info.throughput for peer, info in snapshot.blocks[0].servers.items()} == {"QmServer": 2.0}


async def test_readings_at_the_same_time_share_one_node(peers: DhtPeers, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = itertools.count()
    open_node = DhtNode.open

    async def count(*args: object, **kwargs: object) -> DhtNode:
        next(opened)
        return await open_node(*args, **kwargs)  # type: ignore[arg-type] # handed on as given

    monkeypatch.setattr(DhtNode, "open", count)
    reader = SwarmReader(peers.initial_peers, "m", 4)
    try:
        snapshots = await asyncio.gather(reader.read(), reader.open(), reader.read())
    finally:
        await reader.close()

    assert next(opened) == 1
    assert [readings(snapshot) for snapshot in snapshots if snapshot] == [[ABSENT] * 4] * 2


async def test_a_large_swarm_is_read_whole(peers: DhtPeers) -> None:
    info = ServerInfo(
        ServerState.ONLINE, 10.0, 0, 80, public_name="x" * 300, next_pings={f"Qm{i}": 0.1 for i in range(9)}
    )
    value = encode_value(info.to_tuple())
    for block in range(80):
        for server in range(50):
            plant(peers.nodes, f"m.{block}", f"Qm{server + 111:x}".replace("0", "z"), value, time.time() + 600)
    reader = SwarmReader(peers.initial_peers, "m", 80, read_timeout=60)
    try:
        snapshot = await reader.read()
    finally:
        await reader.close()

    assert snapshot.quality(time.time()).keys_answered_ratio == 1
    assert {len(block.servers) for block in snapshot.blocks} == {50}
    assert all(found == info for block in snapshot.blocks for found in block.servers.values())
