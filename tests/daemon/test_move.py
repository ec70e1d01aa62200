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


# ---------------------------------------------------------------- each way on, with its very words and its last moment

LATER = 1_000.0
"""When a move came to its step, in what follows."""


def at(step: MoveStep, *, acknowledged: bool = False, origin: Span | None = ORIGIN) -> Move:
    error = "it was so" if step in (MoveStep.FALLING_BACK, MoveStep.VERIFYING_FALLBACK) else None
    update = {"step": step, "step_since": LATER, "acknowledged": acknowledged, "error": error}
    return planned(origin).model_copy(update=update)


def server_on(span: Span | None, restart: RestartStatus | None = None) -> SimulatedServer:
    return SimulatedServer(span=span, state=ServerPhase.ONLINE if span else ServerPhase.IDLE, restart=restart)


LOADING = RestartStatus("m", TARGET, RestartPhase.LOADING)
FOREIGN = RestartStatus("x", TARGET, RestartPhase.LOADING)
BACK = RestartStatus("m-back", ORIGIN, RestartPhase.LOADING)
ELSEWHERE = Span(2, 6)
NO = Refusal(409, "no")

_WAYS: dict[str, tuple[Move, SimulatedServer | None, dict[str, object], MoveStep, str | None]] = {
    "planned, told too late": (
        at(MoveStep.PLANNED),
        server_on(ORIGIN),
        {"waited": 10.1},
        MoveStep.ABANDONED,
        "the server could not be told in time",
    ),
    "planned, at the last moment": (
        at(MoveStep.PLANNED),
        server_on(ORIGIN),
        {"waited": 10.0},
        MoveStep.REQUESTED,
        None,
    ),
    "planned, no answer": (at(MoveStep.PLANNED), None, {"waited": 1.0}, MoveStep.PLANNED, None),
    "planned, elsewhere": (
        at(MoveStep.PLANNED),
        server_on(ELSEWHERE),
        {"waited": 1.0},
        MoveStep.ABANDONED,
        "the server meanwhile serves 2:6",
    ),
    "planned, restarting": (
        at(MoveStep.PLANNED),
        server_on(ORIGIN, FOREIGN),
        {"waited": 1.0},
        MoveStep.ABANDONED,
        "the server is meanwhile restarting for another reason",
    ),
    "requested, failed": (
        at(MoveStep.REQUESTED),
        server_on(ORIGIN, RestartStatus("m", TARGET, RestartPhase.FAILED, error="out of memory")),
        {"waited": 1.0},
        MoveStep.FALLING_BACK,
        "the server could not serve 4:8: out of memory",
    ),
    "requested, failed without a word": (
        at(MoveStep.REQUESTED),
        server_on(ORIGIN, RestartStatus("m", TARGET, RestartPhase.FAILED)),
        {"waited": 1.0},
        MoveStep.FALLING_BACK,
        "the server could not serve 4:8: no reason given",
    ),
    "requested, first placement failed": (
        at(MoveStep.REQUESTED, origin=None),
        server_on(None, RestartStatus("m", TARGET, RestartPhase.FAILED)),
        {"waited": 1.0},
        MoveStep.FAILED,
        "the server could not serve 4:8: no reason given",
    ),
    "requested, loads too long": (
        at(MoveStep.REQUESTED, acknowledged=True),
        server_on(ORIGIN, LOADING),
        {"waited": 100.1},
        MoveStep.FALLING_BACK,
        "the server did not serve 4:8 in time",
    ),
    "requested, loads to the last moment": (
        at(MoveStep.REQUESTED, acknowledged=True),
        server_on(ORIGIN, LOADING),
        {"waited": 100.0},
        MoveStep.REQUESTED,
        None,
    ),
    "requested, there, and the restart is not over": (
        at(MoveStep.REQUESTED, acknowledged=True),
        server_on(TARGET, LOADING),
        {"waited": 1.0},
        MoveStep.REQUESTED,
        None,
    ),
    "requested, there": (at(MoveStep.REQUESTED), server_on(TARGET), {"waited": 1.0}, MoveStep.VERIFYING, None),
    "requested, there, for another reason": (
        at(MoveStep.REQUESTED),
        server_on(TARGET, FOREIGN),
        {"waited": 1.0},
        MoveStep.VERIFYING,
        None,
    ),
    "requested, no answer yet": (at(MoveStep.REQUESTED), None, {"waited": 10.0}, MoveStep.REQUESTED, None),
    "requested, no answer": (
        at(MoveStep.REQUESTED),
        None,
        {"waited": 10.1},
        MoveStep.FAILED,
        "the server does not answer any more",
    ),
    "taken, no answer yet": (
        at(MoveStep.REQUESTED, acknowledged=True),
        None,
        {"waited": 100.0},
        MoveStep.REQUESTED,
        None,
    ),
    "taken, no answer": (
        at(MoveStep.REQUESTED, acknowledged=True),
        None,
        {"waited": 100.1},
        MoveStep.FAILED,
        "the server does not answer any more",
    ),
    "requested, refused": (
        at(MoveStep.REQUESTED),
        server_on(ORIGIN),
        {"waited": 1.0, "refusal": NO},
        MoveStep.ABANDONED,
        "the server refused (409): no",
    ),
    "taken, then refused": (
        at(MoveStep.REQUESTED, acknowledged=True),
        server_on(ORIGIN),
        {"waited": 1.0, "refusal": NO},
        MoveStep.FAILED,
        "the server forgot the restart, as after a crash of its own",
    ),
    "requested, elsewhere": (
        at(MoveStep.REQUESTED),
        server_on(ELSEWHERE),
        {"waited": 1.0},
        MoveStep.FAILED,
        "the server went another way: it is online on 2:6",
    ),
    "requested, another restart": (
        at(MoveStep.REQUESTED),
        server_on(ORIGIN, FOREIGN),
        {"waited": 1.0},
        MoveStep.FAILED,
        "the server went another way: it is online on 0:4",
    ),
    "taken, forgotten": (
        at(MoveStep.REQUESTED, acknowledged=True),
        server_on(ORIGIN),
        {"waited": 1.0},
        MoveStep.FAILED,
        "the server forgot the restart, as after a crash of its own",
    ),
    "requested, not taken": (
        at(MoveStep.REQUESTED),
        server_on(ORIGIN),
        {"waited": 10.1},
        MoveStep.ABANDONED,
        "the server did not take the request in time",
    ),
    "requested, not taken yet": (at(MoveStep.REQUESTED), server_on(ORIGIN), {"waited": 10.0}, MoveStep.REQUESTED, None),
    "verifying, left": (
        at(MoveStep.VERIFYING),
        server_on(ORIGIN),
        {"waited": 1.0},
        MoveStep.FALLING_BACK,
        "the server left 4:8 again: it is online",
    ),
    "verifying, no answer": (
        at(MoveStep.VERIFYING),
        None,
        {"waited": 1.0, "announcement": Announcement.ONLINE},
        MoveStep.VERIFYING,
        None,
    ),
    "verifying, shown": (
        at(MoveStep.VERIFYING),
        server_on(TARGET),
        {"waited": 1.0, "announcement": Announcement.ONLINE},
        MoveStep.DONE,
        None,
    ),
    "verifying, missing at the last moment": (
        at(MoveStep.VERIFYING),
        server_on(TARGET),
        {"waited": 50.0, "announcement": Announcement.MISSING},
        MoveStep.VERIFYING,
        None,
    ),
    "verifying, missing": (
        at(MoveStep.VERIFYING),
        server_on(TARGET),
        {"waited": 50.1, "announcement": Announcement.MISSING},
        MoveStep.FALLING_BACK,
        "the DHT does not show the server on 4:8",
    ),
    "verifying, not read yet": (at(MoveStep.VERIFYING), server_on(TARGET), {"waited": 200.0}, MoveStep.VERIFYING, None),
    "verifying, not read": (
        at(MoveStep.VERIFYING),
        server_on(TARGET),
        {"waited": 200.1},
        MoveStep.FAILED,
        "the DHT could not be read to verify the move",
    ),
    "falling back, too long": (
        at(MoveStep.FALLING_BACK),
        server_on(ORIGIN),
        {"waited": 100.1},
        MoveStep.FAILED,
        "it was so; nor did it serve 0:4 again",
    ),
    "falling back, at the last moment": (
        at(MoveStep.FALLING_BACK),
        server_on(ORIGIN),
        {"waited": 100.0},
        MoveStep.VERIFYING_FALLBACK,
        "it was so",
    ),
    "falling back, no answer": (at(MoveStep.FALLING_BACK), None, {"waited": 1.0}, MoveStep.FALLING_BACK, "it was so"),
    "falling back, there, and a restart runs": (
        at(MoveStep.FALLING_BACK),
        server_on(ORIGIN, LOADING),
        {"waited": 1.0},
        MoveStep.FALLING_BACK,
        "it was so",
    ),
    "falling back, failed": (
        at(MoveStep.FALLING_BACK),
        server_on(None, RestartStatus("m-back", ORIGIN, RestartPhase.FAILED, error="no disk")),
        {"waited": 1.0},
        MoveStep.FAILED,
        "it was so; nor could it serve 0:4 again: no disk",
    ),
    "falling back, failed without a word": (
        at(MoveStep.FALLING_BACK),
        server_on(None, RestartStatus("m-back", ORIGIN, RestartPhase.FAILED)),
        {"waited": 1.0},
        MoveStep.FAILED,
        "it was so; nor could it serve 0:4 again: no reason given",
    ),
    "falling back, loading": (
        at(MoveStep.FALLING_BACK),
        server_on(None, BACK),
        {"waited": 1.0},
        MoveStep.FALLING_BACK,
        "it was so",
    ),
    "verifying the fallback, left": (
        at(MoveStep.VERIFYING_FALLBACK),
        server_on(TARGET),
        {"waited": 1.0},
        MoveStep.FAILED,
        "it was so; and the DHT does not show it on 0:4",
    ),
    "verifying the fallback, at the last moment": (
        at(MoveStep.VERIFYING_FALLBACK),
        server_on(ORIGIN),
        {"waited": 200.0},
        MoveStep.VERIFYING_FALLBACK,
        "it was so",
    ),
    "verifying the fallback, too long": (
        at(MoveStep.VERIFYING_FALLBACK),
        server_on(ORIGIN),
        {"waited": 200.1},
        MoveStep.FAILED,
        "it was so; and the DHT does not show it on 0:4",
    ),
    "verifying the fallback, no answer": (
        at(MoveStep.VERIFYING_FALLBACK),
        None,
        {"waited": 1.0, "announcement": Announcement.ONLINE},
        MoveStep.VERIFYING_FALLBACK,
        "it was so",
    ),
    "verifying the fallback, shown": (
        at(MoveStep.VERIFYING_FALLBACK),
        server_on(ORIGIN),
        {"waited": 1.0, "announcement": Announcement.ONLINE},
        MoveStep.FELL_BACK,
        "it was so",
    ),
}
"""A move, what stands at the socket, what else is seen, and then: the step and the error."""


@pytest.mark.parametrize("way", _WAYS)
def test_each_way_on_with_its_words_and_its_last_moment(way: str) -> None:
    move, server, more, step, error = _WAYS[way]
    seen = replace(Observation(LATER + 1, None if server is None else server.status()), **more)  # type: ignore[arg-type]
    after = advance(move, seen, LIMITS).move
    assert (after.step, after.error) == (step, error)
    if after.step is move.step:
        assert after == move
        return
    assert (after.step_since, after.acknowledged) == (LATER + 1, False)
    told = LATER + 1 if after.step is MoveStep.REQUESTED else None
    assert after.requested_at == told


@pytest.mark.parametrize("step", [MoveStep.PLANNED, MoveStep.REQUESTED, MoveStep.FALLING_BACK])
def test_another_server_at_the_socket_is_named_as_the_reason(step: MoveStep) -> None:
    other = replace(SimulatedServer().status(), peer_id="q")
    after = advance(at(step), Observation(LATER + 1, other), LIMITS).move
    assert (after.error, after.step_since) == ("another server answers at the control socket now", LATER + 1)
    done = at(MoveStep.DONE)
    assert advance(done, Observation(LATER + 1, other), LIMITS).move is done
    nameless = replace(SimulatedServer().status(), peer_id=None)
    assert advance(at(MoveStep.PLANNED), Observation(LATER + 1, nameless), LIMITS).move.step is MoveStep.REQUESTED


def test_what_is_only_planned_is_too_old_by_whichever_clock_says_so() -> None:
    for waited, now in ((11.0, LATER), (0.0, LATER + 11), (0.0, LATER - 11)):
        seen = Observation(now, SimulatedServer().status(), waited=waited)
        assert advance(at(MoveStep.PLANNED), seen, LIMITS).move.step is MoveStep.ABANDONED, (waited, now)


def test_a_move_that_is_rolled_back_says_why_and_when_and_every_other_goes_on_as_it_was() -> None:
    back = resume(at(MoveStep.PLANNED), LATER + 5)
    assert (back.error, back.step_since) == ("the sidecar stopped before the server was told", LATER + 5)
    for step in set(MoveStep) - {MoveStep.PLANNED}:
        assert resume(at(step), LATER + 5) == at(step)


def test_when_the_server_served_is_counted_from_when_it_was_told() -> None:
    move = at(MoveStep.REQUESTED).model_copy(update={"requested_at": LATER})
    seen = Observation(LATER - 500, server_on(TARGET).status(), waited=30.0)
    served = advance(move, seen, LIMITS).move
    assert (served.requested_at, served.served_at, served.outage_seconds) == (LATER, LATER + 30, 30.0)
    assert advance(at(MoveStep.REQUESTED), seen, LIMITS).move.served_at is None


def test_the_requests_name_what_they_want_and_what_they_rest_on() -> None:
    move = at(MoveStep.PLANNED).model_copy(update={"reason": "because", "drain_seconds": 7.0})
    seen = Observation(LATER + 1, SimulatedServer().status())
    assert advance(move, seen, LIMITS).request == RestartRequest("m", TARGET, ORIGIN, "because", 7.0)
    again = advance(at(MoveStep.REQUESTED), seen, LIMITS)
    assert again.request == RestartRequest("m", TARGET, ORIGIN, "r", 0.0)
    lost = replace(SimulatedServer(span=None, state=ServerPhase.FAILED).status())
    long = at(MoveStep.FALLING_BACK).model_copy(update={"error": "x" * 600})
    back = advance(long, Observation(LATER + 1, lost), LIMITS)
    assert back.move == long
    assert back.request == RestartRequest("m-back", ORIGIN, None, f"fallback: {'x' * 490}")
    for state in (ServerPhase.JOINING, ServerPhase.DRAINING, ServerPhase.STOPPING):
        assert advance(long, Observation(LATER + 1, replace(lost, state=state)), LIMITS).request is None
    foreign = replace(lost, restart=FOREIGN)
    assert advance(long, Observation(LATER + 1, foreign), LIMITS).request is None
    placement = at(MoveStep.FALLING_BACK, origin=None)
    with pytest.raises(AssertionError, match=r"^a first placement has nothing to fall back to$"):
        advance(placement, Observation(LATER + 1, lost), LIMITS)


def test_the_time_of_day_tells_how_long_it_took_where_no_other_clock_does() -> None:
    silent = Observation(LATER + 11, None)
    assert advance(at(MoveStep.REQUESTED), silent, LIMITS).move.step is MoveStep.FAILED
    unseen = Observation(LATER + 201, server_on(ORIGIN).status())
    assert advance(at(MoveStep.VERIFYING_FALLBACK), unseen, LIMITS).move.step is MoveStep.FAILED


def test_the_way_back_rests_on_where_the_server_is_now() -> None:
    seen = Observation(LATER + 1, server_on(ELSEWHERE).status())
    back = advance(at(MoveStep.FALLING_BACK), seen, LIMITS).request
    assert back == RestartRequest("m-back", ORIGIN, ELSEWHERE, "fallback: it was so")
