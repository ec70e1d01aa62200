"""Writes a server's records to the DHT, as a GPU server does for the blocks that it serves."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID
from hivemind.utils import get_dht_time

from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.dht_lookup import REPLICAS, Lookup
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.record import ServerInfo

_LOOKUP_SHARE: Final = 0.6
"""Share of the time that looking for the right peers may take; the rest is for storing."""
_KEYS_PER_REQUEST: Final = 64
_LATER: Final = 1e-3
"""A peer takes a record only if it expires later than the one that it has."""


@dataclass(frozen=True)
class AnnounceResult:
    """How an announcement went.

    Attributes:
        asked: Number of blocks announced.
        kept: Number of blocks whose record another peer took; or this node itself, while it is the whole swarm: it was
            given nobody to join, and nobody has come yet.
        refused: Number of blocks whose record peers only refused: they hold one that expires later.
    """

    asked: int
    kept: int
    refused: int

    @property
    def complete(self) -> bool:
        """Whether others can find the record under every block."""
        return self.kept == self.asked


class Announcer:
    """Announces one server under its node's own peer id.

    Args:
        node: The server's node.
        dht_prefix: Name of the model in the DHT.
        timeout: Seconds that one announcement may take.
    """

    def __init__(self, node: DhtNode, dht_prefix: str, *, timeout: float = 15.0) -> None:
        self._node = node
        self._dht_prefix = dht_prefix
        self._timeout = timeout
        self._lookup = Lookup(node)
        self._expirations: dict[str, float] = {}

    async def announce(self, info: ServerInfo, blocks: Iterable[int], lifetime_seconds: float) -> AnnounceResult:
        """Store the server's record under each of these blocks, in the place of what it announced before.

        There is no way to take a record back: a server that leaves announces itself OFFLINE under the same blocks, and
        what is not announced again vanishes after its lifetime.

        Args:
            info: The record.
            blocks: Indices of the blocks.
            lifetime_seconds: How long it holds if it is not renewed. A record that replaces one with a longer rest of
                life ends right after that one would have.
        """
        keys = [f"{self._dht_prefix}.{block}" for block in blocks]
        end = get_dht_time() + lifetime_seconds
        for key in keys:
            self._expirations[key] = max(end, self._expirations.get(key, 0.0) + _LATER)
        value = encode_value(info.to_tuple())
        kept: set[str] = set()
        refused: set[str] = set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                if not self._node.known_peers:
                    await self._node.repair()
                await self._store_at_others(keys, value, kept, refused)
        if not self._node.client_mode and self._node.is_alive:
            kept_here = {key for key in keys if self._store_here(key, value)}
            if self._node.is_founder and not self._node.known_peers:
                kept |= kept_here
        return AnnounceResult(len(keys), len(kept), len(refused - kept))

    async def _store_at_others(self, keys: Sequence[str], value: bytes, kept: set[str], refused: set[str]) -> None:
        """Store at the peers nearest to each key, all keys for one peer in one request; notes what they say."""
        found = await self._lookup.find(keys, seconds=self._timeout * _LOOKUP_SHARE)
        keys_by_peer: defaultdict[PeerID, list[str]] = defaultdict(list)
        for key in keys:
            for peer in found[key].nearest[:REPLICAS]:
                keys_by_peer[peer].append(key)
        async with asyncio.TaskGroup() as group:
            for peer, peer_keys in keys_by_peer.items():
                for start in range(0, len(peer_keys), _KEYS_PER_REQUEST):
                    batch = peer_keys[start : start + _KEYS_PER_REQUEST]
                    group.create_task(self._store_at(peer, batch, value, kept, refused))

    async def _store_at(
        self, peer: PeerID, keys: Sequence[str], value: bytes, kept: set[str], refused: set[str]
    ) -> None:
        answers = await self._node.hivemind_node.protocol.call_store(
            peer,
            keys=[DHTID.generate(key) for key in keys],
            values=[value] * len(keys),
            expiration_time=[self._expirations[key] for key in keys],
            subkeys=[self._node.peer_id] * len(keys),
        )
        for key, taken in zip(keys, answers or (), strict=False):
            (kept if taken else refused).add(key)

    def _store_here(self, key: str, value: bytes) -> bool:
        """Keep the record in this node as well, whoever is nearest: who asks the server itself shall find it."""
        storage = self._node.hivemind_node.protocol.storage
        try:
            return bool(storage.store(DHTID.generate(key), value, self._expirations[key], subkey=self._node.peer_id))
        except TypeError:  # hivemind cannot order subkeys of different types, and strangers may have stored such
            return False
