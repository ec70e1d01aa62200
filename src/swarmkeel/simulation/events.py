"""Simulated time: a queue of what happens when. Real time never enters."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class EventQueue:
    """Calls functions in the order of their times; of those at the same time, in the order in which they were put in.

    Attributes:
        now: Simulated seconds from the beginning of the run.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Let something happen at a time, at once if that has passed."""
        self._count += 1
        heapq.heappush(self._heap, (max(time, self.now), self._count, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen after a time."""
        self.at(self.now + seconds, action)

    def run_until(self, end: float) -> None:
        """Let everything happen that is due up to `end`, that moment included."""
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.now, _, action = heapq.heappop(heap)
            action()
        self.now = max(self.now, end)
