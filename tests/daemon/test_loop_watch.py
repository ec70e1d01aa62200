from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any

import pytest

from swarmkeel.daemon.loop_watch import LATELY_SECONDS, LoopWatch
from tests.daemon.test_metrics import full_state, metrics_of


class Clock:
    """Stands still but for what is added."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def run(watch: LoopWatch, main: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=watch.new_loop) as runner:
        runner.run(main())


def test_a_call_that_blocks_shows_in_the_metrics_of_the_loop() -> None:
    clock = Clock()
    watch = LoopWatch(clock)
    metrics = metrics_of(full_state())
    metrics.watch_loop(watch)

    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(f"swarmkeel_event_loop_{name}", labels) or 0.0

    async def main() -> None:
        await asyncio.sleep(0)
        assert (value("longest_turn_seconds"), value("turn_seconds_sum")) == (0.0, 0.0)
        clock.pass_by(0.375)  # as time.sleep or a long computation would
        await asyncio.sleep(0)

    run(watch, main)
    assert value("longest_turn_seconds") == 0.375 == value("turn_seconds_sum")
    turns = value("turn_seconds_count")
    assert (value("turn_seconds_bucket", le="0.25"), value("turn_seconds_bucket", le="0.5")) == (turns - 1, turns)


def test_a_thread_that_does_not_let_go_of_the_interpreter_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    watch = LoopWatch(clock)
    busy = [0.0]

    look = selectors.DefaultSelector.select

    def come_back_late(self: selectors.DefaultSelector, timeout: float | None = None) -> Any:
        clock.pass_by(busy[0])
        busy[0] = 0.0
        return look(self, timeout)

    monkeypatch.setattr(selectors.DefaultSelector, "select", come_back_late)

    async def main() -> None:
        busy[0] = 0.125
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(watch, main)
    assert watch.longest_lately() == 0.125


def test_time_in_which_nothing_happens_is_no_long_turn() -> None:
    watch = LoopWatch()
    turns: list[float] = []
    watch.listen(turns.append)

    async def main() -> None:
        await asyncio.sleep(0.3)

    started = time.monotonic()
    run(watch, main)
    # What the machine itself took from this process may count; the sleep does not.
    assert sum(turns) <= time.monotonic() - started - 0.29


def test_the_longest_turn_is_forgotten_when_it_is_long_ago() -> None:
    clock = Clock()
    watch = LoopWatch(clock)

    async def main() -> None:
        await asyncio.sleep(0)
        clock.pass_by(2.0)
        await asyncio.sleep(0)

    run(watch, main)
    clock.pass_by(LATELY_SECONDS - 3)
    assert watch.longest_lately() == 2.0
    clock.pass_by(3)
    assert watch.longest_lately() == 2.0
    clock.pass_by(LATELY_SECONDS)
    assert watch.longest_lately() == 0.0
