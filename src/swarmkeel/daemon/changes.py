"""Word that something has changed, for whoever waits for it."""

from __future__ import annotations

import asyncio


class Changes:
    """A counter that can be waited for; used on one event loop.

    Attributes:
        revision: How often something has changed.
        is_closed: Whether nothing more will change.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.is_closed = False
        self._event = asyncio.Event()

    def note(self) -> None:
        """Say that something has changed: whoever waits goes on."""
        self.revision += 1
        event, self._event = self._event, asyncio.Event()
        event.set()

    def close(self) -> None:
        """Let everybody who waits, now or later, go on at once."""
        self.is_closed = True
        self.note()

    async def wait(self, seen: int, *, at_most: float) -> int:
        """Wait until something has changed since a revision, for so many seconds.

        Returns:
            The present revision; the one that was seen if the time is over.
        """
        if self.revision == seen and not self.is_closed:
            try:
                async with asyncio.timeout(at_most):
                    await self._event.wait()
            except TimeoutError:
                pass
        return self.revision
