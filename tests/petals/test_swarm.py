"""Real swarms: real Petals servers with the adapter, real sidecars, and a real client whose every token is checked."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from swarmkeel.control.client import ControlClient
from swarmkeel.control.protocol import PrefetchRequest, RestartPhase, RestartRequest, ServerPhase
from swarmkeel.swarm.span import Span
from tests.petals.hub import Hub, slow_hub
from tests.petals.support import (
    BLOCKS,
    PATIENCE,
    PREFIX,
    Conversation,
    PetalsServer,
    adapted_server,
    local_reference,
    make_model,
    petals_client,
    wait_until_moved,
)
from tests.support.dht import DhtPeers
from tests.support.sidecars import SidecarProcess, short_folder, sidecar_process, write_config

_PROMPT, _COUNT = [1, 2, 3, 4], 8
_SECONDS_A_FILE = 1.0
"""How long the stand-in of a hub takes to give a file of weights; about one block is in each."""


async def _place(server: PetalsServer, span: Span) -> None:
    """Put a server somewhere, as its sidecar would, and wait until it serves there."""
    assert server.socket is not None
    async with ControlClient(server.socket, request_timeout=PATIENCE) as control:
        await control.restart(RestartRequest(f"place-{time.monotonic_ns()}", span, None, "a test", conditional=False))
    await server.wait_until_online(span)


@asynccontextmanager
async def _sidecar(folder: Path, name: str, dht: DhtPeers, period: float) -> AsyncIterator[SidecarProcess]:
    home = folder / f"{name}-sidecar"
    home.mkdir()
    config = write_config(
        home / "config.yaml",
        folder / f"{name}.sock",
        dht.initial_peers,
        swarm={"dht_prefix": PREFIX, "total_blocks": BLOCKS},
        balance={"check_period": period},
        move={"restart_timeout": PATIENCE, "verify_timeout": 60},
    )
    async with sidecar_process(config) as running:
        yield running


async def _answered_again(client: Conversation) -> list[int]:
    """Ask until the swarm answers."""
    async with asyncio.timeout(PATIENCE):
        while "tokens" not in (answer := await client.ask(prompt=_PROMPT, count=_COUNT)):
            assert "MissingBlocksError" in answer["error"]
            await asyncio.sleep(0.1)
    return list(answer["tokens"])


async def test_an_idle_server_goes_where_its_sidecar_sends_it() -> None:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(short_folder())
        dht = await stack.enter_async_context(DhtPeers(1))
        model = await make_model(folder)
        servers = [
            await stack.enter_async_context(
                adapted_server(model, dht.initial_peers, folder, name, "--idle-limit", "600")
            )
            for name in ("a", "b")
        ]
        await _place(servers[0], Span(0, 4))
        idle = await servers[1].wait_for_status(lambda status: status.state is ServerPhase.IDLE)
        sidecar = await stack.enter_async_context(_sidecar(folder, "b", dht, 2.0))
        await wait_until_moved(sidecar)
        status = await servers[1].wait_until_online(Span(4, 8))
        assert status.peer_id == idle.peer_id


async def test_sidecars_heal_a_hole_and_then_the_death_of_a_server(figures: dict[str, str]) -> None:
    starts = {"a": Span(0, 4), "b": Span(0, 4), "c": Span(3, 7)}  # nobody serves block 7
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(short_folder())
        dht = await stack.enter_async_context(DhtPeers(1))
        model = await make_model(folder)
        servers = {
            name: await stack.enter_async_context(
                adapted_server(model, dht.initial_peers, folder, name, "--idle-limit", "600")
            )
            for name in starts
        }
        local = await stack.enter_async_context(local_reference(model, folder))
        expected = await local.generate(_PROMPT, _COUNT)
        for name, span in starts.items():
            await _place(servers[name], span)
        client = await stack.enter_async_context(petals_client(model, dht.initial_peers, folder, attempts=2))

        failed = await client.ask(prompt=_PROMPT, count=_COUNT)
        assert "MissingBlocksError" in failed["error"]

        begin = time.monotonic()
        sidecars = {
            name: await stack.enter_async_context(_sidecar(folder, name, dht, period))
            for name, period in (("a", 2.0), ("b", 9.0), ("c", 5.0))
        }
        assert await _answered_again(client) == expected
        figures["from the sidecars' start to the first answer of a swarm with a hole"] = (
            f"{time.monotonic() - begin:.1f} s"
        )

        # A server that is needed dies, with all its processes.
        spans = {name: (await server.wait_until_online()).span or Span(0, 1) for name, server in servers.items()}
        served = Counter(block for span in spans.values() for block in range(span.start, span.end))
        victim = next(name for name, span in spans.items() if min(served[i] for i in range(span.start, span.end)) == 1)
        begin, died_at = time.monotonic(), datetime.now(tz=UTC)
        await servers.pop(victim).crash()
        await _wait_for_cover(servers)
        figures["from kill -9 of a server until the others cover its blocks"] = (
            f"{time.monotonic() - begin:.1f} s (records live for 9 s, checks every 5 or 9 s)"
        )
        assert await _answered_again(client) == expected
        # No check was wasted: as soon as the record had expired, the next one that saw it moved its server.
        first_verdicts = [_first_verdict_on_a_hole(sidecars[name], died_at) for name in servers]
        assert "moving" in first_verdicts


def _first_verdict_on_a_hole(sidecar: SidecarProcess, since: datetime) -> str | None:
    for event in sidecar.events("check"):
        if event["uncovered_blocks"] and datetime.fromisoformat(event["time"]) > since:
            return str(event["verdict"])
    return None


async def _wait_for_cover(servers: dict[str, PetalsServer]) -> None:
    """Wait until these servers serve all blocks."""
    async with asyncio.timeout(PATIENCE):
        while True:
            seen = [await server.status() for server in servers.values()]
            covered = {
                block
                for status in seen
                if status.state is ServerPhase.ONLINE and status.span is not None
                for block in range(status.span.start, status.span.end)
            }
            if len(covered) == BLOCKS:
                return
            await asyncio.sleep(0.1)


async def _outage(server: PetalsServer, span: Span, *, prefetch: bool) -> tuple[float, float]:
    """Move a server; give the time at which it began to serve nothing, and for how many seconds that was so."""
    assert server.socket is not None
    name = f"{span}-{time.monotonic_ns()}"
    async with ControlClient(server.socket, request_timeout=PATIENCE) as control, asyncio.timeout(PATIENCE):
        if prefetch:
            await control.prefetch(PrefetchRequest(name, span))
            while f"the weights of blocks {span} are fetched" not in server.log:
                assert (await control.status()).state is ServerPhase.ONLINE
                await asyncio.sleep(0.02)
        # No longer than until the last session has ended: Petals 2.2's client cannot go on with one that is cut off.
        await control.restart(RestartRequest(name, span, None, "a test", drain_seconds=PATIENCE, conditional=False))
        stopped = None
        while True:
            status = await control.status()
            if stopped is None and status.state not in (ServerPhase.ONLINE, ServerPhase.DRAINING):
                stopped = time.monotonic()
            if status.restart is not None and status.restart.phase.is_final:
                assert status.restart.phase is RestartPhase.ONLINE
                assert stopped is not None
                return stopped, time.monotonic() - stopped
            await asyncio.sleep(0.01)


class _Swarm:
    """Four servers, two of each half; the halves of `cold` and `warm`, which clients prefer, are covered without them.

    Their weights come from a hub, so that a move has something to download.
    """

    def __init__(self, folder: Path, dht: DhtPeers, hub: Hub, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._dht = dht
        self._hub = hub
        self._stack = stack

    async def serve(self, name: str, span: Span, *options: str, throughput: float) -> PetalsServer:
        server = await self._stack.enter_async_context(
            adapted_server(
                "stand-in/tiny-llama",
                self._dht.initial_peers,
                self._folder,
                name,
                "--idle-limit",
                "600",
                *options,
                throughput=throughput,
                extra=("--cache_dir", str(self._folder / f"{name}-cache")),
                environment={"HF_ENDPOINT": self._hub.url, "HF_HUB_OFFLINE": "0"},
            )
        )
        await _place(server, span)
        return server


class _Generating:
    """A client that never stops to generate; each of its answers must be that of the whole model in one process."""

    def __init__(self, client: Conversation, local: Conversation) -> None:
        self._client = client
        self._local = local
        self._is_over = asyncio.Event()
        self.answers = 0

    async def run(self) -> None:
        while not self._is_over.is_set():
            prompt = [3 + self.answers % 100, 5, 7 + self.answers % 50]
            answer = await self._client.ask(prompt=prompt, count=12)
            assert answer.get("tokens") == await self._local.generate(prompt, 12), answer
            self.answers += 1

    async def go_on(self, count: int) -> None:
        """Wait for so many more answers."""
        goal = self.answers + count
        async with asyncio.timeout(PATIENCE):
            while self.answers < goal:
                await asyncio.sleep(0.05)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for answers until something is so."""
        async with asyncio.timeout(PATIENCE):
            while not reached():
                await self.go_on(1)

    def end(self) -> None:
        self._is_over.set()


async def test_a_client_of_a_healthy_swarm_gets_every_token_right_while_servers_move(
    figures: dict[str, str],
) -> None:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(short_folder())
        dht = await stack.enter_async_context(DhtPeers(1))
        model = await make_model(folder)
        hub = await stack.enter_async_context(slow_hub(model, _SECONDS_A_FILE))
        swarm = _Swarm(folder, dht, hub, stack)
        for name, span in (("a", Span(0, 4)), ("b", Span(4, 8))):
            await swarm.serve(name, span, throughput=1.0)
        cold = await swarm.serve("c", Span(4, 8), "--no-prefetch", throughput=100.0)
        warm = await swarm.serve("d", Span(0, 4), throughput=100.0)
        local = await stack.enter_async_context(local_reference(model, folder))
        client = await stack.enter_async_context(petals_client(model, dht.initial_peers, folder))
        outages = {}
        async with asyncio.TaskGroup() as tasks:
            generating = _Generating(client, local)
            running = tasks.create_task(generating.run())
            await generating.go_on(3)

            hub.downloads.clear()
            stopped, outages["cold, weights to be downloaded"] = await _outage(cold, Span(0, 4), prefetch=False)
            assert hub.downloads
            assert min(when for _, when in hub.downloads) > stopped
            await generating.go_on(3)

            hub.downloads.clear()
            _, outages["cold, weights on the disk"] = await _outage(cold, Span(4, 8), prefetch=False)
            assert not hub.downloads
            await generating.go_on(3)

            # It serves while the weights are fetched, and nothing is left to be fetched when it stops.
            stopped, outages["prefetched"] = await _outage(warm, Span(4, 8), prefetch=True)
            assert hub.downloads
            assert max(when for _, when in hub.downloads) < stopped
            await generating.go_on(3)

            hub.downloads.clear()
            _, outages["prefetched, weights on the disk"] = await _outage(warm, Span(0, 4), prefetch=True)
            assert not hub.downloads
            await generating.go_on(8)
            # Which servers a client takes is its own affair; that these two answer too is part of what is shown.
            await generating.until(lambda: all("rpc_inference.open" in server.log for server in (cold, warm)))
            generating.end()
            await running
        figures["answers during four moves, all right"] = str(generating.answers)
        for kind, seconds in outages.items():
            figures[f"outage of a server that moves, {kind}"] = f"{seconds:.2f} s"
