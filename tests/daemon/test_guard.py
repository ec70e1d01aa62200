from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.daemon.guard import GuardSettings, GuardView, apply_guards, breaker_release
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


@given(st.lists(st.tuples(st.sampled_from(MoveStep), st.floats(-1e5, 1e5)), max_size=6), st.floats(0, 1e5))
def test_guards_never_invent_a_move(steps: list[tuple[MoveStep, float]], uptime: float) -> None:
    moves = tuple(move(step, ago) for step, ago in steps)
    guarded = apply_guards(wanted(), view(moves=moves, span_since=NOW - uptime), SETTINGS, dry_run=False)
    assert guarded.verdict in (Verdict.MOVING, Verdict.HOLDING)
    assert guarded.target == wanted().target
