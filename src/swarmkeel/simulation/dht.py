"""The DHT as many readers see it: records that show late, get lost, expire, and are read incompletely or late."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Final, Generic, TypeVar

from swarmkeel.simulation.events import EventQueue
from swarmkeel.simulation.scenario import DhtPart
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.renewal import RenewalWatch
from swarmkeel.swarm.sidecar import Sidecar
from swarmkeel.swarm.span import Span

_Value = TypeVar("_Value")
_Computed = TypeVar("_Computed")

_SPARE_SECONDS: Final = 60.0
"""So much longer than a reading can be late former states are kept."""
_TRIM_EVERY: Final = 64
_LOOK_AT_RENEWALS_EVERY: Final = 5.0


@dataclass(slots=True)
class View(Generic[_Value]):
    """The records of a table at some time. Whatever is computed from it is computed once, for all who read it.

    Attributes:
        number: Counts the table's changes; -1 for a view that only one reader has.
        entries: The records by peer id; not to be changed.
    """

    number: int
    entries: Mapping[str, _Value]
    _computed: dict[Hashable, object] = field(default_factory=dict)

    def compute(self, key: Hashable, function: Callable[[], _Computed]) -> _Computed:
        """Give what `function` gives, computed only the first time that this is asked for under this key."""
        if key not in self._computed:
            self._computed[key] = function()
        return self._computed[key]  # type: ignore[return-value]  # each key has one function


class Table(Generic[_Value]):
    """Expiring records, one a peer, with all their former states.

    Args:
        queue: Simulated time.
        kept_seconds: How long former states are kept.
    """

    def __init__(self, queue: EventQueue, kept_seconds: float) -> None:
        self._queue = queue
        self._kept_seconds = kept_seconds
        self._records: dict[str, tuple[_Value, float]] = {}
        self._newest: dict[str, float] = {}
        self._times = [-1.0]
        self._views: list[View[_Value]] = [View(0, {})]
        self._changes = 0
        self._looked_at = [-1.0]
        self._renewals = RenewalWatch()
        self._overdue: list[frozenset[str]] = [frozenset()]

    def put(self, peer_id: str, value: _Value | None, expires_at: float) -> None:
        """Replace a peer's record, unless the one that is there expires later; None stands for a tombstone."""
        if expires_at < self._newest.get(peer_id, -1.0):
            return
        self._newest[peer_id] = expires_at
        former = self._records.get(peer_id)
        if value is None:
            if former is not None:
                del self._records[peer_id]
                self._changed()
            return
        self._records[peer_id] = (value, expires_at)
        if former is None:
            self._queue.at(expires_at, partial(self._expire, peer_id))
        if former is None or former[0] != value:
            self._changed()

    def _expire(self, peer_id: str) -> None:
        record = self._records.get(peer_id)
        if record is None:
            return
        if record[1] > self._queue.now:
            self._queue.at(record[1], partial(self._expire, peer_id))
            return
        del self._records[peer_id]
        self._changed()

    def _changed(self) -> None:
        self._changes += 1
        view = View(self._changes, {peer_id: value for peer_id, (value, _) in self._records.items()})
        if self._times[-1] == self._queue.now:
            self._views[-1] = view
            return
        self._times.append(self._queue.now)
        self._views.append(view)
        if self._changes % _TRIM_EVERY == 0:
            old = max(bisect_right(self._times, self._queue.now - self._kept_seconds) - 1, 0)
            del self._times[:old], self._views[:old]

    def overdue_at(self, time: float) -> frozenset[str]:
        """Give the peers whose records were overdue at a time, by the production rule, at the newest look before it."""
        now = self._queue.now
        if now >= self._looked_at[-1] + _LOOK_AT_RENEWALS_EVERY:
            expirations = {peer_id: expires_at for peer_id, (_, expires_at) in self._records.items()}
            self._looked_at.append(now)
            self._overdue.append(self._renewals.overdue(expirations, now))
            old = max(bisect_right(self._looked_at, now - self._kept_seconds) - 1, 0)
            del self._looked_at[:old], self._overdue[:old]
        return self._overdue[max(bisect_right(self._looked_at, time) - 1, 0)]

    def at(self, time: float) -> View[_Value]:
        """Give the table as it was at a time, or the oldest state that is still known."""
        return self._views[max(bisect_right(self._times, time) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reading of the DHT showed.

    Attributes:
        servers: The servers' spans that it found, in no particular order.
        complete: The same with those that it missed.
        answered: Share of the block keys that were answered.
        lost: Blocks whose keys were not answered.
        read_at: The time whose state it shows.
        overdue: Servers whose records should have been renewed by then.
    """

    servers: View[RemoteSpanInfo[str]]
    complete: View[RemoteSpanInfo[str]]
    answered: float
    lost: frozenset[int]
    read_at: float
    overdue: frozenset[str] = frozenset()

    def remembering(self, former: Reading | None) -> Reading:
        """Add what a former reading of the same reader knew and this one missed, as `swarm.record_memory` does."""
        if former is None or self.servers is self.complete:
            return self
        known, present = former.servers.entries, self.servers.entries
        missed = [peer_id for peer_id in self.complete.entries if peer_id not in present]
        if all(known.get(peer_id) == self.complete.entries[peer_id] for peer_id in missed):
            return replace(self, servers=self.complete)
        entries = {**present, **{peer_id: known[peer_id] for peer_id in missed if peer_id in known}}
        return replace(self, servers=View(-1, entries))


class Dht:
    """Both tables: what servers announce of their blocks, and what sidecars tell each other.

    Args:
        queue: Simulated time.
        world: How it lags and forgets.
        total_blocks: Blocks of the model.
        draw: Its own source of randomness.
    """

    def __init__(self, queue: EventQueue, world: DhtPart, total_blocks: int, draw: Random) -> None:
        self._queue = queue
        self._world = world
        self._total_blocks = total_blocks
        self._draw = draw
        kept_seconds = world.read_delay + world.stale_seconds + _SPARE_SECONDS
        self.servers: Table[RemoteSpanInfo[str]] = Table(queue, kept_seconds)
        self.sidecars: Table[Sidecar] = Table(queue, kept_seconds)

    def announce(self, peer_id: str, span: RemoteSpanInfo[str] | None, clock_offset: float = 0.0) -> None:
        """Store a server's record, JOINING or ONLINE; None stands for OFFLINE.

        Args:
            peer_id: The server.
            span: Where it says that it is.
            clock_offset: Its clock minus true time: its records expire by its own clock.
        """
        if self._draw.random() < self._world.lost_write_share:
            return
        expires_at = self._queue.now + self._world.expiration + clock_offset
        self._queue.after(self._store_delay(), lambda: self.servers.put(peer_id, span, expires_at))

    def tell(self, sidecar: Sidecar, *, lifetime: float, extra_delay: float = 0.0) -> None:
        """Store a sidecar's record.

        Args:
            sidecar: The record.
            lifetime: Seconds until it expires.
            extra_delay: Seconds by which others see it later than usual.
        """
        expires_at = self._queue.now + lifetime
        self._queue.after(
            self._store_delay() + extra_delay, lambda: self.sidecars.put(sidecar.peer_id, sidecar, expires_at)
        )

    def _store_delay(self) -> float:
        mean = self._world.store_delay
        return self._draw.expovariate(1.0 / mean) if mean else 0.0

    def _seen_time(self, draw: Random) -> float:
        """Say which moment's state a reading that ends now shows."""
        time = self._queue.now - self._world.read_delay
        if draw.random() < self._world.stale_read_share:
            time -= draw.uniform(0.0, self._world.stale_seconds)
        return time

    def read(self, draw: Random, *, not_before: float = -math.inf) -> Reading:
        """Read all block keys; the reading ends now.

        Args:
            draw: The reader's source of randomness.
            not_before: Time of what the reader remembers: an older state tells it nothing.
        """
        time = max(self._seen_time(draw), not_before)
        view, overdue = self.servers.at(time), self.servers.overdue_at(time)
        loss = self._world.bad_read_loss if draw.random() < self._world.bad_read_share else self._world.lost_key_share
        lost = frozenset(_lose(self._total_blocks, loss, draw))
        answered = 1 - len(lost) / self._total_blocks
        shortest = view.compute("shortest", lambda: min((span.length for span in view.entries.values()), default=1))
        if len(lost) < shortest:
            return Reading(view, view, answered, lost, time, overdue)
        # A record stands under every block of its span: the server is missed only where all of them are.
        entries = {
            peer_id: span
            for peer_id, span in view.entries.items()
            if span.length > len(lost) or not lost.issuperset(range(span.start, span.end))
        }
        found = view if len(entries) == len(view.entries) else View(-1, entries)
        return Reading(found, view, answered, lost, time, overdue)

    def read_sidecars(self, reading: Reading) -> View[Sidecar]:
        """Read what sidecars tell, together with what servers announce: both as of the same moment."""
        return self.sidecars.at(reading.read_at)


def _lose(total_blocks: int, loss: float, draw: Random) -> Iterator[int]:
    """Draw which keys are lost, each with the same probability; draws once for each lost key, not for each key."""
    if loss <= 0:
        return
    if loss >= 1:
        yield from range(total_blocks)
        return
    scale = math.log1p(-loss)
    block = int(math.log(1.0 - draw.random()) / scale)
    while block < total_blocks:
        yield block
        block += 1 + int(math.log(1.0 - draw.random()) / scale)


def ordered_spans(view: View[RemoteSpanInfo[str]]) -> dict[str, RemoteSpanInfo[str]]:
    """Give the spans in the order of Petals' `compute_spans`: by first block, then by peer id."""
    return view.compute(
        "ordered",
        lambda: {
            span.peer_id: span for span in sorted(view.entries.values(), key=lambda span: (span.start, span.peer_id))
        },
    )


def announced(peer_id: str, span: Span, state: ServerState, throughput: float) -> RemoteSpanInfo[str]:
    """Make a server's record as `compute_spans` gives it."""
    info = ServerInfo(state, throughput, start_block=span.start, end_block=span.end)
    return RemoteSpanInfo(peer_id, span.start, span.end, info)
