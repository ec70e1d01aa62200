from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.sidecar_check import (
    FIRST_CLAIMS_AT_LEAST,
    MAX_CLAIM_AGE,
    MAX_CLAIM_REST,
    CheckedSidecars,
    ClaimDoubt,
    check_sidecars,
)
from swarmkeel.swarm.span import Span

NOW = 1_000_000.0
TOTAL = 16
CLAIM = Claim(Span(0, 4), Span(4, 8), NOW - 5, NOW + 100, 10.0)
SIDECAR = Sidecar("a", 0.0, 60.0, shapes=((2, 15.0),), claim=CLAIM)


def span(peer_id: str = "a", start: int = 0, end: int = 4, rps: float = 10.0) -> RemoteSpanInfo[str]:
    return RemoteSpanInfo(peer_id, start, end, ServerInfo(ServerState.ONLINE, rps))


def check(sidecar: Sidecar, *spans: RemoteSpanInfo[str], first_block: int = 0) -> CheckedSidecars:
    known = {info.peer_id: info for info in spans}
    return check_sidecars({sidecar.peer_id: sidecar}, known, total_blocks=TOTAL, now=NOW, first_block=first_block)


def test_a_claim_that_agrees_with_its_servers_record_counts() -> None:
    assert check(SIDECAR, span()) == CheckedSidecars({"a": SIDECAR}, {})
    shorter = replace(SIDECAR, claim=replace(CLAIM, target=Span(6, 8), throughput=15.0))
    assert check(shorter, span()) == CheckedSidecars({"a": shorter}, {})


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"origin": Span(1, 5)}, ClaimDoubt.ORIGIN),
        ({"target": Span(13, 17)}, ClaimDoubt.TARGET),
        ({"target": Span(4, 9)}, ClaimDoubt.LENGTH),
        ({"throughput": 10.1}, ClaimDoubt.THROUGHPUT),
        ({"target": Span(4, 6), "throughput": 15.1}, ClaimDoubt.THROUGHPUT),
        ({"made_at": NOW + 31}, ClaimDoubt.FUTURE),
        ({"expires_at": NOW + MAX_CLAIM_REST + 1}, ClaimDoubt.TOO_LONG),
        ({"made_at": NOW - MAX_CLAIM_AGE - 1}, ClaimDoubt.TOO_LONG),
    ],
)
def test_a_claim_that_cannot_be_true_is_worth_nothing(changes: dict[str, Any], doubt: ClaimDoubt) -> None:
    checked = check(replace(SIDECAR, claim=replace(CLAIM, **changes)), span())
    assert checked.sidecars == {"a": replace(SIDECAR, claim=None)}
    assert checked.doubts == {doubt.value: 1}


def test_a_record_of_another_version_is_left_out() -> None:
    assert check(replace(SIDECAR, version=2), span()) == CheckedSidecars({}, {"version": 1})


def test_a_claim_of_a_server_that_is_not_there_is_worth_nothing() -> None:
    assert check(SIDECAR).doubts == {"origin": 1}


@pytest.mark.parametrize("changes", [{"expires_at": NOW}, {"target": Span(0, 4), "origin": Span(4, 8)}])
def test_a_claim_that_is_over_is_no_lie_and_counts_no_more(changes: dict[str, Any]) -> None:
    checked = check(replace(SIDECAR, claim=replace(CLAIM, **changes)), span())
    assert checked == CheckedSidecars({"a": replace(SIDECAR, claim=None)}, {})


def test_a_first_placement_counts_though_nobody_knows_the_server_or_only_its_last_life() -> None:
    first = replace(SIDECAR, claim=replace(CLAIM, origin=None))
    assert check(first).sidecars["a"].claim is not None
    assert check(first, span(start=8, end=12)).sidecars["a"].claim is not None
    assert check(replace(first, claim=replace(CLAIM, origin=None, made_at=NOW - 301))).doubts == {"too_long": 1}


def test_a_mover_that_says_offline_is_on_its_way_from_where_it_was() -> None:
    offline = replace(span(), server_info=replace(span().server_info, state=ServerState.OFFLINE))
    assert check(SIDECAR, offline).sidecars["a"].claim is not None
    elsewhere = replace(offline, start=8, end=12)
    assert check(SIDECAR, elsewhere).doubts == {"origin": 1}


def test_of_many_unknown_servers_only_the_first_may_claim_a_place() -> None:
    many = {
        f"u{number:02}": Sidecar(f"u{number:02}", 0.0, 60.0, claim=replace(CLAIM, origin=None, made_at=NOW - number))
        for number in range(20)
    }
    checked = check_sidecars(many, {"a": span()}, total_blocks=TOTAL, now=NOW)
    counted = [peer_id for peer_id, sidecar in checked.sidecars.items() if sidecar.claim is not None]
    assert counted == [f"u{number:02}" for number in range(20 - FIRST_CLAIMS_AT_LEAST, 20)]
    assert checked.doubts == {"too_many": 20 - FIRST_CLAIMS_AT_LEAST}


def test_shapes_that_the_announced_throughput_rules_out_are_taken_away() -> None:
    shapes = ((2, 16.6), (2, 16.7), (8, 10.0), (8, 10.1), (1, 25.0))
    checked = check(replace(SIDECAR, shapes=shapes, claim=None), span())
    assert checked.sidecars["a"].shapes == ((2, 16.6), (8, 10.0), (1, 25.0))


def test_claims_count_from_the_models_first_block_and_spans_from_the_first_one_read() -> None:
    shifted = replace(SIDECAR, claim=replace(CLAIM, origin=Span(40, 44), target=Span(44, 48)))
    assert check(shifted, span(), first_block=40).doubts == {}
    assert check(shifted, span()).doubts == {"target": 1}


SPANS = st.builds(lambda start, length: Span(start, start + length), st.integers(0, 20), st.integers(1, 12))
MOMENTS = st.floats(NOW - 4000, NOW + 4000)
CLAIMS = st.builds(Claim, st.none() | SPANS, SPANS, MOMENTS, MOMENTS, st.floats(0, 100))
SIDECARS = st.builds(
    Sidecar,
    st.sampled_from("abcd"),
    st.none() | MOMENTS,
    st.floats(0, 900),
    shapes=st.lists(st.tuples(st.integers(1, 12), st.floats(0, 100)), max_size=3).map(tuple),
    claim=st.none() | CLAIMS,
    version=st.sampled_from([1, 1, 2]),
)


@given(st.lists(SIDECARS), st.lists(st.tuples(st.sampled_from("abc"), st.integers(-3, 20), st.integers(-3, 25))))
def test_no_claim_that_is_left_promises_more_than_the_servers_own_record(
    told: list[Sidecar], servers: list[tuple[str, int, int]]
) -> None:
    spans = {peer_id: span(peer_id, start, end) for peer_id, start, end in servers}
    sidecars = {sidecar.peer_id: sidecar for sidecar in told}
    checked = check_sidecars(sidecars, spans, total_blocks=TOTAL, now=NOW)
    again = check_sidecars(checked.sidecars, spans, total_blocks=TOTAL, now=NOW)
    assert again.sidecars == checked.sidecars
    for peer_id, sidecar in checked.sidecars.items():
        assert replace(sidecars[peer_id], claim=None, shapes=()) == replace(sidecar, claim=None, shapes=())
        claim, known = sidecar.claim, spans.get(peer_id)
        if claim is None:
            continue
        assert claim == sidecars[peer_id].claim
        assert claim.made_at <= NOW + 30
        assert NOW < claim.expires_at <= NOW + MAX_CLAIM_REST
        assert claim.target.end <= TOTAL
        assert claim.origin != claim.target
        if known is None:
            assert claim.origin is None
        else:
            assert claim.origin in (None, Span(known.start, known.end))
            work = known.throughput * max(known.length + 1, len(claim.target) + 1)
            assert claim.throughput * (len(claim.target) + 1) <= work * (1 + 1e-5)
