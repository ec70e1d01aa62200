"""The move's state machine against a simulated server, with the sidecar, the server and the DHT failing at any step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.control.protocol import RestartPhase, RestartRequest, RestartStatus, ServerPhase
from swarmkeel.daemon.move import (
    FINAL_STEPS,
    Announcement,
    Move,
    MoveLimits,
    MoveStep,
    Observation,
    Refusal,
    advance,
    resume,
)
from swarmkeel.swarm.span import Span
from tests.support.simulated_server import ORIGIN, TARGET, SimulatedServer

LIMITS = MoveLimits(request_timeout=10, restart_timeout=100, verify_timeout=50)


def planned(origin: Span | None = ORIGIN) -> Move:
    return Move(id="m", peer_id="p", origin=origin, target=TARGET, reason="r", started_at=0, step_since=0)


@dataclass(frozen=True)
class World:
    move: Move
    server: SimulatedServer
    refusal: Refusal | None = None
    now: float = 0.0


def successors(world: World) -> Iterator[World]:
    """Every world that one look of the sidecar can lead to."""
    for server in world.server.own_steps():
        for passed in (1.0, 1000.0):
            now = world.now + passed
            for status in (server.status(), None):
                online = Announcement.ONLINE if server.state is ServerPhase.ONLINE else Announcement.MISSING
                for shown in (online, Announcement.MISSING, Announcement.NOT_READ):
                    seen = Observation(now, status, world.refusal, shown)
                    transition = advance(world.move, seen, LIMITS)
                    check_transition(world.move, transition.move)
                    refusal = world.refusal if transition.move.step is world.move.step else None
                    after = World(transition.move, server, refusal, now)
                    yield after
                    # The sidecar is killed after it wrote the step down and before it acts.
                    yield World(resume(transition.move, now), server, None, now)
                    if transition.request is not None:
                        assert transition.request.span != server.span
                        taken, refusal = server.take(transition.request)
                        yield replace(after, server=taken, refusal=refusal)


ALLOWED = {
    MoveStep.PLANNED: {MoveStep.REQUESTED, MoveStep.ABANDONED},
    MoveStep.REQUESTED: {MoveStep.VERIFYING, MoveStep.FALLING_BACK, MoveStep.ABANDONED, MoveStep.FAILED},
    MoveStep.VERIFYING: {MoveStep.DONE, MoveStep.FALLING_BACK, MoveStep.FAILED},
    MoveStep.FALLING_BACK: {MoveStep.VERIFYING_FALLBACK, MoveStep.FAILED},
    MoveStep.VERIFYING_FALLBACK: {MoveStep.FELL_BACK, MoveStep.FAILED},
}


def check_transition(before: Move, after: Move) -> None:
    if before.step in FINAL_STEPS:
        assert after == before
    elif after.step is not before.step:
        assert after.step in ALLOWED[before.step]
    assert (after.id, after.origin, after.target, after.started_at) == (
        before.id,
        before.origin,
        before.target,
        before.started_at,
    )


def check_end(world: World) -> None:
    move, server = world.move, world.server
    if move.step is MoveStep.DONE:
        assert server.span == TARGET
        assert server.state is ServerPhase.ONLINE
    if move.step is MoveStep.FELL_BACK:
        assert server.span == move.origin
    if move.step in FINAL_STEPS - {MoveStep.DONE}:
        assert move.error


def key(world: World) -> tuple[object, ...]:
    """What tells worlds apart, with the time only as far as the step's deadlines see it."""
    waited = min(world.now - world.move.step_since, 1000.0)
    move = world.move.model_copy(update={"step_since": 0.0, "error": None})
    return (move.model_dump_json(), replace(world.server, accepted=()), world.refusal, waited)


@pytest.mark.parametrize("origin", [ORIGIN, None])
def test_no_interruption_at_any_step_breaks_an_invariant(origin: Span | None) -> None:
    server = SimulatedServer() if origin else SimulatedServer(span=None, state=ServerPhase.IDLE)
    start = World(planned(origin), server)
    seen, queue, reached = {key(start)}, deque([(start, 0)]), set[MoveStep]()
    while queue:
        world, depth = queue.popleft()
        reached.add(world.move.step)
        # One process of the server takes each request once; a fallback happens at most once.
        if depth >= 8 or world.move.is_final:
            continue
        for after in successors(world):
            if after.move.is_final and not world.move.is_final:
                check_end(after)
            if key(after) not in seen:
                seen.add(key(after))
                queue.append((after, depth + 1))
    fallback = {MoveStep.FALLING_BACK, MoveStep.VERIFYING_FALLBACK, MoveStep.FELL_BACK}
    assert reached == (set(MoveStep) if origin else set(MoveStep) - fallback)


@given(st.data())
def test_every_move_ends_when_time_passes(data: st.DataObject) -> None:
    world = World(planned(), SimulatedServer())
    for _ in range(60):
        if world.move.is_final:
            break
        world = data.draw(st.sampled_from(list(successors(world))))
    for _ in range(20):
        if world.move.is_final:
            break
        # From here on the sidecar lives and time passes.
        now = world.now + 1000.0
        transition = advance(world.move, Observation(now, world.server.status(), world.refusal), LIMITS)
        server, refusal = world.server, world.refusal
        if transition.request is not None:
            server, refusal = server.take(transition.request)
        world = World(transition.move, server, refusal, now)
    assert world.move.is_final
    assert sum(step == "m" for step in world.server.accepted) <= 1 + 60
    check_end(world)


def look(move: Move, server: SimulatedServer, now: float, shown: Announcement = Announcement.NOT_READ) -> Move:
    return advance(move, Observation(now, server.status(), None, shown), LIMITS).move


def test_the_straight_way_is_planned_requested_verifying_done() -> None:
    server = SimulatedServer()
    transition = advance(planned(), Observation(1, server.status()), LIMITS)
    assert transition.move.step is MoveStep.REQUESTED
    assert transition.request == RestartRequest("m", TARGET, ORIGIN, "r", 0.0)
    server, refusal = server.take(transition.request)
    assert refusal is None
    move = look(transition.move, server, 2)
    assert move.acknowledged
    server = replace(server, state=ServerPhase.ONLINE, restart=RestartStatus("m", TARGET, RestartPhase.ONLINE))
    move = look(move, server, 3)
    assert move.step is MoveStep.VERIFYING
    assert look(move, server, 4, Announcement.MISSING) == move
    assert look(move, server, 4, Announcement.ONLINE).step is MoveStep.DONE


def test_a_move_that_was_only_planned_is_rolled_back_after_a_crash() -> None:
    assert resume(planned(), 5).step is MoveStep.ABANDONED


def test_a_request_that_was_written_down_and_never_sent_is_sent_again() -> None:
    requested = advance(planned(), Observation(1, SimulatedServer().status()), LIMITS).move
    again = advance(resume(requested, 2), Observation(2, SimulatedServer().status()), LIMITS)
    assert again.request is not None
    assert again.request.id == "m"


def test_a_dht_that_cannot_be_read_is_no_reason_to_fall_back() -> None:
    server = SimulatedServer(span=TARGET)
    verifying = planned().model_copy(update={"step": MoveStep.VERIFYING})
    assert look(verifying, server, LIMITS.verify_timeout + 1) == verifying
    missing = look(verifying, server, LIMITS.verify_timeout + 1, Announcement.MISSING)
    assert missing.step is MoveStep.FALLING_BACK
    assert look(verifying, server, 5 * LIMITS.verify_timeout).step is MoveStep.FAILED


def test_the_fallback_waits_for_a_server_that_reloads_its_former_span_by_itself() -> None:
    failed = RestartStatus("m", TARGET, RestartPhase.FAILED, error="out of memory")
    server = SimulatedServer(state=ServerPhase.JOINING, restart=failed)
    falling = planned().model_copy(update={"step": MoveStep.FALLING_BACK, "error": "x"})
    waiting = advance(falling, Observation(1, server.status()), LIMITS)
    assert waiting.request is None
    assert look(falling, replace(server, state=ServerPhase.ONLINE), 2).step is MoveStep.VERIFYING_FALLBACK


@pytest.mark.parametrize(
    ("step", "end"), [(MoveStep.PLANNED, MoveStep.ABANDONED), (MoveStep.REQUESTED, MoveStep.FAILED)]
)
def test_another_server_at_the_socket_is_not_told_to_move(step: MoveStep, end: MoveStep) -> None:
    other = replace(SimulatedServer().status(), peer_id="q")
    transition = advance(planned().model_copy(update={"step": step}), Observation(1, other), LIMITS)
    assert transition.request is None
    assert transition.move.step is end
