from __future__ import annotations

import pytest

from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.daemon.move import Announcement, Move, MoveLimits, MoveStep, Observation, advance
from swarmkeel.daemon.own_server import learned_seconds, own_server
from swarmkeel.swarm.span import Span

STATUS = ServerStatus("sim/1", "p", "m", 80, 10, 20.0, ServerPhase.ONLINE, Span(0, 10))
LIMITS = MoveLimits(request_timeout=100, restart_timeout=10_000, verify_timeout=100)


def moved(seconds: float, *, staged: bool = False, step: MoveStep = MoveStep.DONE, first: bool = False) -> Move:
    return Move(
        id="m",
        peer_id="p",
        origin=None if first else Span(0, 10),
        target=Span(10, 20),
        reason="r",
        started_at=0.0,
        step=step,
        step_since=9e9,
        staged=staged,
        requested_at=1000.0,
        served_at=1000.0 + seconds,
    )


def learned(*moves: Move, can_prefetch: bool = False) -> float:
    return learned_seconds(moves, can_prefetch=can_prefetch, assumed=600.0)[0]


def test_without_a_history_the_configured_time_stands() -> None:
    assert learned() == 600.0
    useless = (moved(10, step=MoveStep.FELL_BACK), moved(-5))
    assert learned(*useless, moved(10).model_copy(update={"served_at": None})) == 600.0


def test_the_newest_moves_decide_and_one_slow_one_does_not() -> None:
    assert learned(*map(moved, (900, 900, 900, 50, 60, 4000, 40, 55))) == 55.0


def test_moves_with_the_weights_at_hand_are_learned_apart() -> None:
    cold, staged = [moved(500), moved(520)], [moved(30, staged=True)]
    assert learned(*cold, *staged) == 510.0
    assert learned(*cold, *staged, can_prefetch=True) == 30.0
    assert learned(*cold, can_prefetch=True) == 510.0
    assert learned(*staged) == 600.0


def test_what_fetching_takes_is_what_a_first_placement_takes_longer() -> None:
    first, staged = moved(400, first=True), moved(30, staged=True)
    assert learned_seconds((first, staged), can_prefetch=True, assumed=600.0) == (30.0, 370.0)
    assert learned_seconds((first, staged), can_prefetch=False, assumed=600.0) == (400.0, 0.0)
    assert learned_seconds((first,), can_prefetch=True, assumed=600.0) == (400.0, 0.0)
    assert learned_seconds((moved(10, first=True), staged), can_prefetch=True, assumed=600.0) == (30.0, 0.0)


def test_a_move_notes_when_the_server_was_told_and_when_it_served() -> None:
    move = moved(0).model_copy(
        update={"step": MoveStep.PLANNED, "step_since": 100.0, "requested_at": None, "served_at": None}
    )
    origin = ServerStatus("sim/1", "p", "m", 80, 10, 20.0, ServerPhase.ONLINE, Span(0, 10))
    target = ServerStatus("sim/1", "p", "m", 80, 10, 20.0, ServerPhase.ONLINE, Span(10, 20))
    for now, status in ((110.0, origin), (190.0, target), (200.0, target)):
        move = advance(move, Observation(now, status, announcement=Announcement.ONLINE), LIMITS).move
    assert move.step is MoveStep.DONE
    assert (move.requested_at, move.served_at, move.outage_seconds) == (110.0, 190.0, 80.0)


def test_a_server_that_tells_what_it_can_hold_has_shapes() -> None:
    assert own_server(STATUS, (), claim=None, assumed_load_seconds=60).shapes == ()
    flexible = ServerStatus(
        "sim/1", "p", "m", 80, 10, 20.0, ServerPhase.ONLINE, Span(0, 10), min_blocks=5, max_blocks=20,
        compute_rps=110.0, network_rps=40.0,
    )  # fmt: skip
    own = own_server(flexible, (), claim=None, assumed_load_seconds=60)
    lengths = [length for length, _ in own.shapes]
    assert (lengths[0], lengths[-1]) == (5, 20)
    assert 10 not in lengths
    assert dict(own.shapes)[5] == pytest.approx(110 / 3)


def test_an_idle_servers_last_blocks_do_not_count() -> None:
    idle = ServerStatus("sim/1", "p", "m", 80, 10, 20.0, ServerPhase.IDLE, Span(0, 10))
    assert own_server(idle, (), claim=None, assumed_load_seconds=60).span is None
