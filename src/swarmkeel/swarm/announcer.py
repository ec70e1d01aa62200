"""Writes a server's records to the DHT, as a GPU server does for the blocks that it serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.dht_store import LATER, DhtStore
from swarmkeel.swarm.hivemind_dht import DHTID, get_dht_time
from swarmkeel.swarm.record import ServerInfo


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
        self._store = DhtStore(node)
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
            self._expirations[key] = max(end, self._expirations.get(key, 0.0) + LATER)
        value = encode_value(info.to_tuple())
        stored = await self._store.store(
            keys, value, self._expirations, subkey=self._node.peer_id, seconds=self._timeout
        )
        kept = set(stored.kept)
        if not self._node.client_mode and self._node.is_alive:
            kept_here = {key for key in keys if self._store_here(key, value)}
            if self._node.is_founder and not self._node.known_peers:
                kept |= kept_here
        return AnnounceResult(len(keys), len(kept), len(stored.refused - kept))

    def _store_here(self, key: str, value: bytes) -> bool:
        """Keep the record in this node as well, whoever is nearest: who asks the server itself shall find it."""
        storage = self._node.hivemind_node.protocol.storage
        try:
            return bool(storage.store(DHTID.generate(key), value, self._expirations[key], subkey=self._node.peer_id))
        except TypeError:  # hivemind cannot order subkeys of different types, and strangers may have stored such
            return False
