"""A pytest plugin: peers of a DHT that all tests of one worker share, for starting them takes a second of processor time.

For tests that plant records, announce, freeze or kill, and that start servers beside them. Who has one of them lie starts
others (`DhtPeers`): a liar remains one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.dht import DhtPeers

beside_shared_peers = pytest.mark.asyncio(loop_scope="session")
"""For tests that use them: they run in the peers' event loop."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _three_peers() -> AsyncIterator[DhtPeers]:
    async with DhtPeers(3) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def shared_peers(_three_peers: DhtPeers) -> DhtPeers:
    """Give three peers that hold no records and know each other alone."""
    await _three_peers.as_new()
    return _three_peers
