"""One besieged swarm for all cases of a module; what a case has planted is gone before the next."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.hostile.besieged import Besieged, besieged
from tests.support.sidecars import short_folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Besieged]:
    with short_folder() as folder:
        async with besieged(folder) as swarm:
            yield swarm


@pytest_asyncio.fixture(loop_scope="module")
async def swarm(running: Besieged) -> Besieged:
    running.restore()
    return running
