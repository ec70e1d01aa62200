"""What several commands do alike: read the swarm once, patiently, and say how good the reading is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

from swarmkeel.config import Config
from swarmkeel.printable import printable
from swarmkeel.swarm.sidecar_record import BoardReading
from swarmkeel.swarm.snapshot import SnapshotQuality, SwarmSnapshot

_PATIENCE_SECONDS: Final = 1.0


@contextmanager
def patience(text: str) -> Iterator[None]:
    """Show a spinner on standard error as soon as something takes longer than a second; none where nobody looks."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    status = console.status(text)
    timer = threading.Timer(_PATIENCE_SECONDS, status.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it may be starting the spinner just now
        status.stop()


async def read_swarm(config: Config) -> SwarmSnapshot:
    """Read the swarm once.

    Raises:
        SwarmkeelError: If the DHT cannot be read.
    """
    return (await read_swarm_and_board(config))[0]


async def read_swarm_and_board(config: Config) -> tuple[SwarmSnapshot, BoardReading]:
    """Read the swarm once, and what its sidecars tell each other.

    Raises:
        SwarmkeelError: If the DHT cannot be read.
    """
    from swarmkeel.swarm.reader import SwarmReader  # noqa: PLC0415 - help does without the DHT
    from swarmkeel.swarm.sidecar_board import SidecarBoard  # noqa: PLC0415 - as above

    swarm = config.swarm
    board = SidecarBoard(swarm.dht_prefix)
    # Without the daemon's identity: two nodes under one peer id would be in each other's way.
    reader = SwarmReader(swarm.initial_peers, swarm.dht_prefix, swarm.total_blocks, read_timeout=swarm.read_timeout)
    try:
        snapshot, found = await reader.read_beside((board.key,))
        return snapshot, await board.read(found[board.key], snapshot.spans())
    finally:
        await reader.close()


def describe_quality(quality: SnapshotQuality) -> str:
    """Say in one line how far a snapshot may be trusted."""
    reasons = ", ".join(f"{printable(reason, 40)} {count}" for reason, count in sorted(quality.rejected.items()))
    return (
        f"{quality.keys_answered} of {quality.keys_asked} keys answered, "
        f"{quality.records_accepted} records accepted, {quality.records_rejected} rejected"
        + (f" ({reasons})" if reasons else "")
    )
