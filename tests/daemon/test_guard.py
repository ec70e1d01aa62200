from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.daemon.guard import (
    SECONDS_PER_DAY,
    Breaker,
    GuardKind,
    GuardSettings,
    GuardView,
    apply_guards,
    breaker_release,
    in_order,
    look_at_guards,
    movable_at,
    view_breaker,
)
from swarmkeel.daemon.move import Move, MoveStep
from swarmkeel.swarm.span import Span

NOW = 1_000_000.0
SERVED = Span(0, 4)
SETTINGS = GuardSettings(
    cooldown=100, minimum_uptime=50, moves_per_day=3, confirmations=2, breaker_base=200, breaker_max=1000
)


def wanted(own_span: Span | None = SERVED, verdict: Verdict = Verdict.MOVING) -> Decision:
    return Decision(
        verdict=verdict,
        reasons=(Reason(name="imbalance", values={"quality": 0.5, "limit": 0.75}),),
        policy="petals",
        peer_id="p",
        own_span=own_span,
        target=Span(4, 8),
        before=SwarmNumbers(bottleneck_rps=1, bound_rps=2, uncovered_blocks=0),
        after=None,
        snapshot_digest="d",
        seed=1,
    )


def view(**changes: object) -> GuardView:
    values: dict[str, object] = {
        "now": NOW,
        "server_state": "online",
        "running_restart": None,
        "pinned": False,
        "span_since": NOW - 1000,
        "moves": (),
        "confirmations": 2,
    }
    return GuardView.model_validate(values | changes)


def move(step: MoveStep, ended_ago: float, *, started_ago: float | None = None) -> Move:
    return Move(
        id=f"m{ended_ago}",
        peer_id="p",
        origin=Span(0, 4),
        target=Span(4, 8),
        reason="r",
        started_at=NOW - (ended_ago + 10 if started_ago is None else started_ago),
        step=step,
        step_since=NOW - ended_ago,
    )


def holding(guard_view: GuardView, decision: Decision | None = None) -> list[str]:
    guarded = apply_guards(decision or wanted(), guard_view, SETTINGS, dry_run=False)
    assert (guarded.verdict is Verdict.HOLDING) == (len(guarded.reasons) > 1)
    assert guarded.sentence
    return [reason.name for reason in guarded.reasons[:-1]]


def test_a_move_that_no_guard_holds_back_passes_unchanged() -> None:
    assert apply_guards(wanted(), view(), SETTINGS, dry_run=False) == wanted()


@pytest.mark.parametrize(
    ("changes", "guard"),
    [
        ({"pinned": True}, "pinned"),
        ({"running_restart": "r1", "server_state": "joining"}, "restart_running"),
        ({"server_state": "draining"}, "restart_running"),
        ({"moves": (move(MoveStep.DONE, 99),)}, "cooldown"),
        ({"span_since": NOW - 49}, "minimum_uptime"),
        ({"span_since": None}, "minimum_uptime"),
        ({"moves": tuple(move(MoveStep.DONE, ago) for ago in (3000, 2000, 1000))}, "moves_per_day"),
        ({"confirmations": 1}, "confirmation"),
        ({"moves": (move(MoveStep.ABANDONED, 199),)}, "breaker"),
    ],
)
def test_each_guard_holds_and_is_named(changes: dict[str, object], guard: str) -> None:
    assert holding(view(**changes)) == [guard]


@pytest.mark.parametrize(
    "changes",
    [
        {"moves": (move(MoveStep.DONE, 100),)},
        {"span_since": NOW - 50},
        {"moves": tuple(move(MoveStep.DONE, ago) for ago in (90_000, 2000, 1000))},
        {"moves": (move(MoveStep.ABANDONED, 201),)},
        {"moves": (move(MoveStep.FAILED, 300), move(MoveStep.DONE, 150))},
    ],
)
def test_each_guard_lets_go(changes: dict[str, object]) -> None:
    assert holding(view(**changes)) == []


def test_all_guards_that_hold_are_named() -> None:
    held = holding(view(pinned=True, span_since=None, confirmations=1))
    assert held == ["pinned", "minimum_uptime", "confirmation"]


def test_a_first_placement_is_held_only_by_what_protects_the_server_itself() -> None:
    idle = view(server_state="idle", span_since=None, confirmations=1, moves=(move(MoveStep.DONE, 1),))
    assert holding(idle, wanted(own_span=None)) == []
    assert holding(view(server_state="idle", pinned=True), wanted(own_span=None)) == ["pinned"]
    broken = view(server_state="idle", moves=(move(MoveStep.FAILED, 1),))
    assert holding(broken, wanted(own_span=None)) == ["breaker"]


def test_a_dry_run_says_what_it_would_do_only_where_no_guard_holds() -> None:
    assert apply_guards(wanted(), view(), SETTINGS, dry_run=True).verdict is Verdict.WOULD_MOVE
    assert apply_guards(wanted(), view(pinned=True), SETTINGS, dry_run=True).verdict is Verdict.HOLDING


@pytest.mark.parametrize("verdict", sorted(set(Verdict) - {Verdict.MOVING}))
def test_other_verdicts_pass_unchanged(verdict: Verdict) -> None:
    decision = wanted(verdict=verdict)
    assert apply_guards(decision, view(pinned=True), SETTINGS, dry_run=True) == decision


def test_the_breaker_doubles_with_every_failure_up_to_its_limit() -> None:
    failures = [move(MoveStep.FAILED, ago) for ago in (400, 300, 200, 100)]
    holds = [breaker_release(failures[: n + 1], SETTINGS)[1] - failures[n].step_since for n in range(4)]
    assert holds == [200, 400, 800, 1000]
    assert breaker_release([], SETTINGS) == (0, 0.0)
    assert breaker_release([move(MoveStep.FAILED, 1)] * 5000, SETTINGS)[0] == 5000


def test_a_clock_that_was_far_ahead_does_not_hold_for_ever() -> None:
    assert holding(view(moves=(move(MoveStep.DONE, -1e6), move(MoveStep.FAILED, -1e6)))) == []


@pytest.mark.parametrize("ahead", [SETTINGS.breaker_base, 1e6])
def test_moves_of_before_the_clock_was_set_back_do_not_hide_those_since(ahead: float) -> None:
    failed = move(MoveStep.FAILED, 1)
    for before in (move(MoveStep.DONE, -ahead), move(MoveStep.FAILED, -ahead)):
        assert holding(view(moves=(failed, before))) == ["breaker", "cooldown"]


@given(st.lists(st.tuples(st.sampled_from(MoveStep), st.floats(-1e5, 1e5)), max_size=6), st.floats(0, 1e5))
def test_guards_never_invent_a_move(steps: list[tuple[MoveStep, float]], uptime: float) -> None:
    moves = tuple(move(step, ago) for step, ago in steps)
    guarded = apply_guards(wanted(), view(moves=moves, span_since=NOW - uptime), SETTINGS, dry_run=False)
    assert guarded.verdict in (Verdict.MOVING, Verdict.HOLDING)
    assert guarded.target == wanted().target


def closing_a_hole() -> Decision:
    numbers = SwarmNumbers(bottleneck_rps=0, bound_rps=2, uncovered_blocks=3)
    reason = Reason(name="closes_holes", values={"uncovered": 3, "moves": 1})
    healed = numbers.model_copy(update={"uncovered_blocks": 0})
    return wanted().model_copy(update={"reasons": (reason,), "before": numbers, "after": healed})


def test_a_move_that_closes_a_hole_waits_only_for_what_protects_against_harm() -> None:
    in_a_hurry = view(moves=(move(MoveStep.DONE, 10),), span_since=NOW, confirmations=1, servers=10, others_moving=5)
    assert holding(in_a_hurry) == ["cooldown", "minimum_uptime", "too_many_moving", "confirmation"]
    assert holding(in_a_hurry, closing_a_hole()) == []
    day = tuple(move(MoveStep.DONE, ago) for ago in (3000, 2000, 1000))
    assert holding(view(moves=day), closing_a_hole()) == ["moves_per_day"]
    assert holding(view(pinned=True), closing_a_hole()) == ["pinned"]
    assert holding(view(server_state="joining"), closing_a_hole()) == ["restart_running"]
    assert holding(view(moves=(move(MoveStep.FAILED, 150),)), closing_a_hole()) == ["breaker"]


@pytest.mark.parametrize(
    ("servers", "others", "held"), [(0, 2, False), (9, 2, False), (9, 3, True), (40, 4, False), (40, 5, True)]
)
def test_a_tenth_of_the_servers_may_be_on_the_move_and_always_two(servers: int, others: int, *, held: bool) -> None:
    crowded = view(servers=servers, others_moving=others)
    assert holding(crowded) == ["too_many_moving"] * held
    assert holding(crowded, wanted(own_span=None)) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0.0),
        ({"moves": (move(MoveStep.DONE, 30),)}, NOW + 70),
        ({"moves": (move(MoveStep.DONE, 0),)}, NOW + 100),
        ({"span_since": NOW - 20}, NOW + 30),
        ({"span_since": NOW - 20, "moves": (move(MoveStep.DONE, 60),)}, NOW + 40),
        ({"pinned": True}, None),
        ({"running_restart": "r1"}, None),
        ({"server_state": "joining"}, None),
        ({"server_state": "failed"}, None),
        ({"moves": (move(MoveStep.FAILED, 150),)}, None),
        ({"moves": tuple(move(MoveStep.DONE, ago) for ago in (3000, 2000, 1000))}, None),
    ],
)
def test_others_are_told_when_the_guards_would_let_the_server_be_moved(
    changes: dict[str, object], expected: float | None
) -> None:
    told = movable_at(view(**changes), SETTINGS)
    assert told == expected
    if told is not None:
        assert holding(view(**changes, now=max(told, NOW))) == []


def test_a_server_that_is_only_coming_up_is_not_movable_before_its_minimum_uptime() -> None:
    assert movable_at(view(span_since=None), SETTINGS) == NOW + SETTINGS.minimum_uptime


_DAY = tuple(move(MoveStep.DONE, ago) for ago in (4000, 3000, 2000, 1000))
_SAID = (
    ({"pinned": True}, Reason(name="pinned"), None),
    (
        {"running_restart": "r1"},
        Reason(name="restart_running", values={"state": "online", "restart": "r1"}),
        None,
    ),
    (
        {"moves": (move(MoveStep.ABANDONED, 150),)},
        Reason(name="breaker", values={"failures": 1, "remaining_seconds": 50.0}),
        NOW + 50,
    ),
    # The second of four is the one whose day must be over for two to be left.
    ({"moves": _DAY}, Reason(name="moves_per_day", values={"moves": 4, "limit": 3}), NOW - 3010 + SECONDS_PER_DAY),
    (
        {"moves": (move(MoveStep.DONE, 40),)},
        Reason(name="cooldown", values={"since_seconds": 40.0, "limit_seconds": 100.0}),
        NOW + 60,
    ),
    (
        {"span_since": None},
        Reason(name="minimum_uptime", values={"since_seconds": 0.0, "limit_seconds": 50.0}),
        NOW + 50,
    ),
    (
        {"servers": 40, "others_moving": 5},
        Reason(name="too_many_moving", values={"moving": 5, "servers": 40, "limit": 4}),
        None,
    ),
    ({"confirmations": 1}, Reason(name="confirmation", values={"seen": 1, "needed": 2}), None),
)


@pytest.mark.parametrize(("changes", "reason", "releases_at"), _SAID, ids=[reason.name for _, reason, _ in _SAID])
def test_what_each_guard_says_with_its_numbers_and_when_it_lets_go(
    changes: dict[str, object], reason: Reason, releases_at: float | None
) -> None:
    guarded = apply_guards(wanted(), view(**changes), SETTINGS, dry_run=False)
    assert guarded.reasons == (reason, *wanted().reasons)
    readings = {reading.name: reading for reading in look_at_guards(view(**changes), SETTINGS)}
    assert [name for name, reading in readings.items() if reading.reason is not None] == [reason.name]
    assert readings[reason.name].reason == reason
    assert readings[reason.name].releases_at == releases_at
    assert all(reading.releases_at is None for name, reading in readings.items() if name != reason.name)


def test_guards_are_looked_at_in_the_order_in_which_they_are_asked() -> None:
    kinds = [(reading.name, reading.kind) for reading in look_at_guards(view(), SETTINGS)]
    assert kinds == [
        ("pinned", GuardKind.ALWAYS),
        ("restart_running", GuardKind.ALWAYS),
        ("breaker", GuardKind.ALWAYS),
        ("moves_per_day", GuardKind.WHILE_SERVING),
        ("cooldown", GuardKind.UNLESS_URGENT),
        ("minimum_uptime", GuardKind.UNLESS_URGENT),
        ("too_many_moving", GuardKind.UNLESS_URGENT),
        ("confirmation", GuardKind.UNLESS_URGENT),
    ]


def test_where_no_move_a_day_is_allowed_nobody_knows_when_one_will_be() -> None:
    none = SETTINGS.model_copy(update={"moves_per_day": 0})
    held = {reading.name: reading for reading in look_at_guards(view(), none)}["moves_per_day"]
    assert held.reason == Reason(name="moves_per_day", values={"moves": 0, "limit": 0})
    assert held.releases_at is None
    one = SETTINGS.model_copy(update={"moves_per_day": 1, "cooldown": 0})
    held = {reading.name: reading for reading in look_at_guards(view(moves=(move(MoveStep.DONE, 1),)), one)}[
        "moves_per_day"
    ]
    assert held.releases_at == NOW - 11 + SECONDS_PER_DAY


def test_a_dry_run_names_itself_before_what_led_to_the_move() -> None:
    told = apply_guards(wanted(), view(), SETTINGS, dry_run=True)
    assert told.reasons == (Reason(name="dry_run"), *wanted().reasons)


def test_a_move_that_ended_ahead_of_the_clock_is_older_than_all_that_did_not() -> None:
    ahead, now, before = (move(MoveStep.DONE, ago) for ago in (-1, 0, 1))
    assert in_order((now, ahead, before), NOW) == [ahead, before, now]


def test_only_moves_that_were_begun_count_for_cooldown_and_day() -> None:
    abandoned = tuple(move(MoveStep.ABANDONED, ago) for ago in (300, 200, 50))
    assert holding(view(moves=abandoned)) == ["breaker"]
    # One move of exactly a day ago does not count any more.
    day = tuple(move(MoveStep.DONE, ago) for ago in (SECONDS_PER_DAY - 10, 2000, 1000))
    assert holding(view(moves=day)) == []


def test_the_breaker_counts_what_failed_since_the_last_success_whatever_is_still_under_way() -> None:
    moves = [
        move(MoveStep.FAILED, 900),
        move(MoveStep.DONE, 800),
        move(MoveStep.FAILED, 700),
        move(MoveStep.FELL_BACK, 600),
        move(MoveStep.VERIFYING, 500),
    ]
    assert breaker_release(moves, SETTINGS) == (2, NOW - 600 + 400)
    assert view_breaker(moves, SETTINGS, NOW - 300) == Breaker(2, NOW - 200)
    assert view_breaker(moves, SETTINGS, NOW - 200) == Breaker(2, None)
    # However wrong the clock is, nothing is held back by nothing.
    assert {view_breaker((), SETTINGS, now) for now in (-1.0, 0.0, NOW)} == {Breaker(0, None)}
    # It holds for as long as it can hold at most, and a clock that was set back does not make that longer.
    longest = [move(MoveStep.FAILED, 0)] * 5
    assert view_breaker(longest, SETTINGS, NOW) == Breaker(5, NOW + 1000)
    assert view_breaker(longest, SETTINGS, NOW - 1) == Breaker(5, None)
    row = [move(MoveStep.FAILED, 0)] * 70
    endless = SETTINGS.model_copy(update={"breaker_max": 1e300})
    assert breaker_release(row, endless)[1] == NOW + 200 * 2.0**60
