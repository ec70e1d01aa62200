"""Records that should have been renewed: known from how long those of the same server lived before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.swarm.renewal import RenewalWatch

LIFE, PERIOD = 240.0, 120.0


def test_a_record_that_is_not_renewed_is_overdue_before_it_ends() -> None:
    watch = RenewalWatch()
    assert watch.overdue({"dies": 240.0, "lives": 240.0}, 0.0) == frozenset()
    assert watch.overdue({"dies": 240.0, "lives": 360.0}, 125.0) == frozenset()
    assert watch.overdue({"dies": 240.0, "lives": 360.0}, 140.0) == {"dies"}
    assert watch.overdue({"dies": 400.0, "lives": 360.0}, 160.0) == frozenset()


def test_a_server_that_is_seen_for_the_first_time_is_not_overdue() -> None:
    assert RenewalWatch().overdue({"old": 101.0, "new": 900.0}, 100.0) == frozenset()


def test_a_server_that_is_gone_is_forgotten() -> None:
    watch = RenewalWatch()
    watch.overdue({"a": 1000.0}, 0.0)
    watch.overdue({}, 10.0)
    assert watch.overdue({"a": 50.0}, 20.0) == frozenset()


def test_a_server_that_is_set_to_shorter_lives_is_believed_after_some_renewals() -> None:
    watch = RenewalWatch()
    watch.overdue({"a": 900.0}, 0.0)
    seen = [watch.overdue({"a": begin + 60.0}, begin + 25.0) for begin in range(0, 900, 30)]
    assert seen[0] == {"a"}
    assert seen[-1] == frozenset()


@given(
    looks=st.lists(st.floats(1.0, 100.0), min_size=1, max_size=30),
    delay=st.floats(0.0, 10.0),
    begun=st.floats(0.0, PERIOD),
)
def test_a_server_that_renews_in_time_is_never_overdue(looks: list[float], delay: float, begun: float) -> None:
    watch, now = RenewalWatch(), begun
    for wait in looks:
        now += wait
        renewed_at = (now - delay) // PERIOD * PERIOD
        assert watch.overdue({"a": renewed_at + LIFE}, now) == frozenset()
