"""What one reading of the DHT showed: a frozen value that also says how good it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, RemoteSpanInfo, compute_spans


class KeyReading(StrEnum):
    """How the reading of one block's key ended."""

    OK = "ok"
    """Records were found; a peer that did not answer may hold newer ones."""
    ABSENT = "absent"
    """Every peer that was asked answered, and none holds anything."""
    UNKNOWN = "unknown"
    """The key could not be read: nothing may be concluded from it."""


@dataclass(frozen=True)
class BlockReading:
    """The records under one block's key.

    Attributes:
        uid: `"{dht_prefix}.{block_index}"`.
        reading: How the reading of this key ended.
        servers: Accepted records by base58 peer id; never changed after construction.
    """

    uid: str
    reading: KeyReading
    servers: Mapping[str, ServerInfo]


@dataclass(frozen=True)
class SnapshotQuality:
    """How far a snapshot may be trusted.

    Attributes:
        keys_asked: Block keys that were asked for.
        keys_answered: Keys whose answer is known, be it records or their absence.
        records_accepted: Records that passed the check.
        rejected: Records that did not, counted by reason.
        age_seconds: Time since the reading.
        own_record_found: Whether the own server's record is in it in any state; False where no server is named.
    """

    keys_asked: int
    keys_answered: int
    records_accepted: int
    rejected: Mapping[str, int]
    age_seconds: float
    own_record_found: bool

    @property
    def keys_answered_ratio(self) -> float:
        """Share of the keys asked whose answer is known, 0 to 1."""
        return self.keys_answered / self.keys_asked if self.keys_asked else 0.0

    @property
    def records_rejected(self) -> int:
        """Number of records that did not pass the check."""
        return sum(self.rejected.values())


@dataclass(frozen=True)
class SwarmSnapshot:
    """One reading of all blocks of a model.

    Attributes:
        dht_prefix: Name of the model in the DHT.
        first_block: Index of the first block read.
        blocks: One reading a block, in order, without gaps.
        read_at: When the reading ended, seconds since the epoch.
        rejected: Records that did not pass the check, counted by reason.
    """

    dht_prefix: str
    first_block: int
    blocks: tuple[BlockReading, ...]
    read_at: float
    rejected: Mapping[str, int] = field(default_factory=dict)

    @property
    def total_blocks(self) -> int:
        """Number of blocks read."""
        return len(self.blocks)

    @cached_property
    def module_infos(self) -> tuple[RemoteModuleInfo[str], ...]:
        """The blocks in the shape that Petals' functions take."""
        return tuple(RemoteModuleInfo(block.uid, dict(block.servers)) for block in self.blocks)

    def spans(self, min_state: ServerState = ServerState.JOINING) -> dict[str, RemoteSpanInfo[str]]:
        """Give the span of every server that is at least in this state, see `compute_spans`."""
        return compute_spans(self.module_infos, min_state=min_state)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all that a decision depends on: equal digests lead to equal decisions.

        Left out are the reading's time and fields of the records that no policy looks at, such as pings.
        """
        content = [
            [block.uid, block.reading.value]
            + [
                [peer_id, info.state.value, info.throughput.hex(), info.start_block, info.end_block]
                for peer_id, info in sorted(block.servers.items())
            ]
            for block in self.blocks
        ]
        text = json.dumps([self.dht_prefix, self.first_block, content], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def quality(self, now: float, own_peer_id: str | None = None) -> SnapshotQuality:
        """Say how far this snapshot may be trusted.

        Args:
            now: Seconds since the epoch.
            own_peer_id: The server whose record must be in it, if any.
        """
        return SnapshotQuality(
            keys_asked=len(self.blocks),
            keys_answered=sum(block.reading is not KeyReading.UNKNOWN for block in self.blocks),
            records_accepted=sum(len(block.servers) for block in self.blocks),
            rejected=dict(self.rejected),
            age_seconds=max(now - self.read_at, 0.0),
            own_record_found=own_peer_id is not None and any(own_peer_id in block.servers for block in self.blocks),
        )
