"""Swarms in the shape that the demo reads them in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot


@dataclass(frozen=True)
class Placed:
    """A server as it announces itself."""

    peer_id: str
    start: int
    end: int
    throughput: float = 10.0
    state: ServerState = ServerState.ONLINE
    name: str | None = None

    @property
    def info(self) -> ServerInfo:
        return ServerInfo(self.state, self.throughput, self.start, self.end, public_name=self.name)


def snapshot(total_blocks: int, servers: Sequence[Placed]) -> SwarmSnapshot:
    blocks = tuple(
        BlockReading(
            f"demo.{block}",
            KeyReading.OK,
            {server.peer_id: server.info for server in servers if server.start <= block < server.end},
        )
        for block in range(total_blocks)
    )
    return SwarmSnapshot("demo", 0, blocks, 1_764_000_000.0)
