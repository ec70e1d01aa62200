"""Those who write false claims into the DHT: made-up peers, and whoever overwrites honest sidecars' records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from swarmkeel.simulation.dht import Dht
from swarmkeel.simulation.events import EventQueue
from swarmkeel.simulation.petals_loop import place_like_petals
from swarmkeel.simulation.scenario import HostilePart
from swarmkeel.simulation.server import SimulatedServer
from swarmkeel.simulation.sidecar import EPOCH
from swarmkeel.swarm.sidecar import Claim, Sidecar

_PERIOD: Final = 60.0
_LIFETIME: Final = 300.0
_USUAL_BLOCKS: Final = 12


class FalseClaims:
    """Writes false claims, all again every minute.

    They look as honest as can be: made-up peers claim the blocks that are weakest now, as a server that comes would;
    forged claims say that a server leaves its blocks for others, with the throughput that it has.

    Args:
        world: How many.
        total_blocks: Blocks of the model.
        queue: Simulated time.
        dht: Where they write.
        servers: The servers by peer id; whose records are overwritten is drawn by `is_forged`.
        is_forged: Says whether a server's record is overwritten.
        draw: Their own source of randomness.
    """

    def __init__(
        self,
        world: HostilePart,
        total_blocks: int,
        *,
        queue: EventQueue,
        dht: Dht,
        servers: Mapping[str, SimulatedServer],
        is_forged: Callable[[SimulatedServer], bool],
        draw: Random,
    ) -> None:
        self._world = world
        self._total_blocks = total_blocks
        self._queue = queue
        self._dht = dht
        self._servers = servers
        self._is_forged = is_forged
        self._draw = draw
        if world.phantom_claims or world.forged_share:
            queue.after(_PERIOD, self._write)

    def _write(self) -> None:
        now = EPOCH + self._queue.now
        view = self._dht.read(self._draw).servers
        length = min(_USUAL_BLOCKS, self._total_blocks)
        weakest = place_like_petals(view, length, self._total_blocks)
        typical = max((span.throughput for span in view.entries.values()), default=1.0)
        for number in range(self._world.phantom_claims):
            claim = Claim(None, weakest, now - self._draw.uniform(0.0, 60.0), now + _LIFETIME, typical)
            self._dht.tell(Sidecar(f"QmPhantom{number + 1}", 0.0, 60.0, (), claim), lifetime=_LIFETIME)
        for server in self._servers.values():
            span = server.span
            if span is None or not server.is_serving or not self._is_forged(server):
                continue
            target = place_like_petals(view, len(span), self._total_blocks)
            claim = Claim(span, target, now - 20.0, now + _LIFETIME, server.fate.announced_of(len(span)))
            if target != span:
                # It expires late, so that what the honest sidecar writes meanwhile is refused.
                self._dht.tell(Sidecar(server.peer_id, None, 60.0, (), claim), lifetime=2 * _LIFETIME)
        self._queue.after(_PERIOD, self._write)
