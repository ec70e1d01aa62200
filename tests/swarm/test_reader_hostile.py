"""What anyone may write into a public DHT, and what peers may answer: no reading crashes, hangs or believes it."""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from collections.abc import AsyncIterator
from subprocess import PIPE
from typing import Any

import pytest
import pytest_asyncio
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID
from hivemind.utils import timed_storage

from swarmkeel.swarm import reader as swarm_reader
from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.reader import SwarmReader
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.snapshot import KeyReading, SwarmSnapshot
from tests.support.dht import DhtPeers, plant
from tests.support.hostile import LIES, RECORD, SUBKEYS, VALUES, Liar, nested_tuples
from tests.support.shared_peers import beside_shared_peers

OK, ABSENT, UNKNOWN = KeyReading.OK, KeyReading.ABSENT, KeyReading.UNKNOWN
HONEST = "QmHonest"
INFO = ServerInfo(ServerState.ONLINE, 5.0, 0, 30)


pytestmark = beside_shared_peers


@pytest.fixture
def peers(shared_peers: DhtPeers) -> DhtPeers:
    return shared_peers


@pytest_asyncio.fixture(loop_scope="session")
async def lying_peers() -> AsyncIterator[DhtPeers]:
    """For tests that make liars of them, which they remain."""
    async with DhtPeers(3) as peers:
        yield peers


async def read(peers: DhtPeers, total_blocks: int, *, seconds: float = 15.0) -> SwarmSnapshot:
    reader = SwarmReader(peers.initial_peers, "m", total_blocks, read_timeout=seconds)
    try:
        async with asyncio.timeout(seconds + 30):
            snapshot = await reader.read()
    finally:
        await reader.close()
    repr(snapshot)  # nothing in it may be too deep to print
    return snapshot


def plant_honest(peers: DhtPeers, *blocks: int) -> None:
    for block in blocks:
        plant(peers.nodes, f"m.{block}", HONEST, RECORD, time.time() + 600)


async def test_the_bomb_leaves_a_reader_alive(peers: DhtPeers) -> None:
    """The reader is a process of its own here: what would end it would end the tests too."""
    plant_honest(peers, 0, 1)
    plant(peers.nodes, "m.0", "QmEvi1", nested_tuples(200), time.time() + 600)
    plant(peers.nodes, "m.0", "QmEvi2", nested_tuples(5000), time.time() + 600)
    program = f"""if True:
        import asyncio, json
        from swarmkeel.swarm.reader import SwarmReader
        async def main():
            reader = SwarmReader({peers.initial_peers!r}, "m", 2)
            snapshot = await reader.read()
            await reader.close()
            print(json.dumps([[list(block.servers) for block in snapshot.blocks], dict(snapshot.rejected)]))
        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE)
    async with asyncio.timeout(60):
        output, _ = await process.communicate()

    assert process.returncode == 0
    assert json.loads(output.splitlines()[-1]) == [[[HONEST], [HONEST]], {"unreadable": 2}]


async def test_a_hostile_value_costs_no_record_beside_it(peers: DhtPeers) -> None:
    expected: dict[str, int] = {}
    for block, (value, reason) in enumerate(VALUES.values()):
        plant_honest(peers, block)
        plant(peers.nodes, f"m.{block}", "QmEvi1", value, time.time() + 600)
        expected[reason] = expected.get(reason, 0) + 1
    snapshot = await read(peers, len(VALUES) + 1)

    assert [block.reading for block in snapshot.blocks] == [OK] * len(VALUES) + [ABSENT]
    assert all(dict(block.servers) == {HONEST: INFO} for block in snapshot.blocks[:-1])
    assert snapshot.rejected == expected


async def test_a_hostile_subkey_costs_no_record_beside_it(peers: DhtPeers) -> None:
    for block, subkey in enumerate(SUBKEYS.values()):
        plant_honest(peers, block)
        plant(peers.nodes, f"m.{block}", subkey, RECORD, time.time() + 500)
    snapshot = await read(peers, len(SUBKEYS))

    assert all(HONEST in block.servers for block in snapshot.blocks)
    assert snapshot.rejected["peer_id"] >= 4  # empty bytes are base58 of nothing, which Petals takes


async def test_subkeys_that_cannot_be_ordered_cost_nothing(peers: DhtPeers) -> None:
    """hivemind's search fails as a whole on these: two holders, one expiration, subkeys of different types."""
    later = time.time() + 600
    plant(peers.nodes[:1], "m.0", 7, RECORD, later)
    plant(peers.nodes[1:2], "m.0", "QmA", RECORD, later)
    plant(peers.nodes[2:], "m.0", b"QmB", RECORD, later)
    plant_honest(peers, 1)
    snapshot = await read(peers, 2)

    assert [set(block.servers) for block in snapshot.blocks] == [{"QmA", "QmB"}, {HONEST}]


async def test_keys_of_junk_alone_are_read_as_holding_no_server(peers: DhtPeers) -> None:
    plant(peers.nodes, "m.0", "QmEvi1", b"\xc1", time.time() + 600)
    snapshot = await read(peers, 1)

    assert snapshot.blocks[0].reading is OK
    assert not snapshot.blocks[0].servers
    assert snapshot.rejected == {"unreadable": 1}


async def test_a_plain_value_in_the_place_of_the_records_is_unknown_not_absent(peers: DhtPeers) -> None:
    """With the records gone nobody can say who served the block, and a hole would call everyone to it."""
    plant(peers.nodes, "m.0", None, RECORD, time.time() + 700)
    plant_honest(peers, 1)
    plant(peers.nodes[:1], "m.1", None, encode_value("plain"), math.inf)  # at one holder; forever
    snapshot = await read(peers, 3)

    assert [block.reading for block in snapshot.blocks] == [UNKNOWN, OK, ABSENT]
    assert set(snapshot.blocks[1].servers) == {HONEST}
    assert snapshot.rejected == {"not_a_dictionary": 2}


async def test_a_record_that_never_ends_does_not_hide_what_other_peers_hold(peers: DhtPeers) -> None:
    """hivemind's search for the latest ends at the first record that expires at infinity."""
    for index in range(3):
        plant(peers.nodes[index : index + 1], "m.0", "QmForever", RECORD, math.inf)
        plant(peers.nodes[index : index + 1], "m.0", f"QmHonest{index + 1}", RECORD, time.time() + 600)
    snapshot = await read(peers, 1)

    assert set(snapshot.blocks[0].servers) == {"QmForever", "QmHonest1", "QmHonest2", "QmHonest3"}


async def test_expirations_that_are_no_time_do_not_count(peers: DhtPeers) -> None:
    plant_honest(peers, 0)
    plant(peers.nodes, "m.0", "QmNaN", RECORD, math.nan)
    snapshot = await read(peers, 1)

    assert set(snapshot.blocks[0].servers) == {HONEST}
    assert snapshot.rejected == {"malformed": 1}


async def test_a_record_from_the_past_does_not_count(peers: DhtPeers, monkeypatch: pytest.MonkeyPatch) -> None:
    """An honest peer drops it; one that replays it, or whose clock is slow, does not."""
    plant_honest(peers, 0)
    plant(peers.nodes, "m.0", "QmPast", RECORD, time.time() + 1)
    now = time.time()
    monkeypatch.setattr(timed_storage, "get_dht_time", lambda: now)
    await asyncio.sleep(max(0.0, now + 1.1 - time.time()))
    snapshot = await read(peers, 1)

    assert set(snapshot.blocks[0].servers) == {HONEST}
    assert snapshot.rejected == {"expired": 1}


def say_all_but_value_errors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), ValueError):
        loop.default_exception_handler(context)


async def test_a_key_too_large_to_be_answered_costs_no_other_key(peers: DhtPeers) -> None:
    """Over 4 MiB a peer sends no answer at all, and to no question that has such a key in it."""
    # What hivemind does in the place of an answer is an error in a task of the peer's that nobody waits for: it is told
    # whenever the task is forgotten.
    asyncio.get_running_loop().set_exception_handler(say_all_but_value_errors)
    plant_honest(peers, *range(20))
    for part in range(5):
        plant(peers.nodes, "m.3", f"QmHuge{part + 1}", encode_value("x" * 1_000_000), time.time() + 600)
    reader = SwarmReader(peers.initial_peers, "m", 21, read_timeout=60.0)
    try:
        for _ in range(2):
            snapshot = await reader.read()
            assert [block.reading for block in snapshot.blocks] == [OK] * 3 + [UNKNOWN] + [OK] * 16 + [ABSENT]
            assert reader.dht_peers == 3
    finally:
        await reader.close()


async def test_a_peer_that_lies_costs_nothing_that_others_say(lying_peers: DhtPeers) -> None:
    plant_honest(lying_peers, *range(4))
    for lie, answer in LIES.items():
        lying_peers.node(0).hivemind_node.protocol.serializer = Liar(answer)
        snapshot = await read(lying_peers, 5)

        assert [block.reading for block in snapshot.blocks] == [OK] * 4 + [ABSENT], lie
        assert all(set(block.servers) == {HONEST} for block in snapshot.blocks[:4]), lie
        assert snapshot.rejected, lie


async def test_beyond_more_servers_than_anybody_has_no_block_is_looked_at(
    peers: DhtPeers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm_reader, "_MAX_SERVERS", 4)
    plant_honest(peers, *range(4))
    for block in (0, 1, 2):
        for number in range(2):
            plant(peers.nodes, f"m.{block}", f"QmMadeUp{'abc'[block]}{'de'[number]}", RECORD, time.time() + 600)
    snapshot = await read(peers, 4)

    # Two made up a block: with the honest one the second block makes five, and what comes after that stays unknown.
    assert [block.reading for block in snapshot.blocks] == [OK, OK, UNKNOWN, UNKNOWN]
    assert all(HONEST in block.servers for block in snapshot.blocks[:2])
    assert not any(block.servers for block in snapshot.blocks[2:])


async def test_a_peer_that_makes_up_peers_costs_no_records(lying_peers: DhtPeers) -> None:
    """Neighbours that nobody can reach and that seem nearer than all others: they might hold something."""
    plant_honest(lying_peers, *range(4))

    def make_up(key: DHTID, **_: object) -> list[tuple[DHTID, PeerID]]:
        names = [bytes.fromhex("1220") + random.randbytes(32) for _ in range(1000)]  # noqa: S311 - no secret
        return [(DHTID(int(key) ^ random.getrandbits(20)), PeerID(name)) for name in names]

    lying_peers.node(1).hivemind_node.protocol.routing_table.get_nearest_neighbors = make_up
    readings: set[KeyReading] = set()
    async with asyncio.timeout(60):
        # On a busy machine the liar may not be heard at once.
        while UNKNOWN not in readings:
            snapshot = await read(lying_peers, 5)
            assert [block.reading for block in snapshot.blocks[:4]] == [OK] * 4
            readings.add(snapshot.blocks[4].reading)


async def test_a_peer_that_answers_nothing_but_pings_is_left_alone(lying_peers: DhtPeers) -> None:
    plant_honest(lying_peers, *range(20))

    class Mute:
        def get(self, _: object) -> None:
            raise RuntimeError("no")

    lying_peers.node(2).hivemind_node.protocol.storage = Mute()
    snapshot = await read(lying_peers, 21, seconds=30.0)

    assert [block.reading for block in snapshot.blocks] == [OK] * 20 + [ABSENT]
