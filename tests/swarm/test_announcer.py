from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from swarmkeel.swarm.announcer import Announcer, AnnounceResult
from swarmkeel.swarm.dht_codec import decode_value, encode_value
from swarmkeel.swarm.dht_lookup import Lookup
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.record import ServerInfo, ServerState
from tests.support.dht import DhtPeers, p2pd_pid, plant, wait_until
from tests.support.shared_peers import beside_shared_peers

ONLINE = ServerInfo(ServerState.ONLINE, 1.0, 0, 4)
OFFLINE = ServerInfo(ServerState.OFFLINE, 1.0, 0, 4)
KEYS = [f"m.{block}" for block in range(4)]


pytestmark = beside_shared_peers


@pytest.fixture
def peers(shared_peers: DhtPeers) -> DhtPeers:
    return shared_peers


@pytest_asyncio.fixture(loop_scope="session")
async def client(peers: DhtPeers) -> AsyncIterator[DhtNode]:
    node = await DhtNode.open(peers.initial_peers[:1])
    yield node
    await node.close()


async def stored(node: DhtNode, owner: DhtNode) -> list[tuple[float, object]]:
    """Give expiration and value of what others hold of this server, block by block."""
    found = await Lookup(node).find(KEYS, seconds=20)
    assert all(found[key].conclusive for key in KEYS)
    held = []
    for key in KEYS:
        record = found[key].records[owner.peer_id]
        held.append((record.expiration, decode_value(record.value)))
    return held


@pytest.mark.parametrize("client_mode", [True, False])
async def test_others_find_what_is_announced(peers: DhtPeers, client_mode: bool) -> None:  # noqa: FBT001 - a parameter of the test
    server = await DhtNode.open(peers.initial_peers[:1], client_mode=client_mode)
    try:
        before = time.time()
        result = await Announcer(server, "m").announce(ONLINE, range(4), 60)

        assert result == AnnounceResult(asked=4, kept=4, refused=0)
        assert result.complete
        for expiration, value in await stored(peers.node(1), server):
            assert before + 60 <= expiration <= time.time() + 60
            assert value == ONLINE.to_tuple()
    finally:
        await server.close()


async def test_a_later_announcement_replaces_the_earlier_however_short(client: DhtNode, peers: DhtPeers) -> None:
    announcer = Announcer(client, "m")
    await announcer.announce(ONLINE, range(4), 600)
    first = await stored(peers.node(1), client)
    assert (await announcer.announce(OFFLINE, range(4), 5)).complete
    second = await stored(peers.node(1), client)

    assert [value for _, value in second] == [OFFLINE.to_tuple()] * 4
    assert all(new > old for (new, _), (old, _) in zip(second, first, strict=True))


async def test_each_block_has_its_own_time(client: DhtNode, peers: DhtPeers) -> None:
    announcer = Announcer(client, "m")
    await announcer.announce(ONLINE, range(2), 600)
    before = time.time()
    await announcer.announce(ONLINE, range(4), 5)

    expirations = [expiration for expiration, _ in await stored(peers.node(1), client)]
    assert min(expirations[:2]) > before + 500
    assert max(expirations[2:]) < before + 100


async def test_a_record_that_cannot_be_replaced_shows(client: DhtNode, peers: DhtPeers) -> None:
    """There is no ownership: anyone may store under a server's name, and for as long as they like."""
    plant(peers.nodes, "m.0", client.peer_id, encode_value(OFFLINE.to_tuple()), time.time() + 1e9)
    result = await Announcer(client, "m").announce(ONLINE, range(4), 60)

    assert result == AnnounceResult(asked=4, kept=3, refused=1)
    assert not result.complete


async def test_a_plain_value_in_the_way_is_replaced(client: DhtNode, peers: DhtPeers) -> None:
    plant(peers.nodes, "m.0", None, b"\xc1", time.time() + 30)

    assert (await Announcer(client, "m").announce(ONLINE, range(4), 60)).complete
    assert len(await stored(peers.node(1), client)) == 4


async def test_nobody_keeps_anything_while_all_others_are_gone(client: DhtNode, peers: DhtPeers) -> None:
    announcer = Announcer(client, "m")
    await announcer.announce(ONLINE, range(4), 60)
    await peers.kill_all()
    for _ in range(2):
        assert await announcer.announce(ONLINE, range(4), 60) == AnnounceResult(asked=4, kept=0, refused=0)
    await peers.restart_all()
    async with asyncio.timeout(120):  # p2pd leaves an address that failed alone for a while
        while not (await announcer.announce(ONLINE, range(4), 60)).complete:
            await asyncio.sleep(0.5)
    assert len(await stored(peers.node(1), client)) == 4


async def test_the_first_server_of_a_swarm_keeps_its_own_records() -> None:
    server = await DhtNode.open([], client_mode=False)
    reader = await DhtNode.open(server.visible_maddrs())
    try:
        assert (await Announcer(server, "m").announce(ONLINE, range(4), 60)).complete
        assert len(await stored(reader, server)) == 4
    finally:
        await reader.close()
        await server.close()


async def test_a_server_that_is_cut_off_is_not_the_whole_swarm(peers: DhtPeers) -> None:
    server = await DhtNode.open(peers.initial_peers, client_mode=False)
    try:
        await peers.kill_all()
        for _ in range(2):
            assert (await Announcer(server, "m").announce(ONLINE, range(4), 60)).kept == 0
    finally:
        await server.close()


async def test_the_deadline_holds_while_all_others_hang(client: DhtNode, peers: DhtPeers) -> None:
    announcer = Announcer(client, "m", timeout=0.5)
    peers.freeze()
    try:
        async with asyncio.timeout(10):
            assert (await announcer.announce(ONLINE, range(4), 60)).kept == 0
    finally:
        peers.thaw()


async def test_some_that_hang_do_not_matter(client: DhtNode, peers: DhtPeers) -> None:
    announcer = Announcer(client, "m")
    peers.freeze(2)
    try:
        assert (await announcer.announce(ONLINE, range(4), 60)).complete
    finally:
        peers.thaw(2)


async def test_nothing_is_kept_without_p2pd(peers: DhtPeers) -> None:
    server = await DhtNode.open(peers.initial_peers, client_mode=False)
    try:
        os.kill(p2pd_pid(server), signal.SIGKILL)
        await wait_until(lambda: not server.is_alive)
        async with asyncio.timeout(30):
            assert (await Announcer(server, "m").announce(ONLINE, range(4), 60)).kept == 0
    finally:
        await server.close()


async def test_subkeys_that_cannot_be_ordered_do_not_break_the_own_storage(peers: DhtPeers) -> None:
    server = await DhtNode.open(peers.initial_peers, client_mode=False)
    try:
        announcer = Announcer(server, "m")
        moment = time.time() + 60
        plant([server], "m.0", 7, b"\x01", moment)
        announcer._expirations["m.0"] = moment - 1e-3
        assert (await announcer.announce(ONLINE, [0], 0)).complete
    finally:
        await server.close()
