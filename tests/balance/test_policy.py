"""What a policy is told of the own server, how long a move would take it; and what names a policy."""

from __future__ import annotations

import pytest

from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import OwnServer
from swarmkeel.errors import UsageError
from swarmkeel.swarm.span import Span


@pytest.mark.parametrize(
    ("span", "target", "seconds"),
    [
        (Span(4, 8), Span(12, 16), 60 + 400),  # nothing of it is there
        (Span(4, 8), Span(8, 12), 60 + 400),
        (Span(4, 8), Span(5, 9), 60 + 100),
        (Span(4, 8), Span(1, 5), 60 + 300),
        (Span(4, 8), Span(0, 16), 60 + 300),
        (Span(4, 8), Span(5, 7), 60),
        (None, Span(5, 9), 60 + 400),
    ],
    ids=str,
)
def test_a_move_takes_the_loading_and_before_it_the_fetching_of_what_is_missing(
    span: Span | None, target: Span, seconds: float
) -> None:
    own = OwnServer(peer_id="QmA", span=span, num_blocks=4, throughput=5.0, load_seconds=60.0, fetch_seconds=400.0)
    assert own.seconds_to(target) == seconds
    assert own.seconds_to(target, has_weights=True) == 60


def test_only_the_beginning_of_a_long_wrong_name_is_repeated() -> None:
    with pytest.raises(UsageError) as raised:
        get_policy("x" * 5000)
    assert str(raised.value).startswith(f"there is no balance policy '{'x' * 100}'")
