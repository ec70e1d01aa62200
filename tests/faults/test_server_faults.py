"""The own server, or what stands at its socket, fails or lies: a move ends, at most one fallback, and no second move follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import ClientSession

from swarmkeel.balance.decision import Verdict
from swarmkeel.control.protocol import RestartPhase, ServerPhase
from swarmkeel.daemon.move import MoveStep
from tests.faults.vocabulary import (
    LOW,
    Scene,
    Sections,
    given_a_running_sidecar,
    given_a_sidecar_process,
    given_a_sidecar_that_finds_all_well,
    given_a_swarm,
    given_a_swarm_with_a_hole,
    then_all_is_well_again,
    then_it_checks_on,
    then_it_says,
    then_nothing_is_lost,
    then_the_move_ends,
    then_the_server_is_on,
    then_the_server_was_told_nothing,
    when_another_server_takes_the_socket,
    when_the_own_server_listens_again,
    when_the_socket_is_gone,
)
from tests.support.dht import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

IMPATIENT: Sections = {
    "server": {"request_timeout": 0.5},
    "move": {"request_timeout": 3, "restart_timeout": 3, "verify_timeout": 2},
}
DOUBTING: Sections = {"move": {"verify_timeout": 3}}
NO_INFORMATION = Verdict.INSUFFICIENT_INFORMATION


@pytest.mark.fault("server hangs in JOINING")
async def test_a_server_hangs_in_joining(scene: Scene) -> None:
    await given_a_swarm_with_a_hole(scene, IMPATIENT)
    scene.own.loads = lambda _: "hangs"
    scene.injected += 1
    await given_a_running_sidecar(scene)
    await then_the_move_ends(scene, MoveStep.FAILED)
    assert len(scene.own.taken) == 1, "a server that is still at it is asked for nothing more"
    then_nothing_is_lost(scene)


@pytest.mark.fault("server dies while moving")
async def test_a_server_dies_while_moving(scene: Scene) -> None:
    await given_a_swarm_with_a_hole(scene, IMPATIENT)
    scene.own.loads = lambda _: "hangs"
    await given_a_running_sidecar(scene)
    await wait_until(lambda: scene.own.taken)
    when_the_socket_is_gone(scene)
    await then_the_move_ends(scene, MoveStep.FAILED)
    then_nothing_is_lost(scene)


@pytest.mark.fault("server dies while moving")
async def test_a_server_dies_while_moving_and_comes_back_where_it_was(scene: Scene) -> None:
    await given_a_swarm_with_a_hole(scene)
    scene.own.loads = lambda _: "hangs"
    await given_a_running_sidecar(scene)
    await wait_until(lambda: scene.daemon.state.move is not None and scene.daemon.state.move.acknowledged)
    when_the_socket_is_gone(scene)
    scene.own.present = replace(scene.own.present, state=ServerPhase.ONLINE, span=LOW, restart=None)
    when_the_own_server_listens_again(scene)
    await then_the_move_ends(scene, MoveStep.FAILED)
    assert len(scene.own.taken) == 1
    then_nothing_is_lost(scene)


@pytest.mark.fault("server lies about its state")
async def test_a_server_says_that_it_serves_what_the_swarm_does_not_see(scene: Scene) -> None:
    await given_a_swarm_with_a_hole(scene, DOUBTING)
    scene.own.announces = False
    scene.injected += 1
    await given_a_running_sidecar(scene)
    # It is told to go back, and says that it has. The record of before bears it out.
    await then_the_move_ends(scene, MoveStep.FELL_BACK)
    then_the_server_is_on(scene, LOW)
    then_nothing_is_lost(scene)


@pytest.mark.fault("server lies about its state")
async def test_a_server_says_that_it_is_done_and_stays_where_it_is(scene: Scene) -> None:
    await given_a_swarm_with_a_hole(scene, IMPATIENT)
    scene.own.loads = lambda _: "lies"
    scene.injected += 1
    await given_a_running_sidecar(scene)
    await wait_until(lambda: scene.own.taken)
    restart = replace(scene.own.present.restart, phase=RestartPhase.ONLINE) if scene.own.present.restart else None
    scene.own.present = replace(scene.own.present, state=ServerPhase.ONLINE, span=LOW, restart=restart)
    await then_the_move_ends(scene, MoveStep.FELL_BACK, MoveStep.FAILED)
    then_nothing_is_lost(scene)


@pytest.mark.fault("server lies about its state")
async def test_a_server_says_that_it_is_elsewhere_than_the_swarm_sees(scene: Scene) -> None:
    await given_a_swarm_with_a_hole(scene)
    scene.own.present = replace(scene.own.present, span=replace(LOW, start=1, end=5))
    scene.injected += 1
    await given_a_running_sidecar(scene)
    await then_it_says(scene, NO_INFORMATION, "own_span_differs")
    await then_it_checks_on(scene)
    assert scene.own.taken == []
    then_nothing_is_lost(scene)


@pytest.mark.fault("control socket gone")
async def test_the_socket_is_gone_and_comes_back(scene: Scene) -> None:
    await given_a_swarm(scene, IMPATIENT)
    await given_a_sidecar_that_finds_all_well(scene)
    when_the_socket_is_gone(scene)
    await then_it_says(scene, NO_INFORMATION, "server_unreachable")
    when_the_own_server_listens_again(scene)
    await then_all_is_well_again(scene)
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)


@pytest.mark.fault("control socket replaced")
async def test_another_server_takes_the_socket_in_the_middle_of_a_move(scene: Scene) -> None:
    await given_a_swarm_with_a_hole(scene)
    scene.own.loads = lambda _: "hangs"
    await given_a_running_sidecar(scene)
    await wait_until(lambda: scene.own.taken)
    other = when_another_server_takes_the_socket(scene)
    await then_the_move_ends(scene, MoveStep.FAILED)
    assert other.taken == []
    then_nothing_is_lost(scene)


@pytest.mark.fault("control socket replaced")
async def test_another_server_than_the_configured_one_takes_the_socket(scene: Scene) -> None:
    await given_a_swarm(scene, {"server": {"peer_id": scene.peers.node(0).peer_id}})
    await given_a_sidecar_that_finds_all_well(scene)
    other = when_another_server_takes_the_socket(scene)
    await then_it_says(scene, NO_INFORMATION, "server_mismatch")
    assert other.taken == []
    then_nothing_is_lost(scene)


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def never_answers(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def answers_byte_by_byte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n")
    while not reader.at_eof():
        writer.write(b" ")
        await writer.drain()
        # Well within any deadline on the time between two bytes.
        await asyncio.sleep(0.05)


@asynccontextmanager
async def standing_at_the_socket(scene: Scene, behaviour: Behaviour) -> AsyncIterator[None]:
    when_the_socket_is_gone(scene)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await behaviour(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, scene.folder / "s")
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        (scene.folder / "s").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(never_answers, marks=pytest.mark.fault("control socket never answers")),
        pytest.param(answers_byte_by_byte, marks=pytest.mark.fault("control socket answers byte by byte")),
    ],
)
async def test_a_socket_accepts_and_gives_no_answer(scene: Scene, behaviour: Behaviour) -> None:
    await given_a_swarm(scene, IMPATIENT)
    await given_a_sidecar_process(scene)
    await scene.forked.shows("verdict", 1, verdict="balanced")
    async with standing_at_the_socket(scene, behaviour):
        await scene.forked.shows("verdict", 1, verdict="insufficient_information")
        scene.saw("`insufficient_information`")
        await then_it_checks_on(scene)
        url = (await scene.forked.waits_for("started"))["http"]
        async with ClientSession() as client, client.get(f"{url}/healthz") as answer:
            assert answer.status == 200
    when_the_own_server_listens_again(scene)
    await scene.forked.shows("verdict", 1, verdict="balanced")
    scene.saw("`balanced`")
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)
