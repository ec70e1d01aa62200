"""`swarmkeel supervise` around Petals' own servers, which know nothing of it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from swarmkeel.control.client import ControlClient
from swarmkeel.control.protocol import RestartPhase, RestartRequest
from swarmkeel.swarm.span import Span
from tests.petals.support import (
    BLOCKS,
    PATIENCE,
    PREFIX,
    PetalsServer,
    local_reference,
    make_model,
    petals_arguments,
    petals_client,
    petals_server,
    plain_server_command,
    wait_until_moved,
)
from tests.support.dht import DhtPeers
from tests.support.sidecars import SidecarProcess, short_folder, sidecar_process, write_config
from tests.support.sockets import free_port

_PROMPT, _COUNT = [1, 2, 3, 4], 8


@asynccontextmanager
async def _supervised(
    model: Path, initial_peers: Sequence[str], folder: Path, name: str, start: Span
) -> AsyncIterator[PetalsServer]:
    """Run one of Petals' own servers under supervise until the end of the block."""
    identity, socket = folder / f"{name}.key", folder / f"{name}.sock"
    server = plain_server_command(
        petals_arguments(
            model, initial_peers, identity=identity, port=free_port(), block_indices="{start}:{end}", throughput=10.0
        )
    )
    options = {
        "--socket": socket,
        "--dht-prefix": PREFIX,
        "--total-blocks": BLOCKS,
        "--num-blocks": len(start),
        "--throughput": 10.0,
        "--identity": identity,
        "--start": start,
        "--ready-pattern": r"\[INFO\].* Started$",
        "--stop-signal": "INT",
        "--stop-grace": "12s",
    }
    words = [str(word) for pair in options.items() for word in pair]
    command = [sys.executable, "-m", "swarmkeel", "supervise", *words, "--", *server]
    async with petals_server(folder, name, command, socket=socket) as running:
        yield running


@asynccontextmanager
async def _sidecar(
    folder: Path, name: str, initial_peers: Sequence[str], period: float
) -> AsyncIterator[SidecarProcess]:
    home = folder / f"{name}-sidecar"
    home.mkdir()
    config = write_config(
        home / "config.yaml",
        folder / f"{name}.sock",
        initial_peers,
        swarm={"dht_prefix": PREFIX, "total_blocks": BLOCKS},
        balance={"check_period": period},
        # A new process is away from the DHT for longer than it takes to load: until it is seen again, nobody else may
        # take the hole for still open. Sidecars that check at different times see to that.
        guards={"confirmations": 2},
        move={"restart_timeout": PATIENCE, "verify_timeout": 60},
    )
    async with sidecar_process(config) as running:
        yield running


async def test_sidecars_heal_a_swarm_of_unpatched_servers(figures: dict[str, str]) -> None:
    starts = {"a": Span(0, 4), "b": Span(0, 4), "c": Span(3, 7)}  # nobody serves block 7
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(short_folder())
        dht = await stack.enter_async_context(DhtPeers(1))
        model = await make_model(folder)
        servers = {
            name: await stack.enter_async_context(_supervised(model, dht.initial_peers, folder, name, start))
            for name, start in starts.items()
        }
        peer_ids = {}
        for name, server in servers.items():
            status = await server.wait_until_online(starts[name])
            peer_ids[name] = status.peer_id
            assert f"/p2p/{status.peer_id}" in await server.maddr()
        local = await stack.enter_async_context(local_reference(model, folder))
        expected = await local.generate(_PROMPT, _COUNT)
        client = await stack.enter_async_context(petals_client(model, dht.initial_peers, folder, attempts=2))

        failed = await client.ask(prompt=_PROMPT, count=_COUNT)
        assert "MissingBlocksError" in failed["error"]

        begin = time.monotonic()
        sidecars = [
            await stack.enter_async_context(_sidecar(folder, name, dht.initial_peers, period))
            for name, period in (("a", 3.0), ("b", 45.0), ("c", 90.0))
        ]
        await wait_until_moved(sidecars[0])
        moved = await servers["a"].wait_until_online(Span(4, 8))
        assert moved.peer_id == peer_ids["a"]  # another process, the same peer
        # It goes on as clients do without a limit of attempts: its view of the swarm is a while old, and libp2p lets a
        # moment pass before it dials a peer again that was not there between two processes.
        async with asyncio.timeout(PATIENCE):
            while "error" in (answer := await client.ask(prompt=_PROMPT, count=_COUNT)):
                pass
        assert answer == {"tokens": expected}
        figures["the same with supervise"] = f"{time.monotonic() - begin:.1f} s"

        # The way of the restart: the old process said goodbye, the new one has exactly the blocks it was told.
        log = servers["a"].log
        assert log.index("are offline") < log.index("Announced that blocks range(4, 8) are joining")
        assert [name for name in ("b", "c") if (await servers[name].status()).span != starts[name]] == []


def _forget_block(model: Path, block: int) -> None:
    """Take a block's weights out of the model's index: no server can load it any more."""
    index = model / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    weights = content["weight_map"]
    content["weight_map"] = {name: file for name, file in weights.items() if f".layers.{block}." not in name}
    assert content["weight_map"] != weights
    index.write_text(json.dumps(content))


async def test_blocks_that_cannot_be_loaded_bring_the_former_ones_back() -> None:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(short_folder())
        dht = await stack.enter_async_context(DhtPeers(1))
        model = await make_model(folder)
        server = await stack.enter_async_context(_supervised(model, dht.initial_peers, folder, "a", Span(0, 4)))
        before = await server.wait_until_online(Span(0, 4))
        _forget_block(model, 7)
        async with ControlClient(folder / "a.sock", request_timeout=PATIENCE) as client:
            await client.restart(RestartRequest("r", Span(4, 8), if_span=Span(0, 4), reason="test"))
        failed = await server.wait_for_status(
            lambda status: status.restart is not None and status.restart.phase.is_final
        )
        assert failed.restart is not None
        assert failed.restart.phase is RestartPhase.FAILED
        assert "model.layers.7.* not found in the index" in (failed.restart.error or "")
        back = await server.wait_until_online(Span(0, 4))
        assert (back.peer_id, back.restart) == (before.peer_id, failed.restart)
