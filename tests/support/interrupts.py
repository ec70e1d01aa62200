"""Long runs that end what they started, also when they are told to end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

INTERRUPTED = 130


def run_to_the_end(work: Coroutine[Any, Any, int]) -> int:
    """Run something in an event loop, and give its exit code; SIGINT, SIGTERM and SIGHUP cancel it, once."""

    async def main() -> int:
        task = asyncio.ensure_future(work)
        told: list[int] = []

        def interrupt(number: int) -> None:
            # Only once: a second Ctrl-C must not interrupt the cleaning up.
            if not told:
                task.cancel()
            told.append(number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
        try:
            return await task
        except asyncio.CancelledError:
            return INTERRUPTED

    return asyncio.run(main())
