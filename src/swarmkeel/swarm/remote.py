"""Servers of a swarm as Petals' code names them: the servers under one block, and the span that one server serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

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
    """The contiguous blocks that one server serves, counted from the first block that was read."""

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


def compute_spans(
    module_infos: Sequence[RemoteModuleInfo[Peer]], *, min_state: ServerState
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
    """
    first_block = int(module_infos[0].uid.split(".")[1]) if module_infos else 0
    spans: dict[Peer, RemoteSpanInfo[Peer]] = {}
    for block, module_info in enumerate(module_infos):
        for peer_id in sorted(module_info.servers, key=peer_text):
            server_info = module_info.servers[peer_id]
            if server_info.state.value < min_state.value:
                continue
            known = spans.get(peer_id)
            if known is None or known.state.value < server_info.state.value:
                start, end = block, block + 1
                if server_info.start_block is not None and server_info.end_block is not None:
                    start = max(server_info.start_block - first_block, 0)
                    end = min(server_info.end_block - first_block, len(module_infos))
                spans[peer_id] = RemoteSpanInfo(peer_id, start, end, server_info)
            elif known.state == server_info.state and known.end < block + 1:
                spans[peer_id] = RemoteSpanInfo(peer_id, known.start, block + 1, known.server_info)
    return spans
