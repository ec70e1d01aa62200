"""What a chaos run holds servers to: lives that are all right, and for each rule one that breaks it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.truth import Fault, Judgement, Life, Rules, Why, judge

RULES = Rules(propagation=20.0, breaker=8.0, total_blocks=8)
LOW, HIGH = "0:4", "4:8"


def life(
    at: float, step: str, span: str | None, restart: str | None = None, *, error: str | None = None
) -> dict[str, Any]:
    over = error is not None or (restart is not None and step == "online")
    return {"at": at, "what": "life", "step": step, "span": span, "restart": restart, "over": over, "error": error}


def asked(
    at: float, request: str, target: str, served: str | None, *, busy: str | None = None, refusal: str | None = None
) -> dict[str, Any]:
    return {
        "at": at,
        "what": "asked",
        "id": request,
        "target": target,
        "served": served,
        "busy_with": busy,
        "refusal": refusal,
    }


def a_move(at: float, request: str, origin: str, target: str, *, seconds: float = 2.0) -> list[dict[str, Any]]:
    return [
        asked(at, request, target, origin),
        life(at, "leaving", origin, request),
        life(at + 0.1, "loading", target, request),
        life(at + seconds, "online", target, request),
    ]


def a_failed_move(at: float, request: str, origin: str, target: str) -> list[dict[str, Any]]:
    """It could not be loaded, and the server is back where it was 2 seconds later."""
    return [
        asked(at, request, target, origin),
        life(at, "leaving", origin, request),
        life(at + 0.1, "loading", target, request),
        life(at + 1.0, "leaving", target, request, error="no"),
        life(at + 1.1, "loading", origin, request, error="no"),
        life(at + 2.0, "online", origin, request, error="no"),
    ]


def server(*entries: dict[str, Any], gone: tuple[float, ...] = (), span: str = LOW) -> Life:
    return Life([life(0.0, "online", span), *entries], list(gone))


def judged(*faults: Fault, **lives: Life) -> Judgement:
    return judge({"high": server(span=HIGH), "low": server(), **lives}, faults, RULES)


def test_a_swarm_in_order_breaks_no_rule() -> None:
    moves = a_move(100, "m1", LOW, HIGH) + a_failed_move(120, "m2", HIGH, LOW) + a_move(131, "m3", HIGH, LOW)
    found = judged(own=server(*moves))
    assert found.violations == ()
    assert found.moves == {"high": 0, "low": 0, "own": 3}
    assert (found.failed, found.fallbacks) == (1, 0)
    assert found.uncoverings == ()


IN_A_LOOP = [
    entry
    for number in range(3)
    for entry in a_move(100 + 3 * number, f"m{number}", *((LOW, HIGH) if number % 2 == 0 else (HIGH, LOW)))
]


@pytest.mark.parametrize(
    ("entries", "faults", "said"),
    [
        ([asked(100, "m2", HIGH, LOW, busy="m1", refusal="busy")], [], "two moves at once"),
        ([asked(100, "m1", LOW, LOW)], [], "where it was"),
        (a_move(100, "m1", LOW, HIGH) + a_move(103, "m1", HIGH, LOW), [], "began m1 twice"),
        (a_move(100, "m1-back", HIGH, LOW) + a_move(110, "m1-back", LOW, HIGH), [], "began m1-back twice"),
        (a_move(100, "m1-back", HIGH, LOW) + a_move(110, "m1", LOW, HIGH), [], "after its way back"),
        (a_failed_move(100, "m1", LOW, HIGH) + a_move(105, "m2", LOW, HIGH), [], "after m1 had failed"),
        (IN_A_LOOP, [Fault("sidecar crashes again and again", "own", 99, 115)], "3 moves in a crash loop"),
    ],
)
def test_what_must_never_happen_is_found(entries: list[dict[str, Any]], faults: list[Fault], said: str) -> None:
    (found,) = judged(*faults, own=server(*entries)).violations
    assert found.startswith("own: ")
    assert said in found


def test_what_a_lie_or_a_crash_of_the_server_brings_about_is_nobodys_fault() -> None:
    lie = Fault("server lies about its state", "own", 90, 110)
    assert judged(lie, own=server(asked(100, "m1", LOW, LOW))).violations == ()
    # Its process has ended meanwhile, and with it all that it knew.
    back = life(104, "online", LOW)
    assert (
        judged(own=server(*a_move(100, "m1", LOW, HIGH), back, *a_move(105, "m1", LOW, HIGH), gone=(103,))).violations
        == ()
    )
    # It comes back where the move was to lead it to, so for the sidecar the move has not failed.
    loading = [asked(100, "m1", HIGH, LOW), life(100, "leaving", LOW, "m1"), life(100.1, "loading", HIGH, "m1")]
    assert (
        judged(own=server(*loading, life(102, "online", HIGH), *a_move(104, "m2", HIGH, LOW), gone=(101,))).violations
        == ()
    )
    assert judged(own=server(*loading, life(102, "online", LOW), *a_move(104, "m2", LOW, HIGH), gone=(101,))).violations


def alone_on_low(*others: tuple[str, Life], faults: tuple[Fault, ...] = ()) -> tuple[Why | None, tuple[str, ...]]:
    """Judge a server that leaves the lower half at 100, in a swarm whose only other server is on the upper half."""
    lives = {"high": server(span=HIGH), "own": server(*a_move(100, "m1", LOW, HIGH)), **dict(others)}
    found = judge(lives, faults, RULES)
    (one,) = found.uncoverings
    assert (one.server, one.blocks) == ("own", (0, 1, 2, 3))
    return one.why, found.violations


def test_whoever_serves_blocks_alone_may_not_leave_them() -> None:
    why, violations = alone_on_low()
    assert why is None
    assert len(violations) == 1
    assert "served alone" in violations[0]
    # Nor for what was over long ago, or comes later, or was on other blocks.
    old = Life([life(0, "online", LOW)], [70])
    late = Life([life(101, "loading", LOW)])
    for other in (old, late, server(span=HIGH)):
        assert alone_on_low(("other", other))[0] is None
    assert alone_on_low(faults=(Fault("f", "", 10, 79, hides=True, invents=True),))[0] is None


def test_what_a_snapshot_could_not_know_explains_it() -> None:
    crashed = Life([life(0, "online", LOW)], [90])
    frozen = Life([life(0, "online", LOW)], [], [(95, 120)])
    loading = Life([life(90, "loading", LOW)])
    half = Life([life(0, "online", "0:2")], [90])
    assert alone_on_low(("other", crashed)) == (Why.SERVED_BEFORE, ())
    assert alone_on_low(("other", frozen)) == (Why.SERVED_BEFORE, ())
    assert alone_on_low(("other", loading)) == (Why.LOADED, ())
    assert alone_on_low(("other", half))[0] is None
    assert alone_on_low(faults=(Fault("f", "", 90, 99, invents=True),)) == (Why.FALSE_RECORDS, ())
    assert alone_on_low(faults=(Fault("f", "", 90, 99, hides=True),)) == (Why.HIDDEN_RECORDS, ())
    lives = {"own": server(*a_move(100, "m1", LOW, HIGH))}
    assert judge(lives, [], RULES).uncoverings[0].why is Why.HOLE
