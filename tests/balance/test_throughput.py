from __future__ import annotations

import math
import warnings

from hypothesis import given

from swarmkeel.balance.throughput import compute_throughputs
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, compute_spans
from tests.balance import plain
from tests.balance.swarms import garbage_modules, honest_modules, spans_from


def test_is_the_sum_over_the_servers_of_a_block() -> None:
    spans = spans_from((0, 2, 1.0), (1, 4, 10.0))
    assert compute_throughputs(spans, total_blocks=5).tolist() == [1.0, 11.0, 10.0, 10.0, 0.0]


def test_no_servers_and_no_blocks() -> None:
    assert compute_throughputs({}, total_blocks=2).tolist() == [0.0, 0.0]
    assert compute_throughputs({}, total_blocks=0).tolist() == []


def test_is_summed_in_the_order_of_the_peer_ids() -> None:
    # 0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in the last bit.
    spans = spans_from((0, 1, 0.1), (0, 1, 0.2), (0, 1, 0.3))
    backwards = dict(reversed(spans.items()))
    assert compute_throughputs(spans, total_blocks=1)[0] == 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    assert compute_throughputs(backwards, total_blocks=1)[0] == 0.1 + 0.2 + 0.3


def test_spans_that_are_none_cover_nothing() -> None:
    assert compute_throughputs(spans_from((3, 1, 5.0), (9, 4, 5.0), (2, 2, 5.0)), total_blocks=4).sum() == 0


def test_overflow_is_infinity_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compute_throughputs(spans_from((0, 1, 1.7e308), (0, 1, 1.7e308)), total_blocks=1)[0] == math.inf


@given(modules=garbage_modules() | honest_modules())
def test_agrees_with_the_plain_rule(modules: list[RemoteModuleInfo[str]]) -> None:
    spans = compute_spans(modules, min_state=ServerState.JOINING)
    assert compute_throughputs(spans, total_blocks=len(modules)).tolist() == plain.throughputs_of(spans, len(modules))
