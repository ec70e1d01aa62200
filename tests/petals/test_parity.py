"""Swarms that hypothesis draws, answered by the installed Petals and by Swarmkeel: the answers must be the same."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmkeel import RemoteModuleInfo, choose_best_blocks, should_choose_other_blocks
from tests.balance.swarms import PEERS, garbage_modules, honest_modules
from tests.petals.support import PETALS_PYTHON, PROGRAMS

_SWARMS = 2_000


@pytest.fixture(scope="module")
def answering() -> Iterator[subprocess.Popen[str]]:
    """A process in Petals' environment that answers as Petals and as Swarmkeel there."""
    command: list[str | Path] = [PETALS_PYTHON, "-W", "ignore", PROGRAMS / "answer.py"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == '{"ready": true}\n'
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


def _answer_or_error(call: Any) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - whichever it is, is the answer
        return {kind.__name__ for kind in type(error).__mro__}


def _agree(ours: Any, petals: Any) -> bool:
    """Tell whether two answers are the same; where Petals never ends, Swarmkeel must say no."""
    if petals == "EndlessError":
        return ours is False
    return petals in ours if isinstance(ours, set) else bool(ours == petals and type(ours) is type(petals))


def test_answers_as_the_installed_petals_does(answering: subprocess.Popen[str], figures: dict[str, str]) -> None:
    asked = yes = errors = 0

    @settings(
        max_examples=_SWARMS, deadline=None, database=None, derandomize=False, suppress_health_check=list(HealthCheck)
    )
    @given(
        modules=st.one_of(honest_modules(), garbage_modules()),
        num_blocks=st.integers(1, 6),
        peer=st.sampled_from(PEERS),
        quality=st.sampled_from([0.0, 0.5, 0.75, 0.9, 1.0, 1.5]),
        seed=st.integers(0, 2**32 - 1),
    )
    def compare(modules: list[RemoteModuleInfo[str]], num_blocks: int, peer: str, quality: float, seed: int) -> None:
        nonlocal asked, yes, errors
        present = sorted({one for module in modules for one in module.servers})
        peer = peer if peer in present or not present else present[seed % len(present)]
        request = {
            "modules": [
                [module.uid, {one: info.to_tuple() for one, info in module.servers.items()}] for module in modules
            ],
            "num_blocks": num_blocks,
            "peer": peer,
            "quality": quality,
            "seed": seed,
        }
        assert answering.stdin is not None
        assert answering.stdout is not None
        answering.stdin.write(json.dumps(request) + "\n")
        answering.stdin.flush()
        answer = json.loads(answering.stdout.readline())
        ours = [
            _answer_or_error(lambda: choose_best_blocks(num_blocks, modules)),
            _answer_or_error(
                lambda: should_choose_other_blocks(peer, modules, quality, rng=np.random.RandomState(seed))
            ),
        ]
        assert all(map(_agree, ours, answer["petals"])), (request, ours, answer)
        # The same code beside Petals' older numpy.
        names = [one if not isinstance(one, str) else {one} for one in answer["swarmkeel"]]
        assert all(one <= mine if isinstance(one, set) else one == mine for one, mine in zip(names, ours, strict=True))
        asked += 1
        yes += answer["petals"][1] is True
        errors += isinstance(answer["petals"][1], str)

    compare()
    figures["live parity"] = f"{asked} swarms answered alike; {yes} times to move, {errors} times an error"
    assert asked >= _SWARMS
    assert yes > _SWARMS / 100
