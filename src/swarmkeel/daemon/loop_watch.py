"""Measures how long the event loop leaves everybody waiting: whatever takes long in one piece, or keeps Python to itself."""

from __future__ import annotations

import asyncio
import gc
import selectors
import time
from collections.abc import Callable
from typing import Final

LATELY_SECONDS: Final = 300.0
_COLLECTOR_THRESHOLDS: Final = (10_000, 10, 400)
"""In place of (700, 10, 10): a whole collection, which takes 10 ms for each 1000 servers or so, after some hundred checks
and not in every one. Of what a check leaves next to nothing is for the collector: it holds no cycles."""


def tame_collector() -> None:
    """Keep the garbage collector from holding up the loop: it looks through everything in one piece, time and again.

    To be called when all has been imported, which stays for good and need not be looked through at all.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


class LoopWatch:
    """Notes every turn of one event loop.

    A turn is the time in which the loop does not look for what has come in: from one look to the next, together with
    the time by which the look before it came back late, since a thread would not let go of the interpreter. It costs two
    readings of the clock a turn, and wakes nobody.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._listener: Callable[[float], None] = lambda _: None
        self._since = clock()
        self._longest = 0.0
        self._longest_before = 0.0

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make the loop that is watched; for `asyncio.Runner(loop_factory=...)`."""
        return asyncio.SelectorEventLoop(_WatchedSelector(self._note, self._clock))

    def listen(self, listener: Callable[[float], None]) -> None:
        """Have the seconds of every turn told to `listener`, on the loop; the last one given hears them."""
        self._listener = listener

    def longest_lately(self) -> float:
        """Give the seconds of the longest turn in the last five minutes, or in up to twice as long."""
        self._forget()
        return max(self._longest, self._longest_before)

    def _note(self, seconds: float) -> None:
        self._forget()
        self._longest = max(self._longest, seconds)
        self._listener(seconds)

    def _forget(self) -> None:
        now = self._clock()
        if now - self._since < LATELY_SECONDS:
            return
        self._longest_before = self._longest if now - self._since < 2 * LATELY_SECONDS else 0.0
        self._longest, self._since = 0.0, now


class _WatchedSelector(selectors.DefaultSelector):
    def __init__(self, note: Callable[[float], None], clock: Callable[[], float]) -> None:
        super().__init__()
        self._note = note
        self._clock = clock
        self._woken_at: float | None = None
        self._late = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        looked_at = self._clock()
        if self._woken_at is not None:
            self._note(looked_at - self._woken_at + self._late)
        ready = super().select(timeout)
        self._woken_at = self._clock()
        # Where something has come in, it is not known when.
        waited = 0.0 if ready or timeout is None else self._woken_at - looked_at - max(timeout, 0.0)
        self._late = max(waited, 0.0)
        return ready
