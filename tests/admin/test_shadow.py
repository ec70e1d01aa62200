"""Shadow mode as values: what counts as one wish, what as a hole, and what is said of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.decision import Verdict
from swarmkeel.commands.report import describe_hole, summarize
from swarmkeel.daemon.shadow import Look, MoveMade, Point, Witness, find_wishes, make_report
from swarmkeel.swarm.span import Span

LOW, HIGH = Span(0, 4), Span(4, 8)


def look(at: float, verdict: Verdict = Verdict.WOULD_MOVE, target: Span | None = HIGH, own: Span = LOW) -> Look:
    return Look(f"check{at:g}", at, verdict, own, target, 10.0, closes_holes=target == HIGH)


def point(at: float, uncovered: int = 0, bottleneck: float = 10.0) -> Point:
    return Point(at=at, bottleneck_rps=0.0 if uncovered else bottleneck, bound_rps=20.0, uncovered_blocks=uncovered)


def witness(name: str, *looks: Look, points: tuple[Point, ...] = (), peer: str | None = None) -> Witness:
    return Witness(name, peer or f"Qm{name}", looks, points)


LOOKS = st.lists(
    st.builds(
        look,
        st.just(0.0),
        st.sampled_from(Verdict),
        st.sampled_from((None, HIGH, Span(2, 6))),
        st.sampled_from((LOW, Span(1, 5))),
    ),
    max_size=30,
)


@given(LOOKS)
def test_every_check_that_would_have_moved_belongs_to_one_wish(drawn: list[Look]) -> None:
    looks = [
        Look(f"c{at}", float(at), one.verdict, one.own_span, one.target, one.gain_rps) for at, one in enumerate(drawn)
    ]
    wishes = list(find_wishes(witness("a", *looks)))
    would = [one for one in looks if one.verdict is Verdict.WOULD_MOVE and one.target is not None]
    assert sum(wish.checks for wish in wishes) == len(would)
    assert [wish.first_at for wish in wishes] == sorted(wish.first_at for wish in wishes)
    for wish in wishes:
        inside = [one for one in would if wish.first_at <= one.at <= wish.last_at]
        assert {(one.own_span, one.target) for one in inside} == {(wish.origin, wish.target)}
        assert len(inside) == wish.checks
    # Two in a row that are the same are two only if a check between them wanted something else.
    for one, other in pairwise(wishes):
        between = [each for each in looks if one.last_at < each.at < other.first_at]
        assert (one.origin, one.target) != (other.origin, other.target) or between


@pytest.mark.parametrize(
    ("between", "wishes"),
    [
        (look(2, Verdict.INSUFFICIENT_INFORMATION, None), 1),
        (look(2, Verdict.HOLDING), 1),
        (look(2, Verdict.BALANCED, None), 2),
        (look(2, Verdict.HOLDING, Span(2, 6)), 2),
        (look(2, own=Span(1, 5)), 3),
    ],
)
def test_a_wish_goes_on_until_something_else_is_wanted(between: Look, wishes: int) -> None:
    assert len(list(find_wishes(witness("a", look(1), between, look(3))))) == wishes


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 2)), max_size=20),
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 2)), max_size=20),
)
def test_no_time_is_counted_twice(one: list[tuple[float, int]], other: list[tuple[float, int]]) -> None:
    witnesses = [
        witness(name, points=tuple(point(at, holes) for at, holes in sorted(seen)))
        for name, seen in (("a", one), ("b", other))
    ]
    report = make_report(witnesses, [], since=0.0, until=100.0)
    balance = report.balance
    assert 0 <= balance.hole_seconds <= balance.observed_seconds + 1e-9 <= 100.0 + 1e-6
    assert sum(hole.until - hole.since for hole in report.holes) >= balance.hole_seconds - 1e-6
    assert all(earlier.until <= later.since for earlier, later in pairwise(report.holes))
    if balance.bottleneck_rps is not None:
        assert balance.lowest_rps is not None
        assert balance.highest_rps is not None
        assert balance.lowest_rps - 1e-9 <= balance.bottleneck_rps <= balance.highest_rps + 1e-9
    assert list(summarize(report))


def test_what_happened_is_held_against_what_would_have() -> None:
    hole = tuple(point(at, 4 if 100 <= at < 160 else 0) for at in range(0, 300, 10))
    first = Witness(
        "a.sqlite",
        "QmFirst",
        (look(0, Verdict.BALANCED, None), *(look(at) for at in range(110, 160, 10)), look(170, Verdict.BALANCED, None)),
        hole,
        servers=(
            (0.0, {"QmFirst": LOW, "QmGone": HIGH}),
            (100.0, {"QmFirst": LOW}),
            (160.0, {"QmFirst": LOW, "QmNew": HIGH}),
        ),
    )
    second = witness("b", look(112), look(122, Verdict.BALANCED, None), points=hole)
    wishes = [wish.model_copy(update={"seconds": 30.0}) for each in (first, second) for wish in find_wishes(each)]
    report = make_report([first, second], wishes, since=0.0, until=300.0)
    assert [(wish.peer_id, wish.first_at, wish.last_at, wish.checks) for wish in report.wishes] == [
        ("QmFirst", 110.0, 150.0, 5),
        ("Qmb", 112.0, 112.0, 1),
    ]
    (seen,) = report.holes
    assert (seen.since, seen.until, seen.is_open, seen.blocks) == (100.0, 160.0, False, 4)
    assert report.balance.hole_seconds == 60.0
    assert report.balance.observed_seconds == 300.0
    assert report.balance.bottleneck_rps == pytest.approx(8.0)
    assert [(change.at, change.peer_id, change.origin, change.target) for change in report.changes] == [
        (100.0, "QmGone", HIGH, None),
        (160.0, "QmNew", None, HIGH),
    ]
    (conflict,) = report.conflicts
    assert (conflict.kind, conflict.peers, conflict.target) == ("same_hole", ("QmFirst", "Qmb"), HIGH)
    lines = list(summarize(report))
    assert "2 sidecars would have made 2 moves in a dry run and made 0 moves" in lines[0]
    assert lines[2] == "1 hole, open for 60 s altogether."
    assert lines[3] == describe_hole(seen)
    assert lines[3].startswith(
        "From 01-01 00:01:40 until 01-01 00:02:40 (60 s) 4 blocks had no server: it would have been"
    )
    assert "closed by QmFirst to 4:8, decided at 01-01 00:01:50, serving about 30 s later; Qmb to 4:8" in lines[3]


def test_two_that_would_have_changed_places_are_named_and_those_that_follow_each_other_are_not() -> None:
    one = witness("a", look(10), look(20))
    swapped = witness("b", look(15, target=LOW, own=HIGH))
    later = witness("c", look(30, target=LOW, own=HIGH))
    wishes = [wish for each in (one, swapped, later) for wish in find_wishes(each)]
    report = make_report([one, swapped, later], wishes, since=0, until=100)
    assert [(conflict.kind, conflict.peers) for conflict in report.conflicts] == [("swap", ("Qma", "Qmb"))]


def test_what_nobody_saw_is_not_made_up() -> None:
    made = MoveMade(at=5.0, peer_id="Qma", origin=LOW, target=HIGH, step="done", gain_rps=None)
    dark = Witness("a", "Qma", (), (point(0), point(10), point(20)), (made,))
    report = make_report([dark, Witness("b", None, (), ())], [], since=0.0, until=1000.0)
    assert report.balance.observed_seconds == 50.0  # 20 s, and three times the usual 10 s
    assert report.moves == (made,)
    lines = list(summarize(report))
    assert "2 tell nothing of that time." in lines[0]
    assert lines[1].endswith("over the 50 s that were seen; of 16 min nothing is known.")
    assert lines[2] == "No block was unserved."
    empty = make_report([], [], since=0.0, until=10.0)
    assert "Nobody saw the swarm in that time." in list(summarize(empty))
