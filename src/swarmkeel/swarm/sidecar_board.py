"""The board of the sidecars: one key of the DHT where each tells of its server, and reads what the others tell.

Petals does not know the key and leaves it alone. Under it each sidecar has one record, with its server's peer id as the
subkey. As everywhere in the DHT anybody can write there: what is read goes through `sidecar_record` one by one, and a
board that cannot be read, or that somebody has filled with junk, is an empty one: sidecars work without it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final

import structlog

from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.dht_codec import RawRecord, UndecodableError, decode_value, encode_value
from swarmkeel.swarm.dht_lookup import Found
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.dht_store import LATER, DhtStore
from swarmkeel.swarm.record import RecordRejected, parse_peer_id
from swarmkeel.swarm.rejection_log import RejectionLog
from swarmkeel.swarm.sidecar import Sidecar
from swarmkeel.swarm.sidecar_record import (
    MAX_RECORD_BYTES,
    BoardReading,
    SidecarRejected,
    SidecarRejection,
    sidecar_from_wire,
    sidecar_to_wire,
)

MAX_SIDECARS: Final = 4096
"""Records that are looked at; those of servers that the swarm shows come first."""
_RECORDS_AT_ONCE: Final = 64
_FAR: Final = 3600.0
"""Seconds; a record under the own subkey that is to hold longer is not an honest one's, and is not outbid: that would
leave ours there for as long."""

_log = structlog.get_logger(__name__)


def board_key(dht_prefix: str) -> str:
    """Give the board's key of one model.

    A model's name has no dot, so that with three parts this is the key of no model's block.
    """
    return f"_swarmkeel.{dht_prefix}.sidecars"


class SidecarBoard:
    """The board of one model.

    Args:
        dht_prefix: Name of the model in the DHT.
        timeout: Seconds that putting a record there may take.
        clock: Seconds since the epoch, as records expire by.

    Attributes:
        key: Its key in the DHT.
    """

    def __init__(self, dht_prefix: str, *, timeout: float = 10.0, clock: Callable[[], float] = time.time) -> None:
        self.key = board_key(dht_prefix)
        self._timeout = timeout
        self._clock = clock
        self._store: DhtStore | None = None
        self._present: Mapping[object, RawRecord] = {}
        self._expirations: dict[str, float] = {}
        self._rejections = RejectionLog("sidecar_records_rejected")

    async def read(self, found: Found, servers: Collection[str]) -> BoardReading:
        """Check what was found under the board's key; lets the event loop turn now and then.

        Args:
            found: What a search found there.
            servers: Peer ids of the servers that the swarm shows: theirs are read first.
        """
        self._present = found.records
        rejected: Counter[str] = Counter()
        sidecars: dict[str, Sidecar] = {}
        for count, (peer_id, data) in enumerate(_choose(found.records, servers, self._clock(), rejected)):
            if count % _RECORDS_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                sidecar = _decode(peer_id, data)
            except SidecarRejected as error:
                rejected[error.reason.value] += 1
            else:
                if sidecar is not None:
                    sidecars[peer_id] = sidecar
        self._rejections.note(rejected)
        return BoardReading(sidecars, rejected, readable=found.conclusive or bool(sidecars))

    async def publish(self, node: DhtNode | None, sidecar: Sidecar, lifetime_seconds: float) -> bool:
        """Put a sidecar's record on the board, in the place of its former one.

        Args:
            node: The node to store through; None while there is none.
            sidecar: What to tell.
            lifetime_seconds: How long it holds if it is not renewed. One that replaces a record with a longer rest of
                life ends right after that one would have.

        Returns:
            Whether another peer took it, so that others can see it.
        """
        end = self._clock() + lifetime_seconds
        return await self._put(node, sidecar.peer_id, encode_value(sidecar_to_wire(sidecar)), end)

    async def withdraw(self, node: DhtNode | None, peer_id: str) -> bool:
        """Take a record off the board: what takes its place says nothing, and ends when it would have.

        Returns:
            Whether another peer took note; True also where there was nothing to take off.
        """
        last = self._expirations.get(peer_id)
        if last is None or last <= self._clock():
            return True
        return await self._put(node, peer_id, encode_value(None), last)

    async def _put(self, node: DhtNode | None, peer_id: str, value: bytes, end: float) -> bool:
        if node is None or not node.is_alive:
            return False
        if self._store is None or self._store.node is not node:
            self._store = DhtStore(node)
        former = [self._expirations.get(peer_id, 0.0)]
        present = self._present.get(peer_id)
        # A former process of this sidecar may have left a record there.
        if present is not None and present.expiration < self._clock() + _FAR:
            former.append(present.expiration)
        expiration = max(end, max(former) + LATER)
        self._expirations[peer_id] = expiration
        try:
            stored = await self._store.store(
                [self.key], value, {self.key: expiration}, subkey=peer_id, seconds=self._timeout
            )
        except SwarmkeelError as error:
            _log.warning("sidecar_not_published", error=str(error))
            return False
        if not stored.kept:
            _log.warning("sidecar_not_published", refused=bool(stored.refused))
        return bool(stored.kept)


def _choose(
    records: Mapping[object, RawRecord], servers: Collection[str], now: float, rejected: Counter[str]
) -> list[tuple[str, bytes]]:
    """Choose the records to look at, those of servers that are there first; counts the others."""
    chosen: list[tuple[bool, str, bytes]] = []
    for subkey, record in records.items():
        if record.expiration <= now:
            continue
        try:
            peer_id = parse_peer_id(subkey)
        except RecordRejected:
            peer_id = ""
        if peer_id and peer_id == subkey:
            chosen.append((peer_id not in servers, peer_id, record.value))
        else:
            rejected[SidecarRejection.PEER_ID.value] += 1
    chosen.sort()
    if len(chosen) > MAX_SIDECARS:
        rejected[SidecarRejection.NO_ROOM.value] += len(chosen) - MAX_SIDECARS
    return [(peer_id, data) for _, peer_id, data in chosen[:MAX_SIDECARS]]


def _decode(peer_id: str, data: bytes) -> Sidecar | None:
    if len(data) > MAX_RECORD_BYTES:
        raise SidecarRejected(SidecarRejection.TOO_LARGE)
    try:
        value = decode_value(data)
    except UndecodableError:
        raise SidecarRejected(SidecarRejection.UNREADABLE) from None
    return sidecar_from_wire(peer_id, value)
