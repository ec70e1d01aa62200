"""A decision is many times as fast as by the plain rules; how fast it is beside Petals is `make bench-petals`' business."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pytest

from benchmarks.swarms import Swarm, announced, find_peer
from swarmkeel.balance import imbalance
from swarmkeel.balance.imbalance import check_imbalance
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, compute_spans
from tests.balance import plain

LEAST = {"compiled": 10, "numpy": 2}
"""A third or less of what is measured, which is some 70 and some 6."""


@pytest.mark.parametrize("way", LEAST)
def test_search_is_many_times_as_fast_as_by_the_plain_rules(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "numpy":
        monkeypatch.setattr(imbalance, "compiled", None)
    elif imbalance.compiled is None:
        pytest.skip("the kernel is not compiled: python hatch_build.py")
    blocks = announced(Swarm("piled", 300, 80))
    modules = [
        RemoteModuleInfo(f"model.{block}", {peer: ServerInfo.from_tuple(record) for peer, record in servers.items()})
        for block, servers in enumerate(blocks)
    ]
    spans = compute_spans(modules, min_state=ServerState.JOINING)

    def ours(peer: str) -> imbalance.ImbalanceCheck:
        return check_imbalance(peer, spans, 0.75, total_blocks=80, rng=np.random.RandomState(1))

    def by_plain_rules(peer: str) -> plain.Outcome:
        return plain.check(peer, spans, 0.75, 80, 1)

    peer = find_peer(blocks, lambda peer: ours(peer).rounds > 0)
    assert peer is not None
    seconds: dict[Callable[[str], object], list[float]] = {ours: [], by_plain_rules: []}
    for _ in range(5):
        for ask, taken in seconds.items():
            begun = time.process_time()
            ask(peer)
            taken.append(time.process_time() - begun)
    assert by_plain_rules(peer).reached == ours(peer).reached_rps
    assert median(seconds[by_plain_rules]) > LEAST[way] * median(seconds[ours])
