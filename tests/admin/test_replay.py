"""Replay as values: no bit that differs is passed over, and none is made up."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.daemon.replay import ABSENT, ReplayResult, compare_decisions, replay_check
from swarmkeel.swarm.span import Span
from tests.daemon.test_journal import TOLD, coordinated

NUMBERS = st.builds(
    SwarmNumbers, bottleneck_rps=st.floats(), bound_rps=st.floats(), uncovered_blocks=st.integers(0, 99)
)
SPANS = st.builds(lambda start, length: Span(start, start + length), st.integers(0, 9), st.integers(1, 9))
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
REASONS = st.builds(
    Reason, name=st.sampled_from(("pinned", "dry_run")), values=st.dictionaries(st.text(max_size=3), VALUES, max_size=3)
)
DECISIONS = st.builds(
    Decision,
    verdict=st.sampled_from(Verdict),
    reasons=st.lists(REASONS, max_size=3).map(tuple),
    policy=st.sampled_from(("petals", "coordinated")),
    peer_id=st.text(max_size=5),
    own_span=st.none() | SPANS,
    target=st.none() | SPANS,
    before=st.none() | NUMBERS,
    after=st.none() | NUMBERS,
    snapshot_digest=st.text(max_size=5),
    seed=st.integers(0, 9),
)


def _text(decision: Decision) -> str:
    return json.dumps(decision.model_dump(), sort_keys=True)


@given(DECISIONS, DECISIONS)
def test_two_decisions_differ_exactly_where_they_are_not_the_same(one: Decision, other: Decision) -> None:
    assert list(compare_decisions(one, one.model_copy(deep=True))) == []
    differences = list(compare_decisions(one, other))
    assert bool(differences) == (_text(one) != _text(other))
    back = {
        difference.place: (difference.replayed, difference.recorded) for difference in compare_decisions(other, one)
    }
    assert back == {difference.place: (difference.recorded, difference.replayed) for difference in differences}


def test_what_differs_is_named_with_both_values() -> None:
    record = coordinated(1, TOLD)
    assert replay_check(record).result is ReplayResult.SAME
    less = record.decision.model_copy(update={"target": None, "reasons": record.decision.reasons[:1], "seed": 7})
    found = replay_check(replace(record, decision=less))
    assert found.result is ReplayResult.DIFFERENT
    places = {difference.place: difference.recorded for difference in found.differences}
    assert places["seed"] == "7"
    assert places["target"] == "null"
    assert places["target.start"] == ABSENT
    assert found.verdict == "moving"


def test_a_check_without_inputs_says_why_it_cannot_be_replayed() -> None:
    record = coordinated(1, TOLD)
    reasons = (Reason(name="server_unreachable", values={"error": "gone"}),)
    silent = record.decision.model_copy(update={"reasons": reasons})
    found = replay_check(replace(record, decision=silent, inputs=None))
    assert (found.result, found.detail) == (ReplayResult.NOTHING_DECIDED, "server_unreachable")
    strange = replay_check(replace(record, decision=record.decision.model_copy(update={"policy": "oracle"})))
    assert strange.result is ReplayResult.UNKNOWN_POLICY
    assert "oracle" in strange.detail
