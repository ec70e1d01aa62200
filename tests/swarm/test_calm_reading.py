"""Readings that ask fewer peers: cheaper, and nothing that was seen once is missed."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hivemind.dht.routing import DHTID

from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.reader import _THOROUGH_EVERY, SwarmReader
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.snapshot import SwarmSnapshot
from tests.support.dht import DhtPeers, plant

BLOCKS = 4
OLD, NEW = "QmA", "QmB"


def nearest(peers: DhtPeers, key: str) -> list[DhtNode]:
    key_id = DHTID.generate(key)
    nodes = [peers.node(index) for index in range(len(peers.nodes))]
    return sorted(nodes, key=lambda node: key_id.xor_distance(node.hivemind_node.node_id))


def announced(nodes: Sequence[DhtNode], key: str, peer_id: str, state: ServerState, lifetime: float) -> None:
    value = encode_value(ServerInfo(state, 5.0, 0, BLOCKS).to_tuple())
    plant(nodes, key, peer_id, value, time.time() + lifetime)


def servers(snapshot: SwarmSnapshot) -> list[dict[str, ServerState]]:
    return [{peer: info.state for peer, info in block.servers.items()} for block in snapshot.blocks]


async def test_calm_readings_ask_less_and_miss_nothing() -> None:
    keys = [f"m.{block}" for block in range(BLOCKS)]
    online = {OLD: ServerState.ONLINE}
    async with DhtPeers(8) as peers:
        holders = {key: nearest(peers, key)[:5] for key in keys}
        for key in keys:
            announced(holders[key], key, OLD, ServerState.ONLINE, 600)
        reader = SwarmReader(peers.initial_peers, "m", BLOCKS)

        async def read() -> tuple[list[dict[str, ServerState]], int]:
            before = reader.traffic.finds, reader.traffic.bytes_received
            snapshot = await reader.read(thorough=False)
            assert all(block.reading.value == "ok" for block in snapshot.blocks)
            assert reader.traffic.bytes_received > before[1]
            return servers(snapshot), reader.traffic.finds - before[0]

        try:
            seen, first = await read()
            assert seen == [online] * BLOCKS
            seen, calm = await read()
            assert (seen, calm < first) == ([online] * BLOCKS, True)

            # It goes: what most holders say is seen at once, though the others have lost contact.
            for key in keys:
                announced(holders[key][:3], key, OLD, ServerState.OFFLINE, 700)
            seen, _ = await read()
            assert seen == [{OLD: ServerState.OFFLINE}] * BLOCKS

            # A new one that only those hold who are not asked: a thorough reading sees it, and none loses it again.
            for key in keys:
                announced(holders[key][3:], key, NEW, ServerState.ONLINE, 600)
            past = [(await read())[0] for _ in range(_THOROUGH_EVERY + 1)]
            both = {OLD: ServerState.OFFLINE, NEW: ServerState.ONLINE}
            assert past[-2:] == [[both] * BLOCKS] * 2

            # Its record is renewed, and again only there.
            for key in keys:
                announced(holders[key][3:], key, NEW, ServerState.JOINING, 800)
            seen, renewed = await read()
            assert seen[0][NEW] is ServerState.JOINING
            assert renewed > calm
        finally:
            await reader.close()
