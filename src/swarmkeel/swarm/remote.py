"""Servers of a swarm as Petals' code names them: the servers under one block, and the span that one server serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from swarmkeel.swarm.record import ServerInfo, ServerState

Peer = TypeVar("Peer")
"""A peer id: a base58 string inside Swarmkeel; hivemind's `PeerID` is taken too and given back as it came."""


def peer_text(peer: object) -> str:
    """Give a peer id as its base58 text, by which hivemind orders peer ids.

    Raises:
        TypeError: If it is neither a string nor has a `to_base58` method.
    """
    if isinstance(peer, str):
        return peer
    to_base58 = getattr(peer, "to_base58", None)
    if to_base58 is None:
        raise TypeError(f"a peer id is a base58 string or a hivemind PeerID, not {type(peer).__name__}")
    return str(to_base58())


def parse_uid(uid: str) -> tuple[str, int]:
    """Split a block's key in the DHT into the model's prefix and the block's index.

    Raises:
        ValueError: If it is not `"{dht_prefix}.{block_index}"`.
    """
    dht_prefix, _, index = uid.partition(".")
    if not (index.isascii() and index.isdigit()):
        raise ValueError(f'a block\'s key is "dht_prefix.block_index", not {uid[:200]!r}')
    return dht_prefix, int(index)


class ModuleServers(Protocol[Peer]):
    """What spans are computed from: a `RemoteModuleInfo`, or a block of a `SwarmSnapshot`."""

    @property
    def uid(self) -> str:
        """The block's key in the DHT."""
        ...

    @property
    def servers(self) -> Mapping[Peer, ServerInfo]:
        """The servers announced under it."""
        ...


@dataclass
class RemoteModuleInfo(Generic[Peer]):
    """One block of a model and the servers that announce it.

    Attributes:
        uid: The block's key in the DHT, `"{dht_prefix}.{block_index}"`.
        servers: Every server announced under it, in any state.
    """

    uid: str
    servers: dict[Peer, ServerInfo]


@dataclass(frozen=True, slots=True)
class RemoteSpanInfo(Generic[Peer]):
    """The contiguous blocks that one server serves, counted from the first block that was read.

    What a hostile record announces is kept as it is: the span may end before it starts, or start past the last block.
    """

    peer_id: Peer
    start: int
    end: int
    server_info: ServerInfo

    @property
    def length(self) -> int:
        """Number of blocks; negative where a hostile record ends before it starts."""
        return self.end - self.start

    @property
    def state(self) -> ServerState:
        """State that the server announces."""
        return self.server_info.state

    @property
    def throughput(self) -> float:
        """Requests a second that the server claims."""
        return self.server_info.throughput


@dataclass(slots=True)
class _GrowingSpan:
    start: int
    end: int
    state: ServerState
    server_info: ServerInfo

    @classmethod
    def announced(cls, server_info: ServerInfo, block: int, first_block: int, total_blocks: int) -> _GrowingSpan:
        if server_info.start_block is None or server_info.end_block is None:
            return cls(block, block + 1, server_info.state, server_info)
        start = max(server_info.start_block - first_block, 0)
        end = min(server_info.end_block - first_block, total_blocks)
        return cls(start, end, server_info.state, server_info)


def compute_spans(
    module_infos: Sequence[ModuleServers[Peer]], *, min_state: ServerState
) -> dict[Peer, RemoteSpanInfo[Peer]]:
    """Put the records of all blocks together to one span a server.

    The rule is Petals' `compute_spans` (src/petals/utils/dht.py): blocks in order, servers by the text of their peer
    id. The first record of a server in a sufficient state, or one in a higher state than before, sets its span: as
    published, cut to the blocks that were read, or this one block where none is published. A further record in the
    same state stretches the span's end to its block.

    Args:
        module_infos: The blocks read, in order, without gaps.
        min_state: Records below this state are passed over.

    Returns:
        The spans by peer id, in the order in which the servers were first seen.

    Raises:
        ValueError: If the first block's uid names no block.
        TypeError: If a peer id is neither a string nor a `PeerID`.
    """
    first_block = parse_uid(module_infos[0].uid)[1] if module_infos else 0
    total_blocks = len(module_infos)
    growing: dict[Peer, _GrowingSpan] = {}

    for block, module_info in enumerate(module_infos):
        servers = module_info.servers
        newcomers = []
        for peer_id, server_info in servers.items():
            state = server_info.state
            known = growing.get(peer_id)
            if known is None:
                if state.value >= min_state.value:
                    newcomers.append(peer_id)
            elif known.state is state:
                if known.end <= block:
                    known.end = block + 1
            elif known.state.value < state.value:
                growing[peer_id] = _GrowingSpan.announced(server_info, block, first_block, total_blocks)
        # Servers of one block do not touch each other's spans: their order shows only in that of the newcomers.
        newcomers.sort(key=peer_text)
        for peer_id in newcomers:
            growing[peer_id] = _GrowingSpan.announced(servers[peer_id], block, first_block, total_blocks)
    return {peer_id: RemoteSpanInfo(peer_id, g.start, g.end, g.server_info) for peer_id, g in growing.items()}
