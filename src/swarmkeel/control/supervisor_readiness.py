"""How a supervised server shows that it serves its blocks: by what it writes, or by a port that opens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from swarmkeel.swarm.span import Span

_POLL_SECONDS: Final = 0.1
_CONNECT_SECONDS: Final = 2.0


class Probe(Protocol):
    """Looks at one run of the command; made anew for each."""

    def look_at(self, text: bytes) -> None:
        """Take a line of its output; called in other threads. Most probes do not care."""

    async def wait(self) -> None:
        """Wait until it is ready."""


ProbeFactory = Callable[[Span], Probe]
"""Makes the probe of a run on these blocks."""


class PatternProbe:
    """Ready as soon as a line of the output matches.

    Args:
        pattern: Searched for in the bytes of each line.
    """

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self._found = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def look_at(self, text: bytes) -> None:
        """Take a line of the output."""
        if not self._found.is_set() and self._pattern.search(text):
            with suppress(RuntimeError):  # the loop is gone: nobody waits any more
                self._loop.call_soon_threadsafe(self._found.set)

    async def wait(self) -> None:
        """Wait until the pattern has come."""
        await self._found.wait()


class PortProbe:
    """Ready as soon as a TCP port takes connections.

    Args:
        host: Host to connect to.
        port: Its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    def look_at(self, text: bytes) -> None:
        """Do nothing: the output tells nothing of ports."""

    async def wait(self) -> None:
        """Wait until the port takes a connection, which is closed at once."""
        while True:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    _reader, writer = await asyncio.open_connection(self._host, self._port)
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
                return
            await asyncio.sleep(_POLL_SECONDS)


class AllOf:
    """Ready when all of several probes are.

    Args:
        probes: At least one.
    """

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes = probes

    def look_at(self, text: bytes) -> None:
        """Show a line of the output to all of them."""
        for probe in self._probes:
            probe.look_at(text)

    async def wait(self) -> None:
        """Wait for all of them."""
        async with asyncio.TaskGroup() as group:
            for probe in self._probes:
                group.create_task(probe.wait())
