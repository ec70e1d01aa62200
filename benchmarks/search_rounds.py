"""How many rounds the search for a steady placement takes; what `MAX_ROUNDS` of `balance/imbalance.py` rests on.

    python benchmarks/search_rounds.py [--seconds 60] [--seed 1]

Draws random swarms, honest and hostile, and lets their servers move in turn, as an imbalance check does, with a bound
far above the one in force.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from unittest import mock

import numpy as np

from swarmkeel.balance import imbalance
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo

FAR_BOUND = 5000
Spans = dict[str, RemoteSpanInfo[str]]


def draw_swarm(draws: random.Random, draw_throughput: Callable[[random.Random], float]) -> tuple[Spans, int]:
    """Draw 2 to 1,000 servers with spans of equal, short or any length, two thirds of them spread, the others piled."""
    total_blocks = draws.choice((3, 8, 32, 80, 126))
    longest = draws.choice((total_blocks, max(1, total_blocks // 4)))
    same_length = draws.randint(1, total_blocks) if draws.random() < 1 / 3 else None
    piled = draws.random() < 1 / 3
    spans: Spans = {}
    for number in range(int(2 ** draws.uniform(1, 10))):
        length = same_length or draws.randint(1, longest)
        start = 0 if piled else draws.randint(0, total_blocks - length)
        info = ServerInfo(ServerState.ONLINE, draw_throughput(draws))
        spans[f"Qm{number}"] = RemoteSpanInfo(f"Qm{number}", start, start + length, info)
    return spans, total_blocks


KINDS: dict[str, Callable[[random.Random], float]] = {
    "all 10 RPS": lambda _: 10.0,
    "a few models of GPU": lambda draws: draws.choice((5.0, 11.0, 40.0, 40.1)),
    "1 to 100 RPS": lambda draws: draws.uniform(1, 100),
    "0.001 to 1,000,000 RPS": lambda draws: 10 ** draws.uniform(-3, 6),
    "hostile, 1e-16 to 1e16 RPS": lambda draws: 10 ** draws.uniform(-16, 16),
}


def main() -> None:
    """Draw swarms for some time and print what they needed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draws = random.Random(options.seed)  # noqa: S311 -- swarms, not secrets

    rounds: dict[str, list[int]] = {kind: [] for kind in KINDS}
    ends_at = time.monotonic() + options.seconds
    with mock.patch.object(imbalance, "MAX_ROUNDS", FAR_BOUND):
        while time.monotonic() < ends_at:
            for kind, draw_throughput in KINDS.items():
                spans, total_blocks = draw_swarm(draws, draw_throughput)
                rng = np.random.RandomState(draws.getrandbits(32))
                for peer in spans:
                    check = imbalance.check_imbalance(peer, spans, 1.0, total_blocks=total_blocks, rng=rng)
                    if check.rounds:
                        rounds[kind].append(check.rounds)
                        break

    print(f"{'throughputs':30}{'searches':>9}{'median':>8}{'99 %':>8}{'most':>8}{'given up':>10}")
    for kind, needed in rounds.items():
        ended = [number for number in needed if number < FAR_BOUND]
        median, most_of_all = np.percentile(ended, (50, 99))
        print(f"{kind:30}{len(needed):9}{median:8.0f}{most_of_all:8.0f}{max(ended):8}{len(needed) - len(ended):10}")


if __name__ == "__main__":
    main()
