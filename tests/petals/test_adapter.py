"""One real Petals server and its adapter: every request of the control protocol, and every way it can go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarmkeel.control.client import ControlClient, ServerRefused
from swarmkeel.control.protocol import PrefetchRequest, RestartPhase, RestartRequest, ServerPhase, ServerStatus
from swarmkeel.swarm.span import Span
from tests.petals.support import (
    BLOCKS,
    PATIENCE,
    PREFIX,
    PetalsServer,
    adapted_server,
    faulty_adapter,
    make_model,
    petals_client,
)
from tests.support.dht import DhtPeers, process_runs, wait_until
from tests.support.sidecars import SidecarProcess, short_folder, sidecar_process, write_config

_BROKEN = 7
"""A block whose weights some tests take away."""
_LOST_AFTER = 40.0
"""Seconds without a sidecar, longer than one that reads the swarm on a busy machine stays silent."""


async def move(server: PetalsServer, name: str, span: Span, drain_seconds: float = 0.0) -> ServerStatus:
    """Tell a server to restart, and give the first answer."""
    assert server.socket is not None
    async with ControlClient(server.socket, request_timeout=PATIENCE) as client:
        request = RestartRequest(name, span, None, "a test", drain_seconds, conditional=False)
        return await client.restart(request)


async def move_to_the_end(server: PetalsServer, name: str, span: Span) -> ServerStatus:
    """Tell a server to restart, and wait until the restart has ended one way or the other."""
    await move(server, name, span)
    return await server.wait_for_status(
        lambda status: status.restart is not None and status.restart.id == name and status.restart.phase.is_final
    )


@asynccontextmanager
async def one_server(*options: str, **settings: object) -> AsyncIterator[tuple[PetalsServer, Path, DhtPeers]]:
    """Run one server with a model of its own until the end of the block."""
    with short_folder() as folder:
        async with DhtPeers(1) as dht:
            model = await make_model(folder)
            async with adapted_server(
                model,
                dht.initial_peers,
                folder,
                "one",
                *options,
                **settings,  # type: ignore[arg-type] # passed on as they are
            ) as server:
                yield server, model, dht


def _children(pid: int) -> list[int]:
    """Give the ids of all processes below one."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(path.parent.name))
    found = list(parents.get(pid, ()))
    for child in found:  # grows while it is walked
        found += parents.get(child, ())
    return found


def _resources(pid: int) -> dict[str, int]:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "MB of memory": int(status["VmRSS"].split()[0]) // 1024,
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(status["Threads"]),
        "children": len(_children(pid)),
    }


async def _phases_until_online(server: PetalsServer, name: str, span: Span) -> tuple[ServerStatus, set[RestartPhase]]:
    """Tell a server to restart, and give its last status and all phases that were seen on the way."""
    seen = set()

    def look(status: ServerStatus) -> bool:
        assert status.restart is not None
        assert status.restart.id == name
        seen.add(status.restart.phase)
        return status.restart.phase.is_final

    look(await move(server, name, span))
    return await server.wait_for_status(look), seen


async def test_ten_restarts_leave_nothing_behind(figures: dict[str, str]) -> None:
    async with one_server("--idle-limit", "600") as (server, _, _):
        idle = await server.wait_for_status(lambda status: status.state is ServerPhase.IDLE)
        assert idle.implementation.startswith("petals/")
        assert (idle.dht_prefix, idle.total_blocks, idle.num_blocks) == (PREFIX, BLOCKS, 4)
        assert idle.throughput == 10.0
        assert (idle.span, idle.pinned, idle.sessions) == (None, False, 0)
        assert set(idle.capabilities) == {"drain", "prefetch"}
        before: dict[str, int] = {}
        phases = set()
        for number in range(12):
            span = Span(number % 5, number % 5 + 4)
            done, seen = await _phases_until_online(server, f"move-{number}", span)
            phases |= seen
            assert done.restart is not None
            assert (done.restart.phase, done.restart.error) == (RestartPhase.ONLINE, None)
            assert (done.state, done.span, done.peer_id) == (ServerPhase.ONLINE, span, idle.peer_id)
            log = server.log
            assert f"Announced that blocks range({span.start}, {span.end}) are joining" in log
            if number == 1:  # from here on everything has been loaded once
                before = _resources(server.process.pid)
        # Each lasts a moment only with blocks so small, so that not every move shows every one.
        assert {RestartPhase.ACCEPTED, RestartPhase.LOADING, RestartPhase.ONLINE} <= phases
        assert RestartPhase.FAILED not in phases
        after = _resources(server.process.pid)
        figures["before ten restarts"] = str(before)
        figures["after ten restarts"] = str(after)
        assert after["children"] == before["children"]
        assert abs(after["threads"] - before["threads"]) <= 2
        assert abs(after["descriptors"] - before["descriptors"]) <= 5
        assert after["MB of memory"] < before["MB of memory"] * 1.1


async def test_a_span_that_cannot_be_had_ends_in_failed_and_the_former_one_serves() -> None:
    async with one_server("--idle-limit", "600") as (server, model, _):
        await move_to_the_end(server, "first", Span(0, 4))
        index = model / "model.safetensors.index.json"
        whole = index.read_text()
        weights = json.loads(whole)["weight_map"]
        missing = [name for name in weights if f".{_BROKEN}." in name]

        # A file is missing: found while the old blocks serve, which go on serving.
        file = model / weights[missing[0]]
        away = shutil.move(file, model / "away")
        failed = await move_to_the_end(server, "no-file", Span(4, 8))
        assert failed.restart is not None
        assert failed.restart.phase is RestartPhase.FAILED
        assert "WeightsUnavailable" in (failed.restart.error or "")
        assert (failed.state, failed.span) == (ServerPhase.ONLINE, Span(0, 4))
        assert _loads(server) == 1
        shutil.move(away, file)

        # The files are there, but not with these weights: found only when the block is put together.
        elsewhere = next(file for name, file in weights.items() if ".0." in name)
        index.write_text(json.dumps({"metadata": {}, "weight_map": weights | dict.fromkeys(missing, elsewhere)}))
        failed = await move_to_the_end(server, "wrong-weights", Span(4, 8))
        assert failed.restart is not None
        assert failed.restart.phase is RestartPhase.FAILED
        assert "missing" in (failed.restart.error or "")
        back = await server.wait_until_online(Span(0, 4))
        assert back.restart is not None
        assert (back.restart.id, back.restart.phase) == ("wrong-weights", RestartPhase.FAILED)
        assert back.peer_id == failed.peer_id

        index.write_text(whole)
        done = await move_to_the_end(server, "mended", Span(4, 8))
        assert (done.state, done.span) == (ServerPhase.ONLINE, Span(4, 8))


@asynccontextmanager
async def _faulty_server(*options: str) -> AsyncIterator[tuple[PetalsServer, Path]]:
    """Run a server which serves 0:4 and fails as is written into the file that is given with it."""
    with short_folder() as folder:
        demand = folder / "demand"
        async with DhtPeers(1) as dht:
            model = await make_model(folder)
            async with adapted_server(
                model,
                dht.initial_peers,
                folder,
                "one",
                "--idle-limit",
                "600",
                *options,
                adapter=faulty_adapter(demand),
            ) as server:
                await move_to_the_end(server, "first", Span(0, 4))
                yield server, demand


async def _fail_and_return(server: PetalsServer, demand: Path, failure: str) -> str:
    """Have a move to 4:8 fail, see the former blocks come back, and give the reason that was shown."""
    before = await server.wait_until_online(Span(0, 4))
    demand.write_text(failure)
    failed = await move_to_the_end(server, failure, Span(4, 8))
    assert failed.restart is not None
    assert failed.restart.phase is RestartPhase.FAILED
    assert not demand.exists()
    back = await server.wait_until_online(Span(0, 4))
    assert (back.restart, back.peer_id) == (failed.restart, before.peer_id)
    return failed.restart.error or ""


async def test_a_load_that_runs_out_of_memory_ends_in_failed_and_lets_go_of_what_it_had() -> None:
    async with _faulty_server() as (server, demand):
        before = _resources(server.process.pid)
        for failure, reason in (
            ("torch out of memory", "RuntimeError: .*can't allocate memory"),
            ("Python out of memory", "MemoryError"),
            ("CUDA out of memory", "OutOfMemoryError: CUDA out of memory"),
        ):
            assert re.match(reason, await _fail_and_return(server, demand, failure))
        # Three blocks of 100 MB each were loaded when the fourth failed, three times.
        after = _resources(server.process.pid)
        assert after["MB of memory"] < before["MB of memory"] + 150
        assert after["children"] == before["children"]
        done = await move_to_the_end(server, "last", Span(4, 8))
        assert (done.state, done.span) == (ServerPhase.ONLINE, Span(4, 8))


async def test_handlers_that_do_not_start_end_the_load_in_failed() -> None:
    async with _faulty_server("--start-limit", "30") as (server, demand):
        before = _resources(server.process.pid)
        for failure, reason in (
            ("handler ends", "NotServingError: .* exit code 3"),
            ("handler is refused", "NotServingError: .* OSError: no way to the swarm"),
            ("handler hangs", "NotServingError: .* not started within 30 s"),
        ):
            assert re.match(reason, await _fail_and_return(server, demand, failure))
        after = _resources(server.process.pid)
        assert after["children"] == before["children"]
        assert abs(after["threads"] - before["threads"]) <= 2
        done = await move_to_the_end(server, "last", Span(4, 8))
        assert (done.state, done.span) == (ServerPhase.ONLINE, Span(4, 8))


async def test_a_signal_while_handlers_start_leaves_no_process_behind() -> None:
    async with _faulty_server() as (server, demand):
        demand.write_text("handler hangs")
        await move(server, "second", Span(4, 8))
        await wait_until(lambda: not demand.exists(), seconds=PATIENCE)
        children = _children(server.process.pid)
        server.process.signal(signal.SIGTERM)
        await server.process.wait()
        await wait_until(lambda: not any(map(process_runs, children)))


async def test_when_a_handler_crashes_the_same_blocks_are_loaded_again() -> None:
    async with one_server("--idle-limit", "600") as (server, _, _):
        await move_to_the_end(server, "first", Span(0, 4))
        former = _children(server.process.pid)
        await move_to_the_end(server, "second", Span(4, 8))
        handlers = set(_children(server.process.pid)) - set(former)
        assert len(handlers) == 1
        os.kill(handlers.pop(), signal.SIGKILL)
        await server.wait_until_started(3)
        # A sidecar is in touch, so that its choice holds.
        back = await server.wait_until_online(Span(4, 8))
        assert back.restart is not None
        assert (back.restart.id, back.restart.phase) == ("second", RestartPhase.ONLINE)
        assert "One of subprocesses crashed" in server.log


async def test_draining_waits_for_open_sessions_and_refuses_new_ones() -> None:
    async with (
        one_server("--idle-limit", "600", num_blocks=8) as (server, model, dht),
        petals_client(model, dht.initial_peers, model.parent) as client,
    ):
        await move_to_the_end(server, "first", Span(0, 8))
        assert "tokens" in await client.ask(prompt=[1, 2, 3], count=2, session=True)
        await server.wait_for_status(lambda status: status.sessions == 1)
        await move(server, "second", Span(0, 8), drain_seconds=600)
        draining = await server.wait_for_status(lambda status: status.state is ServerPhase.DRAINING)
        assert draining.restart is not None
        assert draining.restart.phase is RestartPhase.DRAINING
        assert (draining.span, draining.sessions) == (Span(0, 8), 1)
        # The open session still gets its answers, another one none.
        assert "tokens" in await client.ask(count=2, session=True)
        async with petals_client(model, dht.initial_peers, model.parent, attempts=1, name="late") as late:
            assert "error" in await late.ask(prompt=[1, 2, 3], count=2)
        assert (await server.status()).state is ServerPhase.DRAINING
        assert await client.ask(end=True) == {"ended": True}
        done = await server.wait_for_status(lambda status: status.restart.phase.is_final)
        assert done.restart is not None
        assert (done.restart.id, done.restart.phase, done.sessions) == ("second", RestartPhase.ONLINE, 0)

        # Not even an open session holds a move up for longer than it is given.
        assert "tokens" in await client.ask(prompt=[1, 2, 3], count=2, session=True)
        await server.wait_for_status(lambda status: status.sessions == 1)
        await move(server, "third", Span(0, 8), drain_seconds=1)
        done = await server.wait_for_status(lambda status: status.restart.phase.is_final)
        assert done.restart is not None
        assert (done.restart.id, done.restart.phase, done.sessions) == ("third", RestartPhase.ONLINE, 0)
        assert await client.ask(end=True) == {"ended": True}
        assert "tokens" in await client.ask(prompt=[1, 2, 3], count=2)


async def test_prefetch_serves_on_and_is_not_repeated_by_the_restart() -> None:
    async with one_server("--idle-limit", "600") as (server, model, _):
        await move_to_the_end(server, "first", Span(0, 4))
        assert server.socket is not None
        async with ControlClient(server.socket, request_timeout=PATIENCE) as control:
            await control.prefetch(PrefetchRequest("fetch", Span(4, 8)))
            await server.wait_for_status(lambda _: "the weights of blocks 4:8 are fetched" in server.log)
            assert (await control.status()).span == Span(0, 4)
        assert _loads(server) == 1
        # What has been fetched is not fetched again: the missing file is only seen by the loading.
        weights = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
        (model / next(file for name, file in weights.items() if f".{_BROKEN}." in name)).unlink()
        failed = await move_to_the_end(server, "second", Span(4, 8))
        assert failed.restart is not None
        assert "WeightsUnavailable" in (failed.restart.error or "")
        await server.wait_until_online(Span(0, 4))
        assert _loads(server) == 2


async def test_when_the_former_blocks_cannot_be_had_either_the_process_stays_and_takes_the_next_order() -> None:
    async with one_server("--idle-limit", "600") as (server, model, _):
        online = await move_to_the_end(server, "first", Span(0, 4))
        index = model / "model.safetensors.index.json"
        whole = index.read_text()
        weights = json.loads(whole)["weight_map"]
        elsewhere = weights["model.embed_tokens.weight"]
        index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, elsewhere)}))
        failed = await move_to_the_end(server, "second", Span(4, 8))
        assert failed.restart is not None
        assert failed.restart.phase is RestartPhase.FAILED
        nowhere = await server.wait_for_status(lambda status: status.state is ServerPhase.FAILED)
        assert (nowhere.span, nowhere.sessions) == (None, 0)
        index.write_text(whole)
        done = await move_to_the_end(server, "third", Span(4, 8))
        assert (done.state, done.span, done.peer_id) == (ServerPhase.ONLINE, Span(4, 8), online.peer_id)


async def test_without_a_sidecar_it_starts_and_balances_as_petals_does() -> None:
    with short_folder() as folder:
        async with DhtPeers(1) as dht:
            model = await make_model(folder)
            always = ("--balance_quality", "1.1")  # Petals then moves at every check
            options = ("--idle-limit", "1", "--sidecar-lost-after", str(_LOST_AFTER))
            async with adapted_server(
                model, dht.initial_peers, folder, "one", *options, num_blocks=BLOCKS, extra=always
            ) as server:
                assert server.socket is not None
                # Nobody asks: it has chosen by itself, and it balances by itself.
                await server.wait_until_started(2)
                config = write_config(
                    folder / "sidecar.yaml",
                    server.socket,
                    dht.initial_peers,
                    swarm={"dht_prefix": PREFIX, "total_blocks": BLOCKS},
                )
                async with petals_client(model, dht.initial_peers, folder) as client:
                    async with sidecar_process(config) as sidecar:
                        # The sidecar looks all the time: the server stays, though Petals would move it every 3 seconds.
                        await _wait_for_checks(sidecar, 5)
                        await server.wait_until_online()  # a move of its own may have been under way
                        loads = _loads(server)
                        await _wait_for_checks(sidecar, 50)
                        assert (await server.status()).state is ServerPhase.ONLINE
                        assert _loads(server) == loads
                        in_touch = time.monotonic()
                        await server.status()  # asked as the sidecar asks
                    # The sidecar is gone: it goes on serving, and balances again after the set time.
                    assert "tokens" in await client.ask(prompt=[1, 2, 3], count=2)
                    await server.wait_until_started(loads + 1)
                    assert time.monotonic() - in_touch > _LOST_AFTER
                    # It moves every few seconds now, and cuts off whoever is in between.
                    async with asyncio.timeout(PATIENCE):
                        while "tokens" not in await client.ask(prompt=[1, 2, 3], count=2):
                            pass
                assert server.process.is_running


def _loads(server: PetalsServer) -> int:
    return server.log.count(" Started\n")


async def _wait_for_checks(sidecar: SidecarProcess, count: int) -> None:
    """Wait until a sidecar has checked so many more times."""
    goal = len(sidecar.events("check")) + count
    async with asyncio.timeout(PATIENCE):
        while len(sidecar.events("check")) < goal:
            await asyncio.sleep(0.05)


async def test_a_server_pinned_by_its_operator_refuses() -> None:
    async with one_server(num_blocks=None, block_indices="2:6") as (server, _, _):
        status = await server.wait_until_online(Span(2, 6))
        assert status.pinned
        with pytest.raises(ServerRefused, match=r"409.*block_indices"):
            await move(server, "first", Span(0, 4))
        assert (await server.status()).span == Span(2, 6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_end_it_with_all_its_processes(number: signal.Signals) -> None:
    async with one_server("--idle-limit", "600") as (server, _, _):
        await move_to_the_end(server, "first", Span(0, 4))
        children = _children(server.process.pid)
        assert children
        server.process.signal(number)
        await server.process.wait()
        await wait_until(lambda: not any(map(process_runs, children)))
        assert "are offline" in server.log
        assert server.socket is not None
        assert not os.path.lexists(server.socket)
