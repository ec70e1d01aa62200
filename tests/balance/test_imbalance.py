from __future__ import annotations

import math
import random
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.imbalance import (
    MAX_ROUNDS,
    ImbalanceCheck,
    ImbalanceReason,
    OwnSpanMissingError,
    check_imbalance,
    should_choose_other_blocks,
)
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, RemoteSpanInfo, compute_spans
from tests.balance import plain
from tests.balance.swarms import PEERS, garbage_modules, honest_modules, modules_from, spans_from

qualities = st.sampled_from([0.0, 0.5, 0.75, 0.999, 1.0, 1.5])


def check(total_blocks: int, *servers: tuple[int, int, float], quality: float = 0.75) -> ImbalanceCheck:
    """Check the first of these servers."""
    spans = spans_from(*servers)
    return check_imbalance("QmA", spans, quality, total_blocks=total_blocks, rng=np.random.RandomState(0))


def test_moves_to_fill_a_hole() -> None:
    found = check(4, (0, 2, 5.0), (0, 2, 5.0))
    assert found.should_move
    assert found.reason is ImbalanceReason.IMBALANCE
    assert (found.initial_rps, found.quality) == (0.0, 0.0)
    assert found.reached_rps == pytest.approx(5.0)
    assert found.rounds >= 1


def test_stays_where_it_is_best() -> None:
    assert check(4, (0, 2, 5.0), (2, 4, 5.0)).reason is ImbalanceReason.LEAVING_UNCOVERS_BLOCK
    assert check(4, (0, 2, 5.0), (0, 4, 1.0)).reason is ImbalanceReason.ALREADY_AT_BEST_PLACE


def test_names_the_block_that_it_would_uncover() -> None:
    found = check(4, (0, 3, 5.0), (0, 1, 5.0), (2, 4, 5.0))
    assert found == ImbalanceCheck(ImbalanceReason.LEAVING_UNCOVERS_BLOCK, 5.0, uncovered_block=1)


def test_block_with_next_to_nothing_beside_the_own_throughput_counts_as_uncovered() -> None:
    # The surplus of a thousandth takes out all that the other server brings, to the last bit.
    found = check(2, (0, 1, 1.0), (0, 1, 0.001), (0, 2, 0.002), (1, 2, 1.0))
    assert found.reason is not ImbalanceReason.LEAVING_UNCOVERS_BLOCK
    found = check(2, (0, 1, 1.0), (0, 1, 0.001), (1, 2, 1.0))
    assert found.reason is ImbalanceReason.LEAVING_UNCOVERS_BLOCK
    assert 1.0 + 0.001 - 1.0 * (1 + 1e-3) == 0
    found = check(2, (1, 2, 1.0), (1, 2, 0.001), (0, 1, 0.5))
    assert found == ImbalanceCheck(ImbalanceReason.LEAVING_UNCOVERS_BLOCK, 0.5, uncovered_block=1)


def test_placement_that_is_worse_by_a_rounding_is_no_gain() -> None:
    spread = (0, 4, 9.832122873428698), (0, 4, 2.735505231756547), (0, 4, 0.810743979716944)
    found = check(4, (0, 1, 4.269851354386021), spread[0], (0, 1, 0.13906189499856209), *spread[1:])
    assert found == ImbalanceCheck(ImbalanceReason.NO_GAIN, 13.37837208490219, 13.378372084902189, rounds=1)


def test_stays_for_a_small_gain_and_moves_for_it_if_told_so() -> None:
    servers = ((0, 2, 1.0), (0, 2, 10.0), (2, 4, 9.5))
    close = check(4, *servers, quality=0.9)
    assert close.reason is ImbalanceReason.GAIN_TOO_SMALL
    assert close.quality == pytest.approx(9.5 / 10.0)
    assert check(4, *servers, quality=0.99).reason is ImbalanceReason.IMBALANCE


def test_stays_where_nothing_can_be_gained() -> None:
    # Two servers cannot cover three blocks: block 2 stays uncovered wherever the first goes.
    assert check(3, (0, 1, 1.0), (0, 1, 2.0)).reason is ImbalanceReason.NO_GAIN


def test_quality_above_one_forces_a_move_without_looking() -> None:
    assert check(4, quality=1.01) == ImbalanceCheck(ImbalanceReason.FORCED)
    assert should_choose_other_blocks("QmNobody", [], 1.01)


@pytest.mark.parametrize("total_blocks", [0, 3])
def test_missing_own_span_is_a_clear_error(total_blocks: int) -> None:
    with pytest.raises(OwnSpanMissingError, match="QmNobody") as caught:
        should_choose_other_blocks("QmNobody", modules_from(total_blocks), 0.75)
    assert isinstance(caught.value, AssertionError)
    assert caught.value.problem == ("no JOINING or ONLINE record of server QmNobody is among the swarm's records")
    assert caught.value.remedy == "read the DHT again after the server has announced its blocks"


def test_only_a_quality_above_one_forces_a_move() -> None:
    assert check(4, (0, 2, 5.0), (2, 4, 5.0), quality=1.0).reason is ImbalanceReason.LEAVING_UNCOVERS_BLOCK


def test_a_bottleneck_of_nearly_nothing_is_none_that_could_be_lost() -> None:
    # A thousandth of a request a second is Petals' "not covered at all"; a little more than it is covered.
    for rps, reason in (
        (1e-3, ImbalanceReason.ALREADY_AT_BEST_PLACE),
        (1.1e-3, ImbalanceReason.LEAVING_UNCOVERS_BLOCK),
    ):
        assert check(2, (0, 1, rps), (1, 2, 5.0)).reason is reason


def test_a_bottleneck_of_just_what_counts_as_covered_is_reached() -> None:
    found = check(2, (0, 1, 1e-3), (0, 1, 5.0))
    assert found == ImbalanceCheck(ImbalanceReason.IMBALANCE, 0.0, 1e-3, rounds=1)


def test_a_placement_that_equals_the_present_one_gains_too_little() -> None:
    found = check(3, (2, 3, 2.0), (0, 2, 1.0), (2, 3, 2.0), quality=1.0)
    assert found == ImbalanceCheck(ImbalanceReason.GAIN_TOO_SMALL, 1.0, 1.0, rounds=1)


@pytest.mark.parametrize(("quality", "moves"), [(0.0, False), (1e-3, False), (2e-3, True)])
def test_a_quality_must_be_below_the_limit_by_more_than_a_thousandth(quality: float, *, moves: bool) -> None:
    assert check(4, (0, 2, 5.0), (0, 2, 5.0), quality=quality).should_move is moves


def outcome(found: ImbalanceCheck) -> plain.Outcome:
    return plain.Outcome(found.should_move, found.initial_rps, found.reached_rps)


@given(modules=garbage_modules() | honest_modules(), quality=qualities, seed=st.integers(0, 2**32 - 1), data=st.data())
def test_agrees_with_the_plain_rule_to_the_bit(
    modules: list[RemoteModuleInfo[str]], quality: float, seed: int, data: st.DataObject
) -> None:
    spans = compute_spans(modules, min_state=ServerState.JOINING)
    peer = data.draw(st.sampled_from([*spans] or PEERS))
    if quality <= 1 and peer not in spans:
        with pytest.raises(OwnSpanMissingError):
            should_choose_other_blocks(peer, modules, quality)
        return
    expected = plain.check(peer, spans, quality, len(modules), seed)
    rng = np.random.RandomState(seed)
    found = check_imbalance(peer, spans, quality, total_blocks=len(modules), rng=rng)
    assert outcome(found) == expected
    if expected.reached is not None and expected.present is not None:
        no_gain = expected.reached < expected.present or expected.reached < plain.SURPLUS
        assert (found.reason is ImbalanceReason.NO_GAIN) == no_gain
    again = np.random.RandomState(seed)
    assert should_choose_other_blocks(peer, modules, quality, rng=again) is expected.should_move


def test_bounds_of_the_two_rules_are_the_same() -> None:
    assert plain.ROUNDS == MAX_ROUNDS


def piled_swarm(servers: int, seed: int, exponent: float) -> dict[str, RemoteSpanInfo[str]]:
    draws = random.Random(seed)  # noqa: S311 -- a swarm, not a secret
    spans = []
    for _ in range(servers):
        length = draws.randint(1, 60)
        start = draws.randint(0, 80 - length)
        spans.append((start, start + length, 10 ** draws.uniform(-exponent, exponent)))
    return spans_from(*spans)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_plain_rule_on_a_larger_swarm(seed: int) -> None:
    spans = piled_swarm(40, seed, 2.0)
    found = {
        peer: check_imbalance(peer, spans, 0.999, total_blocks=80, rng=np.random.RandomState(seed))
        for peer in [*spans][:8]
    }
    assert {peer: outcome(check) for peer, check in found.items()} == {
        peer: plain.check(peer, spans, 0.999, 80, seed) for peer in found
    }
    assert any(check.rounds > 1 for check in found.values())


def test_search_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = piled_swarm(40, 0, 2.0)
    peer, found = next(
        (peer, found)
        for peer in spans
        if (found := check_imbalance(peer, spans, 0.999, total_blocks=80, rng=np.random.RandomState(0))).rounds > 1
    )
    monkeypatch.setattr("swarmkeel.balance.imbalance.MAX_ROUNDS", found.rounds)
    assert check_imbalance(peer, spans, 0.999, total_blocks=80, rng=np.random.RandomState(0)) == found
    monkeypatch.setattr("swarmkeel.balance.imbalance.MAX_ROUNDS", found.rounds - 1)
    given_up = check_imbalance(peer, spans, 0.999, total_blocks=80, rng=np.random.RandomState(0))
    assert given_up == ImbalanceCheck(ImbalanceReason.NO_STEADY_PLACEMENT, found.initial_rps, rounds=found.rounds - 1)
    assert not given_up.should_move


def test_throughputs_that_overflow_end_the_search_without_a_warning() -> None:
    # The answer is worth nothing, as in Petals; policies do not ask on such a snapshot.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check(3, (0, 1, 1.7e308), (0, 3, 1.7e308), (0, 2, 1.7e308)).rounds < MAX_ROUNDS
        # A thousandth more than the largest number is infinity, and what is left of it no number.
        check(3, (0, 1, 1.797e308), (0, 3, 1.797e308), (0, 2, 1.797e308))


def test_numpys_global_generator_is_never_touched() -> None:
    def state() -> tuple[bytes, int]:
        held = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 -- it is the one watched
        return held["key"].tobytes(), held["pos"]

    modules = modules_from(8, (0, 3, 5.0), (0, 3, 4.0), (2, 5, 3.0), (0, 4, 2.0))
    before = state()
    should_choose_other_blocks("QmA", modules, 0.75)
    assert state() == before


def test_quality_is_unknown_where_nothing_was_reached() -> None:
    assert ImbalanceCheck(ImbalanceReason.NO_GAIN, 0.0, 0.0, 1).quality is None
    assert ImbalanceCheck(ImbalanceReason.FORCED).quality is None
    assert ImbalanceCheck(ImbalanceReason.IMBALANCE, 1.0, math.inf, 1).quality == 0.0
