"""Swarms on which Petals' own code was run: every answer must be the same, bit for bit."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from swarmkeel import (
    RemoteModuleInfo,
    ServerInfo,
    ServerState,
    choose_best_blocks,
    compute_spans,
    compute_throughputs,
    should_choose_other_blocks,
)
from swarmkeel.balance import imbalance
from swarmkeel.balance.imbalance import check_imbalance

with gzip.open(Path(__file__).parents[1] / "data" / "petals_block_selection.jsonl.gz", "rt") as _lines:
    CASES: list[dict[str, Any]] = [json.loads(line) for line in _lines]


def answer_or_error(call: Any) -> Any:
    """Give an answer, or the names of the exception's types: ours are also what Petals raises."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - whichever it is, is the answer
        return {kind.__name__ for kind in type(error).__mro__}


def decide(case: dict[str, Any], modules: list[RemoteModuleInfo[str]]) -> bool:
    rng = np.random.RandomState(case["np_seed"])
    return should_choose_other_blocks(case["local_peer_id"], modules, case["balance_quality"], rng=rng)


def decide_without_kernel(case: dict[str, Any], modules: list[RemoteModuleInfo[str]]) -> bool:
    with mock.patch.object(imbalance, "compiled", None):
        return decide(case, modules)


def test_there_are_as_many_cases_as_were_recorded() -> None:
    assert len(CASES) == 400


@pytest.mark.parametrize("case", CASES, ids=[str(number) for number in range(len(CASES))])
def test_answers_as_petals_does(case: dict[str, Any]) -> None:
    modules = [
        RemoteModuleInfo(module["uid"], {peer: ServerInfo.from_tuple(record) for peer, record in module["servers"]})
        for module in case["modules"]
    ]
    expected = case["expect"]
    spans = compute_spans(modules, min_state=ServerState.JOINING)
    assert [
        [peer, span.start, span.end, span.state.value, span.throughput] for peer, span in spans.items()
    ] == expected["spans"]
    throughputs = compute_throughputs(spans, total_blocks=len(modules))
    assert [throughput.hex() for throughput in throughputs.tolist()] == expected["throughputs"]
    for name, answer in (
        ("choose_best_blocks", answer_or_error(lambda: choose_best_blocks(case["num_blocks"], modules))),
        ("should_choose_other_blocks", answer_or_error(lambda: decide(case, modules))),
        ("should_choose_other_blocks", answer_or_error(lambda: decide_without_kernel(case, modules))),
    ):
        if isinstance(answer, set):
            assert expected[name] in answer
        else:
            assert answer == expected[name]
            assert type(answer) is type(expected[name])


def test_reaches_the_balance_quality_that_petals_logs() -> None:
    logged = [case for case in CASES if case["expect"]["logged_quality_percent"] is not None]
    assert len(logged) > 50
    for case in logged:
        modules = [
            RemoteModuleInfo(module["uid"], {peer: ServerInfo.from_tuple(record) for peer, record in module["servers"]})
            for module in case["modules"]
        ]
        check = check_imbalance(
            case["local_peer_id"],
            compute_spans(modules, min_state=ServerState.JOINING),
            case["balance_quality"],
            total_blocks=len(modules),
            rng=np.random.RandomState(case["np_seed"]),
        )
        assert check.quality is not None
        assert round(check.quality * 100, 1) == float(case["expect"]["logged_quality_percent"])
