"""How a search chooses whom to ask for what, with peers in memory."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID

from swarmkeel.swarm.dht_codec import RawRecord
from swarmkeel.swarm.dht_lookup import Found, Lookup
from swarmkeel.swarm.dht_messages import Answer
from swarmkeel.swarm.dht_node import DhtNode

KEY = "m.0"
LIMIT = 4 * 1024 * 1024
ENDS = math.inf


class Peers:
    """Passes for a node that knows them all; the peers of a key in the order in which they are near it are `near`."""

    own_peer = PeerID(b"own")

    def __init__(self, count: int = 12) -> None:
        self.ids = {PeerID(f"peer-{number}".encode()): DHTID.generate(number) for number in range(count)}
        self.held: dict[tuple[PeerID, DHTID], dict[object, RawRecord]] = {}
        self.weights: dict[DHTID, int] = {}
        self.asked: list[tuple[PeerID, Sequence[DHTID]]] = []
        self.silent: set[PeerID] = set()
        self.refused = 0

    def near(self, key: str) -> list[PeerID]:
        key_id = DHTID.generate(key)
        return sorted(self.ids, key=lambda peer: key_id.xor_distance(self.ids[peer]))

    def hold(self, key: str, *records: RawRecord, at: Sequence[int] = range(5)) -> None:
        near = self.near(key)
        for place in at:
            held = self.held.setdefault((near[place], DHTID.generate(key)), {})
            held.update({record.subkey: record for record in records})

    def places_asked(self, key: str = KEY) -> list[int]:
        near = self.near(key)
        return sorted(near.index(peer) for peer, keys in self.asked if DHTID.generate(key) in keys)

    def nearest_known(self, _: DHTID) -> list[tuple[DHTID, PeerID]]:
        return [(node_id, peer) for peer, node_id in self.ids.items()]

    async def ask(self, peer: PeerID, keys: Sequence[DHTID]) -> list[Answer] | None:
        self.asked.append((peer, keys))
        await asyncio.sleep(0)
        held = [self.held.get((peer, key), {}) for key in keys]
        weights = [self.weights.get(key, 1000) if here else 100 for key, here in zip(keys, held, strict=True)]
        if sum(weights) > LIMIT:
            self.refused += 1
        if peer in self.silent or sum(weights) > LIMIT:
            return None
        return [
            Answer(readable=True, records=tuple(here.values()), malformed=0, neighbours=(), weight=weight)
            for here, weight in zip(held, weights, strict=True)
        ]

    async def ping(self, peer: PeerID) -> bool:
        return peer not in self.silent

    async def shun(self, peer: PeerID) -> None:
        pass

    def shuns(self, _: PeerID) -> bool:
        return False

    async def find(self, lookup: Lookup | None = None, **known: Any) -> Found:
        self.asked.clear()
        found = await (lookup or self.lookup()).find([KEY], seconds=60, **known)
        return found[KEY]

    def lookup(self) -> Lookup:
        return Lookup(cast(DhtNode, self))


A, B = RawRecord("a", b"1", 100.0), RawRecord("b", b"1", 100.0)
A_LATER = RawRecord("a", b"2", 101.0)


async def test_where_nothing_is_amiss_most_of_the_holders_are_enough() -> None:
    peers = Peers()
    peers.hold(KEY, A, B)
    found = await peers.find(known={KEY: ["a", "b"]})
    assert (dict(found.records), found.conclusive) == ({"a": A, "b": B}, True)
    assert peers.places_asked() == [0, 1, 2]


async def test_a_key_of_which_nothing_is_known_is_looked_for_at_all_who_may_hold_it() -> None:
    peers = Peers()
    peers.hold(KEY, A)
    assert (await peers.find(known={"another": ["a"]})).conclusive
    assert peers.places_asked() == list(range(10))


async def test_a_record_that_is_known_and_not_shown_is_looked_for() -> None:
    peers = Peers()
    peers.hold(KEY, A)
    peers.hold(KEY, B, at=[3])
    found = await peers.find(known={KEY: ["a", "b"]})
    assert dict(found.records) == {"a": A, "b": B}
    assert peers.places_asked() == list(range(10))


@pytest.mark.parametrize("known", [["a"], []])
async def test_where_holders_do_not_agree_all_are_asked(known: list[str]) -> None:
    peers = Peers()
    peers.hold(KEY, A)
    peers.hold(KEY, A_LATER, at=[2])
    newest = RawRecord("a", b"3", 102.0)
    peers.hold(KEY, newest, at=[4])
    assert dict((await peers.find(known={KEY: known})).records) == {"a": newest}


async def test_a_new_record_that_only_one_holder_shows_makes_all_be_asked() -> None:
    peers = Peers()
    peers.hold(KEY, A)
    peers.hold(KEY, B, at=[1])
    assert dict((await peers.find(known={KEY: ["a"]})).records) == {"a": A, "b": B}
    assert peers.places_asked() == list(range(10))


async def test_a_holder_that_lags_behind_is_outvoted_by_the_two_others() -> None:
    peers = Peers()
    peers.hold(KEY, A_LATER)
    peers.hold(KEY, A, at=[0])
    assert dict((await peers.find(known={KEY: ["a"]})).records) == {"a": A_LATER}
    assert peers.places_asked() == [0, 1, 2]


async def test_a_holder_that_is_silent_makes_all_be_asked() -> None:
    peers = Peers()
    peers.hold(KEY, A)
    peers.silent.add(peers.near(KEY)[1])
    found = await peers.find(known={KEY: ["a"]})
    assert found.conclusive
    assert peers.places_asked() == list(range(11))


async def test_keys_are_asked_for_together_as_far_as_one_answer_can_carry_them() -> None:
    peers, keys = Peers(), [f"m.{number}" for number in range(40)]
    for number, key in enumerate(keys):
        peers.hold(key, A)
        # From 100 KB to 2 MB, where 8 of the usual size would be too many already.
        peers.weights[DHTID.generate(key)] = 100_000 + 48_000 * number
    lookup = peers.lookup()
    for _ in range(3):
        found = await lookup.find(keys, seconds=60)
        assert all(found[key].conclusive for key in keys)
    assert peers.refused == 0

    light = Peers()
    for key in keys:
        light.hold(key, A)
    lookup = light.lookup()
    await lookup.find(keys, seconds=60)
    light.asked.clear()
    await lookup.find(keys, seconds=60)
    # 40 keys at 10 of 12 peers each, and none of them weighs anything.
    assert len(light.asked) <= 2 * len(light.ids)


async def test_a_key_that_has_grown_beyond_an_answer_costs_the_others_nothing_for_long() -> None:
    peers, keys = Peers(), [f"m.{number}" for number in range(8)]
    for key in keys:
        peers.hold(key, A)
    lookup = peers.lookup()
    await lookup.find(keys, seconds=60)
    peers.weights[DHTID.generate(keys[3])] = LIMIT + 1
    found = await lookup.find(keys, seconds=60)
    assert [key for key in keys if not found[key].conclusive] == [keys[3]]
    peers.asked.clear()
    found = await lookup.find(keys, seconds=60)
    assert [key for key in keys if not found[key].conclusive] == [keys[3]]
    alone = Counter(len(asked) for _, asked in peers.asked if DHTID.generate(keys[3]) in asked)
    assert set(alone) == {1}
    # And when it has shrunk again it goes with the others.
    peers.weights[DHTID.generate(keys[3])] = 1000
    await lookup.find(keys, seconds=60)
    peers.asked.clear()
    assert (await lookup.find(keys, seconds=60))[keys[3]].conclusive
    assert all(len(asked) > 1 for _, asked in peers.asked if DHTID.generate(keys[3]) in asked)
