"""What one reading of the DHT showed: a frozen value that also says how good it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType

from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, RemoteSpanInfo, compute_spans


class KeyReading(StrEnum):
    """How the reading of one block's key ended."""

    OK = "ok"
    """Records were found; a peer that did not answer may hold newer ones."""
    ABSENT = "absent"
    """Most of the peers that should hold the key answered, and nobody holds anything."""
    UNKNOWN = "unknown"
    """The key could not be read: nothing may be concluded from it."""


@dataclass(frozen=True)
class BlockReading:
    """The records under one block's key.

    Attributes:
        uid: `"{dht_prefix}.{block_index}"`.
        reading: How the reading of this key ended.
        servers: Accepted records by base58 peer id: a read-only copy of what is given.
    """

    uid: str
    reading: KeyReading
    servers: Mapping[str, ServerInfo]

    def __post_init__(self) -> None:
        object.__setattr__(self, "servers", MappingProxyType(dict(self.servers)))


@dataclass(frozen=True)
class SnapshotQuality:
    """How far a snapshot may be trusted.

    Attributes:
        keys_asked: Block keys that were asked for.
        keys_answered: Keys whose answer is known, be it records or their absence.
        records_accepted: Records that passed the check.
        rejected: Records that did not, counted by `RejectionReason`.
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

    @property
    def records_rejected_ratio(self) -> float:
        """Share of the records found that did not pass the check, 0 to 1."""
        found = self.records_accepted + self.records_rejected
        return self.records_rejected / found if found else 0.0


@dataclass(frozen=True)
class SwarmSnapshot:
    """One reading of all blocks of a model.

    Attributes:
        dht_prefix: Name of the model in the DHT.
        first_block: Index of the first block read.
        blocks: One reading a block, in order, without gaps.
        read_at: When the reading ended, seconds since the epoch.
        rejected: Records that did not pass the check, counted by `RejectionReason`: a read-only copy of what is given.
        overdue: Servers that should have renewed their records by then, see `swarm.renewal`.

    Raises:
        ValueError: If the blocks' keys are not those of `dht_prefix` from `first_block` on.
    """

    dht_prefix: str
    first_block: int
    blocks: tuple[BlockReading, ...]
    read_at: float
    rejected: Mapping[str, int] = field(default_factory=dict)
    overdue: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for index, block in enumerate(self.blocks, self.first_block):
            if block.uid != f"{self.dht_prefix}.{index}":
                raise ValueError(f"the key of block {index} is {self.dht_prefix}.{index}, not {block.uid[:200]!r}")
        object.__setattr__(self, "rejected", MappingProxyType(dict(self.rejected)))

    @property
    def total_blocks(self) -> int:
        """Number of blocks read."""
        return len(self.blocks)

    @property
    def module_infos(self) -> tuple[RemoteModuleInfo[str], ...]:
        """The blocks in the shape that Petals' functions take; a copy that may be changed."""
        return tuple(RemoteModuleInfo(block.uid, dict(block.servers)) for block in self.blocks)

    def spans(self, min_state: ServerState = ServerState.JOINING) -> dict[str, RemoteSpanInfo[str]]:
        """Give the span of every server that is at least in this state, see `compute_spans`."""
        if self._lowest_state.value >= min_state.value:
            min_state = ServerState.OFFLINE  # all of them are at least in that state: every such question is one
        known = self._known_spans.get(min_state)
        if known is None:
            known = self._known_spans[min_state] = compute_spans(self.blocks, min_state=min_state)
        return dict(known)

    @cached_property
    def _lowest_state(self) -> ServerState:
        states = {info.state for block in self.blocks for info in block.servers.values()}
        return min(states, key=lambda state: state.value, default=ServerState.ONLINE)

    @cached_property
    def _known_spans(self) -> dict[ServerState, dict[str, RemoteSpanInfo[str]]]:
        return {}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all that a decision depends on: equal digests lead to equal decisions at the same age.

        It does not depend on the order of the records. Left out are the time of the reading and the fields of the
        records that no policy looks at, such as pings.
        """
        sha = hashlib.sha256(json.dumps([self.dht_prefix, self.first_block, sum(self.rejected.values())]).encode())
        # A reading has one object for all equal records of a server.
        texts: dict[int, str] = {}
        for block in self.blocks:
            records = []
            for peer_id, info in block.servers.items():
                text = texts.get(id(info))
                if text is None:
                    text = f"{info.state.name}:{info.throughput.hex()}:{info.start_block}:{info.end_block}"
                    texts[id(info)] = text
                records.append(f"{peer_id}:{text}")
            records.sort()
            # A line break is in none of the parts, so that no two different snapshots give the same text.
            sha.update("\n".join(["", block.reading.value, *records]).encode())
        if self.overdue:
            sha.update("\n".join(["", "overdue", *sorted(self.overdue)]).encode())
        return sha.hexdigest()

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
            rejected=self.rejected,
            age_seconds=max(now - self.read_at, 0.0),
            own_record_found=own_peer_id is not None and any(own_peer_id in block.servers for block in self.blocks),
        )
