"""SIGTERM, SIGKILL and SIGSTOP at every step of a move: all of them, each held by the server until the signal has struck."""

from __future__ import annotations

import os
import signal

import pytest

from swarmkeel.daemon.move import Move, MoveStep
from tests.faults.steered import Point, SteeredServer
from tests.faults.vocabulary import (
    HIGH,
    LOW,
    Scene,
    Sections,
    given_a_running_sidecar,
    given_a_sidecar_process,
    given_a_swarm_with_a_hole,
    then_nothing_is_lost,
    then_the_move_ends,
    then_the_server_is_on,
)
from tests.support.dht import freeze_process, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def asked_for(server: SteeredServer) -> str:
    """Give the id of the last restart that the server shows, and nothing if there was none."""
    return server.present.restart.id if server.present.restart else ""


def is_planned(move: Move, _: SteeredServer) -> bool:
    return move.step is MoveStep.PLANNED


def is_requested(move: Move, server: SteeredServer) -> bool:
    return move.step is MoveStep.REQUESTED and not asked_for(server)


def is_loading(move: Move, server: SteeredServer) -> bool:
    return move.step is MoveStep.REQUESTED and move.acknowledged and asked_for(server) == move.id


def is_verifying(move: Move, _: SteeredServer) -> bool:
    return move.step is MoveStep.VERIFYING


def is_to_go_back(move: Move, server: SteeredServer) -> bool:
    return move.step is MoveStep.FALLING_BACK and asked_for(server) == move.id


def is_going_back(move: Move, server: SteeredServer) -> bool:
    return move.step is MoveStep.FALLING_BACK and asked_for(server) == move.fallback_id


def is_back(move: Move, _: SteeredServer) -> bool:
    return move.step is MoveStep.VERIFYING_FALLBACK


def never(_move: Move, _server: SteeredServer) -> bool:
    return False


POINTS: dict[str, tuple[Point, MoveStep]] = {
    "planned": (is_planned, MoveStep.DONE),
    "requested, before it arrives": (is_requested, MoveStep.DONE),
    "requested, its answer lost": (never, MoveStep.DONE),
    "requested, loading": (is_loading, MoveStep.DONE),
    "verifying": (is_verifying, MoveStep.DONE),
    "falling_back, before it is asked": (is_to_go_back, MoveStep.FELL_BACK),
    "falling_back, loading": (is_going_back, MoveStep.FELL_BACK),
    "verifying_fallback": (is_back, MoveStep.FELL_BACK),
}
"""Every step of a move that is not final, those that wait for the server before and after it; and the end undisturbed."""

PATIENT: Sections = {"move": {"request_timeout": 60, "restart_timeout": 120, "verify_timeout": 60}}
"""However busy the machine is, no deadline of a move passes."""


async def test_every_step_has_its_point() -> None:
    named = {name.split(",")[0] for name in POINTS}
    assert named == {"planned", "requested", "verifying", "falling_back", "verifying_fallback"}


async def given_a_move_that_stands_at(scene: Scene, name: str) -> None:
    """The sidecar is in the middle of a move, at exactly this point, and the server answers nothing."""
    point, end = POINTS[name]
    await given_a_swarm_with_a_hole(scene, PATIENT)
    loading = name.endswith("loading")
    if end is MoveStep.FELL_BACK:
        scene.own.loads = lambda span: "fails" if span == HIGH else "hangs" if loading else "done"
    elif loading:
        scene.own.loads = lambda _: "hangs"
    scene.own.hold_at(point, taken=point is never)
    await given_a_sidecar_process(scene)
    await wait_until(scene.own.is_held.is_set, seconds=120)


def when_the_server_goes_on(scene: Scene, name: str) -> None:
    scene.own.hold_at(None)
    scene.own.let_go()
    if name.endswith("loading"):
        scene.own.finish()


@pytest.mark.fault("SIGKILL at every step of a move")
@pytest.mark.parametrize("name", POINTS)
async def test_a_sidecar_killed_at_any_step_leaves_a_move_that_ends(scene: Scene, name: str) -> None:
    await given_a_move_that_stands_at(scene, name)
    await when_the_sidecar_gets(scene, signal.SIGKILL)
    assert await scene.forked.ends() == -signal.SIGKILL
    await then_the_next_sidecar_brings_the_move_to_its_end(scene, name)


@pytest.mark.fault("SIGTERM at every step of a move")
@pytest.mark.parametrize("name", POINTS)
async def test_a_sidecar_ended_at_any_step_leaves_a_move_that_ends(scene: Scene, name: str) -> None:
    await given_a_move_that_stands_at(scene, name)
    await when_the_sidecar_gets(scene, signal.SIGTERM)
    assert await scene.forked.ends() == 0, "it waits for nobody when it is told to end"
    await then_the_next_sidecar_brings_the_move_to_its_end(scene, name)


@pytest.mark.fault("SIGSTOP and SIGCONT at every step of a move")
@pytest.mark.parametrize("name", POINTS)
async def test_a_sidecar_frozen_at_any_step_goes_on_with_its_move(scene: Scene, name: str) -> None:
    await given_a_move_that_stands_at(scene, name)
    await when_the_sidecar_gets(scene, signal.SIGSTOP)
    when_the_server_goes_on(scene, name)
    os.kill(scene.forked.pid, signal.SIGCONT)
    await then_the_move_ends(scene, POINTS[name][1])
    then_the_server_is_on(scene, HIGH if POINTS[name][1] is MoveStep.DONE else LOW)
    then_nothing_is_lost(scene)


async def when_the_sidecar_gets(scene: Scene, number: signal.Signals) -> None:
    scene.injected += 1
    if number is signal.SIGSTOP:
        freeze_process(scene.forked.pid)
    else:
        os.kill(scene.forked.pid, number)


async def then_the_next_sidecar_brings_the_move_to_its_end(scene: Scene, name: str) -> None:
    point, end = POINTS[name]
    # What was not taken while the sidecar was there is lost with it.
    scene.own.drops = point is is_requested
    when_the_server_goes_on(scene, name)
    if point is is_requested:
        assert scene.own.taken == []
    scene.own.drops = False
    await given_a_running_sidecar(scene)
    await then_the_move_ends(scene, MoveStep.ABANDONED if point is is_planned else end)
    then_the_server_is_on(scene, HIGH if end is MoveStep.DONE and point is not is_planned else LOW)
    then_nothing_is_lost(scene)
