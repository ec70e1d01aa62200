"""A decision is many times as fast as Petals' own; `make bench-petals` says how many, this holds a fraction of it."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.beside_petals import Case, compare, worker
from benchmarks.swarms import Swarm
from swarmkeel.balance import imbalance
from tests.petals.support import PETALS_PYTHON


def test_decision_is_many_times_as_fast_as_petals(figures: dict[str, str]) -> None:
    with worker(Path(sys.executable), "swarmkeel") as ours, worker(PETALS_PYTHON, "petals") as theirs:
        measured = compare(Case("decision", Swarm("piled", 300, 126), rounds=3), {"swarmkeel": ours, "petals": theirs})
    figures["a decision, 300 servers, 126 blocks"] = f"{measured.ratio:.0f} times as fast as Petals"
    assert measured.check.rounds > 1
    assert measured.ratio > (40 if imbalance.compiled is not None else 10)
