"""Stand-in GPU servers for tests: real processes that join a real DHT and listen at a real control socket."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from swarmkeel.demo.processes import RunningStandIn, start_stand_in
from swarmkeel.demo.server_life import Gpu
from swarmkeel.demo.stand_in import StandInSettings

MODEL = "tiny"
TOTAL_BLOCKS = 8


@asynccontextmanager
async def stand_in(
    initial_peers: Sequence[str],
    *,
    gpu: Gpu | None = None,
    dht_prefix: str = MODEL,
    total_blocks: int = TOTAL_BLOCKS,
    num_blocks: int = 4,
    throughput: float = 10.0,
    first_block: int | None = 0,
    idle_limit: float | None = None,
    public_name: str | None = None,
    identity: Path | None = None,
    port: int = 0,
    update_period: float = 1.0,
    lifetime: float = 4.0,
    socket: Path | None = None,
) -> AsyncIterator[RunningStandIn]:
    """Run a stand-in that loads within half a second, until the end of the block.

    It is up, which means that its socket answers and that it is in the DHT; its blocks may still be loading. Tests may
    end it before: `server.process.crash()` kills it, `server.process.end()` lets it say goodbye.

    Args:
        initial_peers: DHT peers to join through; none makes it the first peer of a swarm of its own.
        gpu: What the GPU does; loads in half a second where left out.
        dht_prefix, total_blocks, num_blocks, throughput: See `StandInSettings`.
        first_block, idle_limit, public_name, identity, port, update_period, lifetime: See `StandInSettings`.
        socket: Its control socket; one in a folder of its own where left out (pytest's folders are too deep for one).
    """
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    settings = StandInSettings(
        socket=socket or folder / "control.sock",
        dht_prefix=dht_prefix,
        total_blocks=total_blocks,
        num_blocks=num_blocks,
        throughput=throughput,
        gpu=gpu or Gpu(load_seconds=0.5),
        first_block=first_block,
        idle_limit=idle_limit,
        initial_peers=tuple(initial_peers),
        identity=identity,
        port=port,
        public_name=public_name,
        update_period=update_period,
        lifetime=lifetime,
    )
    try:
        server = await start_stand_in(settings, folder / "log")
        try:
            yield server
        finally:
            await server.process.crash()
    finally:
        shutil.rmtree(folder)
