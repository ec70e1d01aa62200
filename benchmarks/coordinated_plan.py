"""What a decision of the policy `coordinated` takes: from a snapshot and what the sidecars tell to who moves where.

    python -m benchmarks.coordinated_plan [--rounds 5]

Each swarm is decided on from a snapshot that nothing has been worked out from yet, in turn with the same search without its
short cuts; both give the same plan. Writes build/bench/coordinated-plan.json.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final
from unittest import mock

import numpy as np

from benchmarks.result_file import FRESH, Picture, Result, Table, Text, machine, write_result
from benchmarks.swarms import KINDS, Kind, Swarm, announced
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
LARGEST: Final = 10_000_000
"""Servers times blocks; a larger swarm could not be announced either, see `announced`."""


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
        if number % 5 == 4:
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
    with_plain = swarm.servers * swarm.blocks <= LARGEST / 10
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


def growth(timings: list[Timing], size: Callable[[Timing], int]) -> float:
    """Give by which power of a size the time grows, between the two largest."""
    first, last = sorted(timings, key=size)[-2:]
    return math.log(last.decision / first.decision) / math.log(size(last) / size(first))


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
                timings.append(measure(Swarm(kind, servers, blocks), options.rounds if servers < 10_000 else 3))
                print(_line(timings[-1]), flush=True)


def _line(timing: Timing) -> str:
    plain = (
        "" if timing.without_short_cuts is None else f"{timing.without_short_cuts * 1000:10.1f} ms without short cuts"
    )
    swarm = timing.swarm
    return f"{swarm.blocks:5} blocks {swarm.servers:6} servers {swarm.kind:9} {timing.decision * 1000:9.1f} ms {plain}"


if __name__ == "__main__":
    main()
