"""Takes snapshots of the swarm from the DHT, and finds its way back to the DHT when that was gone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from swarmkeel.swarm.dht_lookup import Found, Lookup
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.dht_traffic import DhtTraffic
from swarmkeel.swarm.failures import SwarmUnreachable
from swarmkeel.swarm.record import ServerInfo
from swarmkeel.swarm.record_check import RecordCheck, names_one
from swarmkeel.swarm.record_memory import RecordMemory
from swarmkeel.swarm.rejection_log import RejectionLog
from swarmkeel.swarm.renewal import RenewalWatch
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot

_MAX_SERVERS: Final = 20_000
"""In one snapshot. Where more are announced the other blocks count as unknown: nobody has so many, and what follows from
a snapshot takes time for each."""
_THOROUGH_EVERY: Final = 4
"""Of so many readings at least one asks whoever may hold anything: what only few of the peers hold that should shows then
at the latest. What was seen once is missed at once."""
_LOOKUP_SHARE: Final = 0.8
"""Share of a reading's time that the search may take; the rest is for checking what it found."""

_log = structlog.get_logger(__name__)


class SwarmReader:
    """Reads all blocks of one model, through a node of its own that only asks.

    The node is replaced, under the same identity, when its p2pd is gone or when nobody answers it: a new one knows
    nothing of addresses that failed, and so is back at once when the swarm is.

    Args:
        initial_peers: Multiaddresses to join through, each ending in /p2p/PEER_ID.
        dht_prefix: Name of the model in the DHT.
        total_blocks: Number of blocks to read.
        first_block: Index of the first of them.
        identity_path: The node's key file, made when missing; a new peer id for every node without.
        read_timeout: Seconds that one reading may take, joining included; a node that starts more slowly is there for a later one.
        remember_seconds: A record that was read counts until it expires, though later readings do not show it, but no
            longer than this after it was last seen; 0 forgets at once.
        clock: Gives the seconds since the epoch that snapshots are stamped with.

    Attributes:
        traffic: What all its nodes have asked of others, and what that weighed.
    """

    def __init__(
        self,
        initial_peers: Sequence[str],
        dht_prefix: str,
        total_blocks: int,
        *,
        first_block: int = 0,
        identity_path: Path | None = None,
        read_timeout: float = 15.0,
        remember_seconds: float = 900.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.traffic = DhtTraffic()
        self._initial_peers = tuple(initial_peers)
        self._dht_prefix = dht_prefix
        self._first_block = first_block
        self._keys = tuple(f"{dht_prefix}.{block}" for block in range(first_block, first_block + total_blocks))
        self._identity_path = identity_path
        self._read_timeout = read_timeout
        self._clock = clock
        self._memory = RecordMemory(remember_seconds)
        self._checking = RecordCheck()
        self._renewals = RenewalWatch()
        self._rejections = RejectionLog("records_rejected")
        self._node: DhtNode | None = None
        self._starting: asyncio.Task[DhtNode] | None = None
        self._lookup: Lookup | None = None
        self._doubtless: set[str] = set()
        self._readings_since_thorough = _THOROUGH_EVERY
        self._one_at_a_time = asyncio.Lock()
        self._closed = False
        self._has_joined = False
        self._is_joined = False

    @property
    def dht_peers(self) -> int:
        """Number of peers in the node's routing table; 0 without a node."""
        return 0 if self._node is None else self._node.known_peers

    @property
    def own_peer_id(self) -> str | None:
        """The node's own peer id, base58; None without a node."""
        return None if self._node is None else self._node.peer_id

    @property
    def node(self) -> DhtNode | None:
        """The node through which it reads at present; another one after an outage."""
        return self._node

    async def open(self) -> None:
        """Start the node ahead of the first reading, which would do it too; a swarm that does not answer is no error.

        Raises:
            InitialPeerError, IdentityError, DhtNodeError: If no node can be started, see `DhtNode.open`.
        """
        async with self._one_at_a_time:
            if self._node is None:
                self._note_peers(await self._started_node())

    async def read(self, *, thorough: bool = True) -> SwarmSnapshot:
        """Read all blocks. Readings at the same time wait for each other.

        A key is `ok` with the records of accepted servers, or without if those found are no records of servers;
        `absent` if most of the peers that should hold it say that there is nothing; else `unknown`, as where a plain
        value stands in the place of the records. Records that former readings have shown count until they expire: also
        under a key that is `unknown` now, and where peers say that there is nothing.

        Args:
            thorough: Ask all peers that may hold anything. Without that most readings ask only most of those that
                should, under keys where the last reading left no doubt, and all the same where they do not show what
                is known to be there or do not agree. A record that others hold alone may then be seen some readings
                later, so nothing should be done for good on such a reading.

        Raises:
            SwarmUnreachable: If nobody answers; the next reading may well succeed.
            InitialPeerError, IdentityError, DhtNodeError: If no node can be started, see `DhtNode.open`.
        """
        snapshot, _ = await self.read_beside((), thorough=thorough)
        return snapshot

    async def read_beside(
        self, keys: Sequence[str], *, thorough: bool = True
    ) -> tuple[SwarmSnapshot, Mapping[str, Found]]:
        """Read all blocks as `read` does, and in the same search what is under some other keys.

        Args:
            keys: Keys that are none of the blocks'; always looked for thoroughly.
            thorough: As for `read`.

        Returns:
            The snapshot, and what was found under the other keys; remembered records are in that too.

        Raises:
            SwarmUnreachable, InitialPeerError, IdentityError, DhtNodeError: As `read`.
        """
        async with self._one_at_a_time:
            loop = asyncio.get_running_loop()
            started = loop.time()
            deadline = started + self._read_timeout
            found = await self._search((*self._keys, *keys), deadline, thorough=thorough)
            self._doubtless = {key for key in self._keys if found[key].conclusive and found[key].records}
            snapshot = await self._check(found, deadline)
            readings = Counter(block.reading.value for block in snapshot.blocks)
            _log.debug(
                "snapshot_read",
                **{reading.value: readings[reading.value] for reading in KeyReading},
                records=sum(len(block.servers) for block in snapshot.blocks),
                thorough=self._readings_since_thorough == 0,
                dht_peers=self.dht_peers,
                seconds=round(loop.time() - started, 3),
            )
            self._rejections.note(snapshot.rejected)
            now = time.time()
            return snapshot, {key: self._with_memory(key, found[key], now) for key in keys}

    async def close(self) -> None:
        """End the node; a reading under way fails. May be repeated."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._drop_node()

    async def _search(self, keys: Sequence[str], deadline: float, *, thorough: bool) -> Mapping[str, Found]:
        """Look for all keys; once more with a new node if p2pd went away meanwhile."""
        found: Mapping[str, Found] = {}
        for may_retry in (True, False):
            try:
                async with asyncio.timeout_at(deadline):
                    node, lookup = await self._join()
            except TimeoutError:
                await self._lose_node("no_time")
                raise self._unreachable() from None
            known = await self._known(thorough=thorough)
            left = deadline - asyncio.get_running_loop().time()
            found = await lookup.find(keys, seconds=left * _LOOKUP_SHARE, known=known)
            if node.is_alive or not may_retry:
                break
        if not any(key.nearest for key in found.values()):
            await self._lose_node("no_answers")
            raise self._unreachable()
        return found

    async def _known(self, *, thorough: bool) -> dict[str, list[object]]:
        """Give the keys that need not be looked for thoroughly this time, with what should be there."""
        self._readings_since_thorough += 1
        if thorough or self._readings_since_thorough >= _THOROUGH_EVERY:
            self._readings_since_thorough = 0
            return {}
        known, now = {}, time.time()
        for key in self._doubtless:
            await asyncio.sleep(0)
            if subkeys := self._memory.subkeys(key, now):
                known[key] = subkeys
        return known

    async def _join(self) -> tuple[DhtNode, Lookup]:
        """Give a node that knows peers."""
        if self._starting is not None:
            await self._started_node()
        if self._node is not None and not self._node.is_alive:
            await self._lose_node("p2pd_gone")
        node = self._node
        if node is None:
            node = await self._started_node()
        elif not node.known_peers:
            await node.repair()
        self._note_peers(node)
        if not node.known_peers:
            await self._lose_node("no_peers")
            raise self._unreachable()
        return node, self._lookup or Lookup(node)

    async def _started_node(self) -> DhtNode:
        """Start a node, and give it.

        Where a reading's time is over first the start goes on, for the next reading to wait for: a machine on which it
        takes longer than a reading may would else begin again and again, and never join.
        """
        if self._starting is None:
            self._starting = asyncio.create_task(self._start_node())
        starting = self._starting
        await asyncio.wait((starting,))
        self._starting = None
        if starting.cancelled():
            self._refuse_if_closed()
        return starting.result()

    async def _start_node(self) -> DhtNode:
        self._refuse_if_closed()
        node = await DhtNode.open(self._initial_peers, identity_path=self._identity_path)
        node.traffic = self.traffic
        self._node, self._lookup = node, Lookup(node)
        self._doubtless, self._readings_since_thorough = set(), _THOROUGH_EVERY
        if self._closed:
            await self._drop_node()
        self._refuse_if_closed()
        return node

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise SwarmUnreachable("the reader has been closed", "make a new one")

    async def _drop_node(self) -> None:
        node, self._node, self._lookup = self._node, None, None
        if node is not None:
            await node.close()

    async def _lose_node(self, reason: str) -> None:
        if self._is_joined:
            self._is_joined = False
            _log.warning("dht_lost", reason=reason)
        await self._drop_node()

    def _note_peers(self, node: DhtNode) -> None:
        if node.known_peers and not self._is_joined:
            _log.info(
                "dht_rejoined" if self._has_joined else "dht_joined", peer_id=node.peer_id, peers=node.known_peers
            )
            self._is_joined = self._has_joined = True

    def _unreachable(self) -> SwarmUnreachable:
        return SwarmUnreachable(
            f"no peer of the swarm {self._dht_prefix} answers",
            "if that lasts, see whether swarm.initial_peers are up and can be reached from here",
        )

    async def _check(self, found: Mapping[str, Found], deadline: float) -> SwarmSnapshot:
        """Check all records, one block after the other; blocks whose turn does not come in time are unknown."""
        rejected: Counter[str] = Counter()
        blocks: list[BlockReading] = []
        expirations: dict[str, float] = {}
        names: set[str] = set()
        read_at, now = self._clock(), time.time()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                for key in self._keys:
                    if len(names) > _MAX_SERVERS:
                        break
                    known = self._with_memory(key, found[key], now)
                    checked = await self._checking.check(known.records, now)
                    rejected += checked.rejected + Counter(found[key].rejected)
                    names.update(checked.servers)
                    blocks.append(BlockReading(key, _reading(found[key], checked.servers), checked.servers))
                    for peer_id, end in checked.expirations.items():
                        expirations[peer_id] = max(end, expirations.get(peer_id, 0.0))
        blocks += [BlockReading(key, KeyReading.UNKNOWN, {}) for key in self._keys[len(blocks) :]]
        self._checking.end()
        overdue = self._renewals.overdue(expirations, now)
        return SwarmSnapshot(self._dht_prefix, self._first_block, tuple(blocks), read_at, rejected, overdue)

    def _with_memory(self, key: str, found: Found, now: float) -> Found:
        return replace(found, records=self._memory.merge(key, found.records, now))


def _reading(found: Found, servers: Mapping[str, ServerInfo]) -> KeyReading:
    """Say how a key was read, by what this reading found and what all readings know."""
    if found.overflowed:
        return KeyReading.UNKNOWN  # whoever flooded the key may have hidden others by that
    if servers and (found.conclusive or names_one(found.records, servers)):
        return KeyReading.OK
    if not found.conclusive:
        return KeyReading.UNKNOWN
    return KeyReading.OK if found.records else KeyReading.ABSENT
