"""What the daemon knows right now: written by its loop, read by metrics and HTTP."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from swarmkeel.balance.bound import measure
from swarmkeel.balance.decision import Decision, SwarmNumbers
from swarmkeel.balance.throughput import compute_throughputs
from swarmkeel.control.protocol import ServerStatus
from swarmkeel.daemon.changes import Changes
from swarmkeel.daemon.guard import Breaker, GuardSettings, GuardView
from swarmkeel.daemon.move import Move
from swarmkeel.daemon.pause import Pause
from swarmkeel.swarm.dht_traffic import DhtTraffic
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.snapshot import KeyReading, SwarmSnapshot

TIMELINE_POINTS: Final = 3000
"""So many snapshots' numbers are remembered: two days of one a minute."""


@dataclass(frozen=True)
class SwarmView:
    """A snapshot in numbers, computed once for all who look at it.

    Attributes:
        snapshot: What they were computed from.
        block_throughput_rps: Throughput of each block by ONLINE servers alone, what clients get now; shape (blocks,).
        block_servers: Number of servers by (block, state) with their span over it.
        servers: Number of servers by state; a server seen in several counts in the highest.
        numbers: Bottleneck and uncovered blocks by ONLINE servers; the bound counts JOINING ones too.
        uncovered_blocks: Blocks that were read and that no ONLINE server covers.
    """

    snapshot: SwarmSnapshot
    block_throughput_rps: np.ndarray[tuple[int], np.dtype[np.float64]]
    block_servers: Mapping[tuple[int, ServerState], int]
    servers: Mapping[ServerState, int]
    numbers: SwarmNumbers
    uncovered_blocks: tuple[int, ...]


def view_swarm(snapshot: SwarmSnapshot) -> SwarmView:
    """Compute the numbers of a snapshot."""
    announced = snapshot.spans(ServerState.OFFLINE)
    online = {peer: span for peer, span in announced.items() if span.state is ServerState.ONLINE}
    present = {peer: span for peer, span in announced.items() if span.state is not ServerState.OFFLINE}
    throughput = compute_throughputs(online, total_blocks=snapshot.total_blocks)
    serving = measure(online, total_blocks=snapshot.total_blocks)
    block_servers: Counter[tuple[int, ServerState]] = Counter()
    for span in announced.values():
        block_servers.update((block, span.state) for block in range(max(span.start, 0), span.end))
    return SwarmView(
        snapshot=snapshot,
        block_throughput_rps=throughput,
        block_servers=block_servers,
        servers=Counter(span.state for span in announced.values()),
        numbers=serving.model_copy(
            update={"bound_rps": measure(present, total_blocks=snapshot.total_blocks).bound_rps}
        ),
        uncovered_blocks=tuple(
            index
            for index, block in enumerate(snapshot.blocks)
            if block.reading is not KeyReading.UNKNOWN and throughput[index] <= 0
        ),
    )


@dataclass(frozen=True)
class ClaimsView:
    """What the newest check saw of the sidecars.

    Attributes:
        sidecars: Sidecars that told something.
        claims: Claims of others that count.
        implausible: Claims that cannot be true.
        rejected: Records that were not accepted.
        readable: Whether the board could be read.
    """

    sidecars: int
    claims: int
    implausible: int
    rejected: int
    readable: bool


@dataclass
class DaemonState:
    """The one mutable picture of the daemon; changed only on the event loop.

    Attributes:
        started_at: When the daemon started; times are seconds since the epoch.
        swarm: The newest snapshot in numbers; None until the first.
        snapshot_is_good: Whether the newest attempt to read gave a snapshot above the floor.
        ready: Whether there ever was one.
        snapshot_seconds: How long the newest reading took.
        server: The server's newest status; None while it does not answer.
        span_since: Since when it serves its present span, as far as this process has seen.
        decision: What the newest check ended in.
        move: The move under way, else the last one.
        breaker: What failed moves hold back, as of the newest check.
        last_check_at: When the newest check ended.
        check_period_seconds: Time between two checks by the configuration in force; None until the first.
        last_turn_at: When the loop last turned, be it with an error.
        config_is_current: Whether the newest reload succeeded.
        dht_peers: Peers in the DHT's routing table.
        dht_traffic: What was asked of other peers of the DHT.
        claims: What was seen of the other sidecars; None while the policy does not look at them.
        own_claim: The own claim; None without one.
        staged_blocks: Blocks that the server has on disk for what may come; None while nothing is staged.
        pause: The operator's pause, be it over or not; None without one.
        sidecars: What other sidecars tell that counts, by their servers' peer ids, as of the newest check that looked.
        guards: What the guards looked at in that check, and their limits; None until the first.
        timeline: When the newest snapshots above the floor were read, and their numbers, the oldest first.
        changes: Told whenever anything here has changed.
    """

    started_at: float
    swarm: SwarmView | None = None
    snapshot_is_good: bool = False
    ready: bool = False
    snapshot_seconds: float | None = None
    server: ServerStatus | None = None
    span_since: float | None = None
    decision: Decision | None = None
    move: Move | None = None
    breaker: Breaker = Breaker()  # noqa: RUF009 - frozen
    last_check_at: float | None = None
    check_period_seconds: float | None = None
    last_turn_at: float = 0.0
    config_is_current: bool = True
    dht_peers: int = 0
    dht_traffic: DhtTraffic = field(default_factory=DhtTraffic)
    claims: ClaimsView | None = None
    own_claim: Claim | None = None
    staged_blocks: int | None = None
    pause: Pause | None = None
    sidecars: Mapping[str, Sidecar] = field(default_factory=dict)
    guards: tuple[GuardView, GuardSettings] | None = None
    timeline: deque[tuple[float, SwarmNumbers]] = field(default_factory=lambda: deque(maxlen=TIMELINE_POINTS))
    changes: Changes = field(default_factory=Changes)

    def show_swarm(self, view: SwarmView, *, is_good: bool) -> None:
        """Take a new snapshot; the numbers of one above the floor are remembered.

        Of a swarm that was hardly read one knows neither its bottleneck nor its holes: they are no part of its past.
        """
        self.swarm = view
        self.snapshot_is_good = is_good
        self.ready |= is_good
        if is_good:
            self.timeline.append((view.snapshot.read_at, serving_numbers(view)))
        self.changes.note()


def serving_numbers(view: SwarmView) -> SwarmNumbers:
    """Give a snapshot's numbers; as uncovered count only blocks that were read."""
    return view.numbers.model_copy(update={"uncovered_blocks": len(view.uncovered_blocks)})
