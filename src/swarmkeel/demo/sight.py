"""What the demo sees of its swarm in the DHT: numbers, and what changed since it last looked. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from swarmkeel.balance.bound import measure
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.snapshot import SwarmSnapshot


@dataclass(frozen=True)
class Sight:
    """One look at the swarm.

    Attributes:
        snapshot: The reading, without the servers that are known to be dead.
        online: Spans of the servers that serve, by peer id.
        joining: Spans of the servers that load.
        bottleneck_rps: Throughput of the weakest block; servers that load do not count.
        uncovered_blocks: Blocks that nobody serves.
        believed_dead: How many of the dead the DHT still shows as serving or loading.
    """

    snapshot: SwarmSnapshot
    online: Mapping[str, RemoteSpanInfo[str]]
    joining: Mapping[str, RemoteSpanInfo[str]]
    bottleneck_rps: float
    uncovered_blocks: int
    believed_dead: int

    @classmethod
    def take(cls, snapshot: SwarmSnapshot, dead: Collection[str] = ()) -> Sight:
        """Look at a reading of the DHT.

        Args:
            snapshot: The reading.
            dead: Peer ids of killed servers: their records outlive them, and must not count.
        """
        living = _without(snapshot, dead)
        seen = living.spans(ServerState.JOINING)
        online = {peer: span for peer, span in seen.items() if span.state is ServerState.ONLINE}
        joining = {peer: span for peer, span in seen.items() if span.state is ServerState.JOINING}
        numbers = measure(online, living.total_blocks)
        believed = sum(peer in dead for peer in snapshot.spans(ServerState.JOINING))
        return cls(living, online, joining, numbers.bottleneck_rps, numbers.uncovered_blocks, believed)


def _without(snapshot: SwarmSnapshot, dead: Collection[str]) -> SwarmSnapshot:
    if not dead:
        return snapshot
    blocks = tuple(
        replace(block, servers={peer: info for peer, info in block.servers.items() if peer not in dead})
        for block in snapshot.blocks
    )
    return replace(snapshot, blocks=blocks)


class MoveCounter:
    """Counts moves as the DHT shows them: a server serves other blocks than it last served."""

    def __init__(self) -> None:
        self.moves = 0
        self._served: dict[str, tuple[int, int]] = {}
        self._loading: dict[str, tuple[int, int]] = {}

    def look(self, sight: Sight) -> list[str]:
        """Take one more look into account, and tell in words what is new."""
        news = []
        for peer, span in sight.joining.items():
            blocks = (span.start, span.end)
            former = self._served.get(peer)
            if former is not None and self._loading.get(peer) != blocks:
                news.append(f"{_name(span)} loads {_text(blocks)} instead of {_text(former)}")
            self._loading[peer] = blocks
        for peer, span in sight.online.items():
            blocks = (span.start, span.end)
            former = self._served.get(peer)
            if former is not None and former != blocks:
                self.moves += 1
                news.append(f"{_name(span)} serves {_text(blocks)}")
            self._served[peer] = blocks
            self._loading.pop(peer, None)
        return news


def _name(span: RemoteSpanInfo[str]) -> str:
    return span.server_info.public_name or span.peer_id


def _text(blocks: tuple[int, int]) -> str:
    return f"{blocks[0]}:{blocks[1]}"
