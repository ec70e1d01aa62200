from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID

from swarmkeel.swarm import dht_lookup
from swarmkeel.swarm.dht_codec import RawRecord
from swarmkeel.swarm.dht_lookup import Lookup
from swarmkeel.swarm.dht_messages import Answer
from swarmkeel.swarm.dht_node import DhtNode
from tests.support.dht import DhtPeers, plant
from tests.support.hostile import RECORD


@pytest.mark.parametrize("by", ["its own deadline", "its caller"])
async def test_an_answer_that_outruns_the_end_of_a_search_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    # One question at a time, so that there is a next one to put when an answer comes.
    monkeypatch.setattr(dht_lookup, "_QUESTIONS_AT_ONCE", 1)
    monkeypatch.setattr(dht_lookup, "_KEYS_PER_QUESTION", 1)
    asked = asyncio.Event()

    async def answer_when_cancelled(_self: DhtNode, _peer: PeerID, keys: Sequence[DHTID]) -> list[Answer]:
        asked.set()
        # As asyncio.wait_for of Python 3.11 does with an answer that is just there when it is cancelled.
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return [Answer(readable=True, records=(), malformed=0, neighbours=()) for _ in keys]
        raise AssertionError

    async with DhtPeers(3) as peers:
        node = await DhtNode.open(peers.initial_peers)
        monkeypatch.setattr(DhtNode, "ask", answer_when_cancelled)
        try:
            keys = ["m.0", "m.1", "m.2"]
            if by == "its own deadline":
                found = await Lookup(node).find(keys, seconds=0.2)
                assert not any(found[key].conclusive for key in keys)
            else:
                finding = asyncio.create_task(Lookup(node).find(keys, seconds=60))
                await asked.wait()
                finding.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await finding
        finally:
            await node.close()


async def test_a_key_that_is_flooded_leaves_room_for_the_others_and_counts_as_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dht_lookup, "_MAX_BYTES", 400_000)
    end = time.time() + 600
    honest = RawRecord("QmHonest", RECORD, end)
    async with DhtPeers(1) as peers:
        for number in range(2000):
            plant(peers.nodes, "m.0", f"x{number}", b"", end)
        for key in ("m.1", "m.2"):
            plant(peers.nodes, key, honest.subkey, honest.value, end)
        node = await DhtNode.open(peers.initial_peers)
        try:
            found = await Lookup(node).find(["m.0", "m.1", "m.2"], seconds=60)
        finally:
            await node.close()
    kept = found["m.0"].records.values()
    assert found["m.0"].rejected["no_room"] == 2000 - len(kept)
    assert 100_000 < sum(record.size for record in kept) < 300_000  # its own third of one half, and the other half
    assert (found["m.0"].overflowed, found["m.0"].conclusive) == (True, False)
    for key in ("m.1", "m.2"):
        assert (dict(found[key].records), found[key].conclusive) == ({"QmHonest": honest}, True)
