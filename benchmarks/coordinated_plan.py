"""What a decision of the policy `coordinated` takes: from a snapshot and what the sidecars tell to who moves where.

    python -m benchmarks.coordinated_plan [--rounds 5]

Each swarm is decided on from a snapshot that nothing has been worked out from yet, in turn with the same search without its
short cuts; both give the same plan. Writes build/bench/coordinated-plan.json.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final
from unittest import mock

import numpy as np
from matplotlib.figure import Figure

from benchmarks.result_file import FRESH, Picture, Result, Table, Text, machine, write_result
from benchmarks.swarms import KINDS, Swarm, announced
from swarmkeel.balance import candidates
from swarmkeel.balance.coordinated import CoordinatedPolicy
from swarmkeel.balance.decision import Decision
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.sidecar import Sidecar
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span

NOW: Final = 1_700_000_000.0
BLOCKS: Final = (32, 80, 126, 1000)
SERVERS: Final = (10, 100, 1_000, 10_000)
LARGEST: Final = 2_000_000
"""Servers times blocks: to make up a larger swarm takes longer than to decide on it."""
MANY: Final = 1_000
BUDGET_BLOCKS: Final = 126
BUDGETS: Final = {1_000: 0.1, 10_000: 1.0}
"""Seconds that a decision may take at so many servers."""
WITHOUT_SIDECAR: Final = 5
"""One server in so many has none."""


@dataclass(frozen=True)
class Timing:
    """What one swarm took, in seconds of processor time, medians."""

    swarm: Swarm
    decision: float
    without_short_cuts: float | None
    moves: int


def situation(swarm: Swarm) -> Situation:
    """Make what the sidecar of the first server would decide on; four servers in five have a sidecar."""
    announcements = announced(swarm)
    # As a reading leaves them: one object for all equal records of a server.
    infos = {
        peer: ServerInfo(ServerState(state), throughput, start_block=rest["start_block"], end_block=rest["end_block"])
        for servers in announcements
        for peer, (state, throughput, rest) in servers.items()
    }
    blocks = tuple(
        BlockReading(f"model.{index}", KeyReading.OK, {peer: infos[peer] for peer in servers})
        for index, servers in enumerate(announcements)
    )
    snapshot = SwarmSnapshot("model", 0, blocks, NOW)
    draws = np.random.RandomState(swarm.seed)
    sidecars = {}
    for number, (peer, info) in enumerate(infos.items()):
        if number % WITHOUT_SIDECAR == WITHOUT_SIDECAR - 1:
            continue
        length = _length(info)
        shorter = tuple((blocks, info.throughput * length / blocks) for blocks in range(max(1, length - 2), length))
        sidecars[peer] = Sidecar(
            peer, movable_at=NOW - 60, load_seconds=float(draws.uniform(60, 900)), shapes=shorter if number % 2 else ()
        )
    peer, info = next(iter(infos.items()))
    own = OwnServer(
        peer_id=peer,
        span=Span(info.start_block or 0, info.end_block or 0),
        num_blocks=_length(info),
        throughput=info.throughput,
    )
    return Situation(snapshot=snapshot, own=own, settings=PolicySettings(), now=NOW, seed=1, sidecars=sidecars)


def _length(info: ServerInfo) -> int:
    return (info.end_block or 0) - (info.start_block or 0)


def decide_anew(given: Situation) -> tuple[float, Decision]:
    """Decide on a copy of the snapshot; give the seconds of processor time, and the decision."""
    snapshot = given.snapshot
    fresh = SwarmSnapshot(snapshot.dht_prefix, snapshot.first_block, snapshot.blocks, snapshot.read_at)
    copied = given.model_copy(update={"snapshot": fresh})
    begun = time.process_time()
    decision = CoordinatedPolicy().decide(copied)
    return time.process_time() - begun, decision


def measure(swarm: Swarm, rounds: int) -> Timing:
    """Time both searches in turn.

    Raises:
        AssertionError: If they do not come to the same decision.
    """
    given = situation(swarm)
    runs: list[tuple[float, float]] = []
    with_plain = swarm.servers <= MANY
    for _ in range(rounds):
        seconds, decision = decide_anew(given)
        plain = math.nan
        if with_plain:
            with mock.patch.object(candidates, "_WORTH_BOUNDING", math.inf):
                plain, same = decide_anew(given)
            assert decision == same, swarm  # noqa: S101 -- what is measured must be right
        runs.append((seconds, plain))
    moves = next((int(reason.values["moves"]) for reason in decision.reasons if "moves" in reason.values), 0)
    plainly = median(plain for _, plain in runs) if with_plain else None
    return Timing(swarm, median(seconds for seconds, _ in runs), plainly, moves)


def growth(timings: Sequence[Timing], size: Callable[[Swarm], int]) -> float:
    """Give by which power of a size the time grows: the slope of a line through the logarithms, by least squares."""
    sizes = np.log([size(timing.swarm) for timing in timings])
    slope, _ = np.polyfit(sizes, np.log([timing.decision for timing in timings]), 1)
    return float(slope)


def draw(timings: Sequence[Timing], path: Path) -> None:
    """Draw how the time grows with the servers, beside what n log n would be."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for blocks in BLOCKS:
        line = sorted(
            (timing.swarm.servers, timing.decision * 1000) for timing in timings if timing.swarm.blocks == blocks
        )
        line = [
            (servers, median(ms for other, ms in line if other == servers)) for servers in sorted({n for n, _ in line})
        ]
        axes.plot(*zip(*line, strict=True), marker="o", label=f"{blocks} blocks")
    servers = np.geomspace(100, max(SERVERS), 20)
    middle = median(timing.decision * 1000 for timing in timings if timing.swarm.servers == max(SERVERS))
    n_log_n = servers * np.log(servers)
    axes.plot(servers, middle * n_log_n / n_log_n[-1], linestyle=":", color="gray", label="n log n")
    axes.set(xscale="log", yscale="log", xlabel="servers", ylabel="ms of processor time")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def result(timings: Sequence[Timing]) -> Result:
    """Put the timings into a section of docs/performance.md."""
    rows = [
        [
            f"{timing.swarm.blocks} / {timing.swarm.servers:,}",
            timing.swarm.kind,
            f"{timing.decision * 1000:.1f}",
            "-" if timing.without_short_cuts is None else f"{timing.without_short_cuts / timing.decision:.1f}",
            str(timing.moves),
        ]
        for timing in timings
    ]
    large = [timing for timing in timings if timing.swarm.servers >= MANY and timing.swarm.blocks == BUDGET_BLOCKS]
    by_servers = growth(large, lambda swarm: swarm.servers)
    by_blocks = growth([timing for timing in timings if timing.swarm.servers == MANY], lambda swarm: swarm.blocks)
    worst = {
        servers: max(timing.decision for timing in large if timing.swarm.servers == servers) for servers in BUDGETS
    }
    budgets = "; ".join(
        f"{servers:,} servers: {worst[servers] * 1000:.0f} ms at worst, budget {limit * 1000:.0f} ms"
        for servers, limit in BUDGETS.items()
    )
    return Result(
        "coordinated-plan",
        "The coordinated decision",
        20,
        "make bench",
        machine(),
        [
            Text(
                "From a snapshot of which nothing has been worked out yet, and from what the sidecars of four servers in five "
                "tell, to the decision: quality of the snapshot, spans, throughputs, bounds, the plan of the whole swarm. "
                "Processor time of one thread, median of the rounds. The column *short cuts* says how many times longer the "
                "same search takes when every possible move is rated (`balance/candidates.py`); both give the same "
                "decision, which the benchmark checks."
            ),
            Table(("blocks / servers", "swarm", "ms", "short cuts", "moves"), rows),
            Picture(
                "coordinated-plan-growth.svg",
                "Time of a decision over the number of servers, for each number of blocks.",
            ),
            Text(
                f"At {BUDGET_BLOCKS} blocks: {budgets}. From {MANY:,} servers on the time grows with the servers to the "
                f"power of {by_servers:.2f}; with the blocks, at {MANY:,} servers, to that of {by_blocks:.2f}."
            ),
        ],
        {
            "by_servers": by_servers,
            "by_blocks": by_blocks,
            "seconds": [
                [t.swarm.blocks, t.swarm.servers, t.swarm.kind, t.decision, t.without_short_cuts] for t in timings
            ],
        },
    )


def main() -> None:
    """Measure, print and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    timings = []
    for blocks in BLOCKS:
        for servers in SERVERS:
            if servers * blocks > LARGEST:
                continue
            for kind in KINDS:
                timings.append(measure(Swarm(kind, servers, blocks), options.rounds))
                print(_line(timings[-1]), flush=True)
    draw(timings, FRESH / "coordinated-plan-growth.svg")
    print(write_result(result(timings)))


def _line(timing: Timing) -> str:
    plain = (
        "" if timing.without_short_cuts is None else f"{timing.without_short_cuts * 1000:10.1f} ms without short cuts"
    )
    swarm = timing.swarm
    return f"{swarm.blocks:5} blocks {swarm.servers:6} servers {swarm.kind:9} {timing.decision * 1000:9.1f} ms {plain}"


if __name__ == "__main__":
    main()
