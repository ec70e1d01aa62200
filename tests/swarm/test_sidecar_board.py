"""The board of the sidecars in a real DHT: what is told is read, what is junk is junk, what is lost is empty."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from swarmkeel.swarm.dht_codec import RawRecord, encode_value
from swarmkeel.swarm.dht_lookup import Found
from swarmkeel.swarm.failures import SwarmUnreachable
from swarmkeel.swarm.reader import SwarmReader
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.sidecar_board import MAX_SIDECARS, SidecarBoard, board_key
from swarmkeel.swarm.sidecar_record import MAX_RECORD_BYTES, BoardReading, sidecar_to_wire
from swarmkeel.swarm.span import Span
from tests.support.dht import DhtPeers, plant
from tests.support.shared_peers import beside_shared_peers

KEY = board_key("m")
CLAIM = Claim(Span(0, 1), Span(1, 2), 1000.0, 1100.0, 5.0)
MINE, OTHERS = Sidecar("QmMine", 5.0, 60.0, claim=CLAIM), Sidecar("QmYours", None, 90.0, shapes=((2, 3.0),))
SERVER = encode_value(ServerInfo(ServerState.ONLINE, 5.0, 0, 1).to_tuple())


pytestmark = beside_shared_peers


@pytest.fixture
def peers(shared_peers: DhtPeers) -> DhtPeers:
    plant(shared_peers.nodes, "m.0", "QmServer", SERVER, time.time() + 600)
    return shared_peers


@pytest_asyncio.fixture(loop_scope="session")
async def reader(peers: DhtPeers, tmp_path: Path) -> AsyncIterator[SwarmReader]:
    reader = SwarmReader(peers.initial_peers, "m", 1, identity_path=tmp_path / "key")
    await reader.open()
    yield reader
    await reader.close()


async def look(reader: SwarmReader, board: SidecarBoard | None = None) -> BoardReading:
    """Read the board together with the swarm."""
    board = board or SidecarBoard("m")
    snapshot, found = await reader.read_beside([board.key])
    assert list(snapshot.blocks[0].servers) == ["QmServer"]
    return await board.read(found[board.key], ["QmServer"])


async def test_the_boards_key_is_the_key_of_no_models_block() -> None:
    assert KEY == "_swarmkeel.m.sidecars"
    assert KEY.count(".") == 2


async def test_sidecars_read_what_others_tell_together_with_the_swarm(peers: DhtPeers, reader: SwarmReader) -> None:
    assert await look(reader) == BoardReading({}, {}, readable=True)
    assert await SidecarBoard("m").publish(peers.node(1), OTHERS, 60)
    assert await SidecarBoard("m").publish(reader.node, MINE, 60)
    assert await look(reader) == BoardReading({"QmMine": MINE, "QmYours": OTHERS}, {}, readable=True)


async def test_each_update_replaces_the_one_before_even_one_with_a_shorter_life(reader: SwarmReader) -> None:
    board = SidecarBoard("m")
    bare = Sidecar("QmMine", None, 1.0)
    assert await board.publish(reader.node, MINE, 600)
    assert await board.publish(reader.node, bare, 5)
    assert (await look(reader)).sidecars == {"QmMine": bare}
    assert await board.publish(reader.node, MINE, 600)
    assert (await look(reader)).sidecars == {"QmMine": MINE}


async def test_a_new_process_replaces_what_the_former_one_left(reader: SwarmReader) -> None:
    assert await SidecarBoard("m").publish(reader.node, MINE, 600)
    board = SidecarBoard("m")
    assert (await look(reader, board)).sidecars == {"QmMine": MINE}
    bare = Sidecar("QmMine", None, 1.0)
    assert await board.publish(reader.node, bare, 60)
    assert (await look(reader, board)).sidecars == {"QmMine": bare}


async def test_a_withdrawn_record_is_gone_for_those_who_remember_it_too(reader: SwarmReader) -> None:
    board = SidecarBoard("m")
    assert await board.withdraw(reader.node, "QmMine")
    assert await board.publish(reader.node, MINE, 600)
    assert (await look(reader)).sidecars == {"QmMine": MINE}
    assert await board.withdraw(reader.node, "QmMine")
    assert await look(reader) == BoardReading({}, {}, readable=True)
    assert await board.publish(reader.node, MINE, 60)
    assert (await look(reader)).sidecars == {"QmMine": MINE}


async def test_one_lost_reading_forgets_nobody(peers: DhtPeers, reader: SwarmReader) -> None:
    assert await SidecarBoard("m").publish(reader.node, MINE, 600)
    assert (await look(reader)).sidecars == {"QmMine": MINE}
    await peers.kill_all()
    with pytest.raises(SwarmUnreachable):
        await look(reader)
    await peers.restart_all()
    # The peers have lost all records, of the swarm too.
    assert (await look(reader)).sidecars == {"QmMine": MINE}
    fresh = SwarmReader(peers.initial_peers, "m", 1)
    try:
        snapshot, found = await fresh.read_beside([KEY])
        assert not snapshot.blocks[0].servers
        assert not found[KEY].records
    finally:
        await fresh.close()


DEEP = b"\x91" * 5000 + b"\xc0"
NESTED_TUPLES = b"\xc0"
for _ in range(150):
    NESTED_TUPLES = (
        bytes([0xC7, len(NESTED_TUPLES) + 1, 0x40, 0x91]) + NESTED_TUPLES
        if len(NESTED_TUPLES) < 250
        else (bytes([0xC8, *(len(NESTED_TUPLES) + 1).to_bytes(2, "big"), 0x40, 0x91]) + NESTED_TUPLES)
    )


HOSTILE: tuple[tuple[Any, bytes, str], ...] = (
    ("QmLiar", b"\xc1", "unreadable"),
    ("QmLiar", b"", "unreadable"),
    ("QmLiar", b"\x91" * 900 + b"\xc0", "unreadable"),
    ("QmLiar", NESTED_TUPLES, "unreadable"),
    ("QmLiar", DEEP, "too_large"),
    ("QmLiar", encode_value("x" * MAX_RECORD_BYTES), "too_large"),
    ("QmLiar", encode_value(7), "shape"),
    ("QmLiar", encode_value((2, {})), "version"),
    ("no base58!", encode_value(sidecar_to_wire(OTHERS)), "peer_id"),
    ("", encode_value(sidecar_to_wire(OTHERS)), "peer_id"),
    ("QmYours ", encode_value(sidecar_to_wire(OTHERS)), "peer_id"),
    (b"QmYours", encode_value(sidecar_to_wire(OTHERS)), "peer_id"),
    (7, encode_value(sidecar_to_wire(OTHERS)), "peer_id"),
)


async def test_a_hostile_record_costs_only_itself(peers: DhtPeers, reader: SwarmReader) -> None:
    for number, (subkey, value, reason) in enumerate(HOSTILE):
        board = SidecarBoard(f"m{number}")
        plant(peers.nodes, board.key, "QmYours", encode_value(sidecar_to_wire(OTHERS)), time.time() + 500)
        plant(peers.nodes, board.key, subkey, value, time.time() + 600)
        expected = BoardReading({"QmYours": OTHERS}, {reason: 1}, readable=True)
        assert await look(reader, board) == expected, (subkey, value[:40])


async def test_a_plain_value_in_the_place_of_the_board_makes_it_empty_and_unreadable(
    peers: DhtPeers, reader: SwarmReader
) -> None:
    plant(peers.nodes, KEY, None, encode_value("mine now"), time.time() + 900)
    assert await look(reader) == BoardReading({}, {}, readable=False)
    board = SidecarBoard("m")
    assert not await board.publish(reader.node, MINE, 60)


async def test_who_holds_our_place_for_years_is_not_outbid(peers: DhtPeers, reader: SwarmReader) -> None:
    plant(peers.nodes, KEY, "QmMine", encode_value(sidecar_to_wire(MINE)), time.time() + 1e9)
    board = SidecarBoard("m")
    await look(reader, board)
    assert not await board.publish(reader.node, Sidecar("QmMine", None, 1.0), 60)


async def test_without_a_node_or_peers_nothing_is_published_and_nothing_raised(
    peers: DhtPeers, reader: SwarmReader
) -> None:
    board = SidecarBoard("m", timeout=5)
    assert not await board.publish(None, MINE, 60)
    await peers.kill_all()
    assert not await board.publish(reader.node, MINE, 60)


async def test_of_too_many_records_those_of_servers_that_are_there_are_read() -> None:
    value = encode_value(sidecar_to_wire(OTHERS))
    names = [f"Qm{index:05}".replace("0", "o") for index in range(MAX_SIDECARS + 10)]
    records: dict[object, RawRecord] = {name: RawRecord(name, value, time.time() + 60) for name in names}
    reading = await SidecarBoard("m").read(Found(records, {}, conclusive=True, nearest=()), names[-10:])
    assert set(names[-10:]) < set(reading.sidecars)
    assert len(reading.sidecars) == MAX_SIDECARS
    assert reading.rejected == {"no_room": 10}
