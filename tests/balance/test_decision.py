from __future__ import annotations

import pytest
from pydantic import ValidationError

from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.balance.imbalance import ImbalanceReason
from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import OwnServer
from swarmkeel.balance.reasons import SENTENCES, render_reason
from swarmkeel.errors import UsageError
from swarmkeel.swarm.span import Span

DECISION = Decision(
    verdict=Verdict.HOLDING,
    reasons=(
        Reason(name="imbalance", values={"quality": 0.5, "limit": 0.75}),
        Reason(name="breaker", values={"failures": 2, "remaining_seconds": 59.6}),
    ),
    policy="petals",
    peer_id="QmA",
    own_span=Span(0, 4),
    target=Span(4, 8),
    before=SwarmNumbers(bottleneck_rps=1.0, bound_rps=4.0, uncovered_blocks=0),
    after=None,
    snapshot_digest="00",
    seed=1,
)


def test_reads_as_one_sentence_with_the_weightiest_reason_first() -> None:
    assert DECISION.sentence == (
        "holding: the balance quality 50.0% is below the limit of 75.0%; "
        "2 moves in a row failed, the next may start in 60 s"
    )


def test_survives_json() -> None:
    assert Decision.model_validate_json(DECISION.model_dump_json()) == DECISION


def test_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DECISION.verdict = Verdict.MOVING  # type: ignore[misc]  # that this is refused is the point


def test_every_outcome_of_an_imbalance_check_has_its_sentence() -> None:
    assert set(SENTENCES) >= {reason.value for reason in ImbalanceReason}


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("forced", {"limit": 1.5}, "a balance quality of 1.5 forces a move at every check"),
        ("of_a_newer_version", {"x": 1}, "of_a_newer_version {'x': 1}"),
        ("of_a_newer_version", {}, "of_a_newer_version"),
        ("forced", {"x": 1}, "forced {'x': 1}"),
        ("forced", {"limit": None}, "forced {'limit': None}"),
        ("forced", {"limit": "x"}, "forced {'limit': 'x'}"),
    ],
)
def test_what_cannot_be_put_into_words_is_shown_as_it_is(
    name: str, values: dict[str, str | int | float | bool | None], sentence: str
) -> None:
    assert render_reason(name, values) == sentence


def test_balance_is_a_share() -> None:
    assert SwarmNumbers(bottleneck_rps=1.0, bound_rps=4.0, uncovered_blocks=0).balance_ratio == 0.25
    assert SwarmNumbers(bottleneck_rps=0.0, bound_rps=0.0, uncovered_blocks=3).balance_ratio == 0.0
    rounded = SwarmNumbers(bottleneck_rps=0.30000000000000004, bound_rps=0.3, uncovered_blocks=0)
    assert rounded.balance_ratio == 1.0


@pytest.mark.parametrize(
    "changes", [{"num_blocks": 0}, {"throughput": -1.0}, {"throughput": float("nan")}, {"throughput": float("inf")}]
)
def test_server_that_cannot_be_is_refused(changes: dict[str, float]) -> None:
    good = {"peer_id": "QmA", "span": None, "num_blocks": 1, "throughput": 1.0}
    OwnServer.model_validate(good)
    with pytest.raises(ValidationError):
        OwnServer.model_validate({**good, **changes})


def test_policies_are_known_by_name() -> None:
    assert get_policy("petals").name == "petals"
    with pytest.raises(UsageError, match=r"'best'.*choose one of coordinated, petals"):
        get_policy("best")


def test_one_is_not_many() -> None:
    values = {"uncovered": 11, "moves": 1}
    assert render_reason("closes_holes", values) == (
        "nobody serves 11 blocks, and 1 move can give each of them a server"
    )
    assert render_reason("others_move", {"moves": 1, "peers": "a"}) == "the plan moves 1 other server (a)"
