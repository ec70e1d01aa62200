"""A pytest plugin that runs the collected tests on one mutant after the other: the inner loop of `make mutation`.

mutmut makes the mutants; all of a module lie in one file, and an environment variable says which one is called. mutmut's own
loop starts pytest anew for each of them, which costs a hundred times what the tests cost. Here they are collected once, and
each mutant gets a forked process, so that nothing that it leaves behind is seen by the next. Of the tests those are run that
call its function: others cannot notice it. The test that noticed a mutant is the first to be run on the next one, which is
mostly of the same function. A process that computes on and on is ended by the limit on its processor time: a machine with other
work to do makes no mutant hang.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import resource
import signal
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

import pytest
from _pytest.runner import runtestprotocol
from mutmut.state import state

MUTANTS: Final = "SWARMKEEL_MUTANTS"
"""Names a JSON file with the mutants' names."""
ENDS: Final = "SWARMKEEL_MUTANT_ENDS"
"""Names the file that the outcome of each is written to."""
_CALLED: Final = "MUTANT_UNDER_TEST"  # mutmut's
_NO_MUTANT: Final = "stats"  # mutmut's: the code as it is, and a note of each function that is called
_PATIENCE: Final = 10.0
"""How many times as long as on the code as it is the tests may compute on a mutant, beside `_AT_LEAST` seconds."""
_AT_LEAST: Final = 2.0
_MEMORY: Final = 8 << 30
_SLEEPLESS: Final = 1800
_QUICK: Final = 0.05
"""Seconds of processor time; a test that takes longer keeps its place, whatever it noticed."""


class End(StrEnum):
    """What came of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    TIMED_OUT = "timed_out"


def failure(item: pytest.Item) -> str | None:
    """Run one test with its fixtures; gives what failed, or None."""
    reports = runtestprotocol(item, log=False, nextitem=None)
    return next((report.longreprtext for report in reports if report.failed), None)


def end_of(mutant: str, items: Sequence[pytest.Item], seconds: float) -> tuple[End, pytest.Item]:
    """Run tests on a mutant until one fails, in a process of its own; gives its end, and the last test that was run."""
    run = mmap.mmap(-1, 4)  # the child's memory too
    child = os.fork()
    if not child:
        os.environ[_CALLED] = mutant
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 5))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        signal.alarm(_SLEEPLESS)
        try:
            for number, item in enumerate(items):
                run[:] = number.to_bytes(4)
                if failure(item) is not None:
                    os._exit(1)
            os._exit(0)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    last = items[int.from_bytes(run[:])]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM):
        return End.TIMED_OUT, last
    return End.SURVIVED if os.waitstatus_to_exitcode(status) == 0 else End.KILLED, last


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Run all tests on the code as it is, and then on each mutant, the quickest test first."""
    if session.testsfailed:
        pytest.exit("not all tests could be collected", returncode=1)
    took: dict[pytest.Item, float] = {}
    called: dict[pytest.Item, set[str]] = {}
    os.environ[_CALLED] = _NO_MUTANT
    for item in session.items:
        begun = time.process_time()
        state()._stats.clear()  # noqa: SLF001 - mutmut has no other name for it
        if (said := failure(item)) is not None:
            pytest.exit(f"{item.nodeid} fails on the code as it is:\n{said}", returncode=1)
        took[item] = time.process_time() - begun
        called[item] = set(state()._stats)  # noqa: SLF001
    in_turn = sorted(session.items, key=took.__getitem__)
    names: list[str] = json.loads(Path(os.environ[MUTANTS]).read_text())
    ends: dict[str, End] = {}
    for name in names:
        function, _, _ = name.rpartition("__mutmut_")
        # One that no test calls may be called as tests are collected, or in a process of their own.
        noticing = [item for item in in_turn if function in called[item]] or in_turn
        ends[name], last = end_of(name, noticing, _AT_LEAST + _PATIENCE * sum(took[item] for item in noticing))
        if ends[name] is End.KILLED and took[last] < _QUICK:
            in_turn.remove(last)
            in_turn.insert(0, last)
    Path(os.environ[ENDS]).write_text(json.dumps(ends))
    return True
