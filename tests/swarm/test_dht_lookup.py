from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID

from swarmkeel.swarm import dht_lookup
from swarmkeel.swarm.dht_lookup import Lookup
from swarmkeel.swarm.dht_messages import Answer
from swarmkeel.swarm.dht_node import DhtNode
from tests.support.dht import DhtPeers


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
