"""One DHT for all faults of a module, and a scene for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.faults.vocabulary import Scene
from tests.support.dht import DhtPeers
from tests.support.sidecars import short_folder


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(name): what the test injects, one of tests.support.ledger.FAULTS")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def peers() -> AsyncIterator[DhtPeers]:
    async with DhtPeers(3) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def scene(peers: DhtPeers, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    marker = request.node.get_closest_marker("fault")
    assert marker is not None, "which fault is this?"
    with short_folder() as folder:
        async with AsyncExitStack() as stack:
            made = Scene(marker.args[0], peers, folder, stack)
            stack.push_async_callback(peers.restart_all)
            yield made
            if made._own is not None:
                made.own.let_go()
                await made.own.told()
