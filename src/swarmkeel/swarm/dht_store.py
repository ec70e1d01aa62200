"""Stores one value under some keys at the peers that others will ask for them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from swarmkeel.swarm.dht_lookup import REPLICAS, Lookup
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.hivemind_dht import DHTID, PeerID

LATER: Final = 1e-3
"""A peer takes a record only if it expires later than the one that it has: by this many seconds at least here."""
_LOOKUP_SHARE: Final = 0.6
"""Share of the time that looking for the right peers may take; the rest is for storing."""
_KEYS_PER_REQUEST: Final = 64


@dataclass(frozen=True)
class Stored:
    """What other peers said to a value.

    Attributes:
        kept: Keys under which another peer took it.
        refused: Keys under which peers only refused it: they hold a record that expires later.
    """

    kept: frozenset[str]
    refused: frozenset[str]


class DhtStore:
    """Stores through one node.

    Args:
        node: The node; one that only asks can store too.
    """

    def __init__(self, node: DhtNode) -> None:
        self.node = node
        self._lookup = Lookup(node)

    async def store(
        self, keys: Sequence[str], value: bytes, expirations: Mapping[str, float], *, subkey: str, seconds: float
    ) -> Stored:
        """Store a value at the peers nearest to each key, all keys for one peer in one request.

        Args:
            keys: Different keys.
            value: The serialized value.
            expirations: When it ends, by key, seconds since the epoch.
            subkey: What it is stored under in each key's dictionary.
            seconds: How long it may take; what was achieved until then is given all the same.

        Raises:
            ClockDiffersError: If peers answer, and all of these have another time.
        """
        kept: set[str] = set()
        refused: set[str] = set()

        async def store_at(peer: PeerID, batch: Sequence[str]) -> None:
            self.node.traffic.stores += 1
            self.node.traffic.bytes_sent += len(batch) * (len(value) + len(subkey) + DHTID.HASH_NBYTES)
            answers = await self.node.hivemind_node.protocol.call_store(
                peer,
                keys=[DHTID.generate(key) for key in batch],
                values=[value] * len(batch),
                expiration_time=[expirations[key] for key in batch],
                subkeys=[subkey] * len(batch),
            )
            for key, taken in zip(batch, answers or (), strict=False):
                (kept if taken else refused).add(key)

        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if not self.node.known_peers:
                    await self.node.repair()
                found = await self._lookup.find(keys, seconds=seconds * _LOOKUP_SHARE)
                keys_by_peer: defaultdict[PeerID, list[str]] = defaultdict(list)
                for key in keys:
                    for peer in found[key].nearest[:REPLICAS]:
                        keys_by_peer[peer].append(key)
                async with asyncio.TaskGroup() as group:
                    for peer, peer_keys in keys_by_peer.items():
                        for start in range(0, len(peer_keys), _KEYS_PER_REQUEST):
                            group.create_task(store_at(peer, peer_keys[start : start + _KEYS_PER_REQUEST]))
        return Stored(frozenset(kept), frozenset(refused - kept))
