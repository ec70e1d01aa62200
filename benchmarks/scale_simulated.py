"""A whole swarm of up to ten thousand sidecars in simulated time: what they all decide together, and how soon a hole is closed.

    python -m benchmarks.scale_simulated [--servers 100 1000 10000]

Every server has a sidecar that runs the production code of decisions, claims, guards and moves (`swarmkeel.simulation`); the
swarm begins with a hole of three blocks, as after a failure of all who served them. Sidecars that see the same share one
decision, as the simulator has it: how often that happens is part of the result. Writes build/bench/scale-simulated.json.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from unittest import mock

from benchmarks.result_file import Result, Table, Text, machine, write_result
from swarmkeel.balance.plan import Plan, make_plan
from swarmkeel.simulation import eyes
from swarmkeel.simulation.bounds import bound_steps
from swarmkeel.simulation.policies import parse_policy
from swarmkeel.simulation.population import draw_population
from swarmkeel.simulation.scenario import Scenario, Size
from swarmkeel.simulation.sidecar import SimulatedSidecar
from swarmkeel.simulation.world import World

BLOCKS: Final = 126
HOLE: Final = range(60, 63)
MINUTES: Final = {100: 15.0, 1_000: 15.0, 10_000: 5.0}
"""Simulated time for each number of servers; in the largest swarm a minute takes many."""
SEED: Final = 1


@dataclass(frozen=True)
class Outcome:
    """What one swarm came to.

    Attributes:
        servers: Servers, each with a sidecar.
        minutes: Simulated time.
        checks: Checks that all sidecars made in the simulated time.
        plans: Plans that were made for them: one for all checks that saw the same.
        plan_seconds: Processor time of a plan, in the mean.
        seconds: Processor time of the whole.
        hole_seconds: Simulated time until every block was served; None if some never was.
        claims: Claims published.
        claims_lost: Claims withdrawn, since others went first.
        moves: Moves begun.
        bottleneck: The served bottleneck at the end over what is possible at best.
        memory_mb: Resident memory of the simulator at its largest.
    """

    servers: int
    minutes: float
    checks: int
    plans: int
    plan_seconds: float
    seconds: float
    hole_seconds: float | None
    claims: int
    claims_lost: int
    moves: int
    bottleneck: float
    memory_mb: float


def write_swarm(servers: int, path: Path) -> None:
    """Write a snapshot of a swarm in which nobody serves the hole; each server stands where least was served of a few places."""
    draws = random.Random(SEED)  # noqa: S311 -- a swarm, not a secret
    coverage = [0.0] * BLOCKS
    blocks: list[dict[str, object]] = [{} for _ in range(BLOCKS)]
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    for _ in range(servers):
        peer_id = "Qm" + "".join(draws.choices(alphabet, k=44))
        length, throughput = draws.choice((6, 10, 14, 20, 32)), draws.uniform(50, 400)
        places = draws.choices(range(BLOCKS - length + 1), k=40)
        free = [start for start in places if start >= HOLE.stop or start + length <= HOLE.start]
        start = min(free, key=lambda start: max(coverage[start : start + length]))
        for block in range(start, start + length):
            coverage[block] += throughput
            blocks[block][peer_id] = [2, throughput, {"start_block": start, "end_block": start + length}]
    document = {
        "format": 1,
        "dht_prefix": "made-up",
        "first_block": 0,
        "total_blocks": BLOCKS,
        "read_at": 1_764_000_000.0,
        "blocks": [{"uid": f"made-up.{index}", "read": "ok", "servers": found} for index, found in enumerate(blocks)],
    }
    path.write_text(json.dumps(document))


def run(servers: int, minutes: float, folder: Path) -> Outcome:
    """Let a swarm live for some minutes."""
    path = folder / f"{servers}.json"
    write_swarm(servers, path)
    scenario = Scenario.model_validate(
        {
            "name": f"{servers} sidecars",
            "duration": minutes * 60,
            "warm_up": 0,
            "churn": {"enabled": False},
            # Readings are late, as ever, but whole: what is missed is another matter, see docs/policy.md.
            "dht": {"store_delay": 0, "lost_write_share": 0, "lost_key_share": 0, "bad_read_share": 0},
            "sidecars": {
                "crashes_per_day": 0,
                "crash_at_step_share": 0,
                "lost_claim_share": 0,
                "late_claim_share": 0,
                "minimum_uptime": 0,
                "staging": False,
            },
            "recorded": {"snapshot": str(path)},
        }
    )
    population = draw_population(scenario, Size(BLOCKS, servers), SEED)
    world = World(scenario, population, parse_policy("coordinated"), SEED)
    checks, plans = 0, []
    decide = SimulatedSidecar._decide  # noqa: SLF001 -- counted from outside

    def counted(sidecar: SimulatedSidecar) -> float | None:
        nonlocal checks
        checks += 1
        return decide(sidecar)

    def timed(*arguments: object, **named: object) -> Plan:
        begun = time.process_time()
        plan = make_plan(*arguments, **named)
        plans.append(time.process_time() - begun)
        return plan

    eyes._plan_once.cache_clear()  # noqa: SLF001 -- of the run before
    world.queue.run_until(0.0)  # everybody takes its place
    begun = time.process_time()
    with mock.patch.object(SimulatedSidecar, "_decide", counted), mock.patch.object(eyes, "make_plan", timed):
        world.run()
    seconds = time.process_time() - begun
    trace = world.truth.trace
    (bound,) = {step.bound_rps for step in bound_steps(population, scenario.ends_at) if step.bound_rps > 0}
    closed = [time for time, uncovered in zip(trace.times, trace.uncovered, strict=True) if uncovered == 0]
    return Outcome(
        servers=servers,
        minutes=minutes,
        checks=checks,
        plans=len(plans),
        plan_seconds=sum(plans) / max(len(plans), 1),
        seconds=seconds,
        hole_seconds=min(closed, default=None),
        claims=world.claims.made,
        claims_lost=world.claims.lost,
        moves=len(world.truth.moves),
        bottleneck=trace.bottlenecks[-1] / bound,
        memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


TABLE: Final[dict[str, Callable[[Outcome], str]]] = {
    "sidecars": lambda outcome: f"{outcome.servers:,}",
    "simulated minutes": lambda outcome: f"{outcome.minutes:g}",
    "checks": lambda outcome: f"{outcome.checks:,}",
    "checks a second, all together": lambda outcome: f"{outcome.checks / outcome.minutes / 60:.1f}",
    "different views decided on": lambda outcome: f"{outcome.plans:,}",
    "a plan (ms)": lambda outcome: f"{outcome.plan_seconds * 1000:.1f}",
    "hole closed after (s)": lambda outcome: "never" if outcome.hole_seconds is None else f"{outcome.hole_seconds:.0f}",
    "claims": lambda outcome: f"{outcome.claims}",
    "of these withdrawn": lambda outcome: f"{outcome.claims_lost}",
    "moves": lambda outcome: f"{outcome.moves}",
    "bottleneck at the end, of the bound": lambda outcome: f"{outcome.bottleneck:.0%}",
}


def main() -> None:
    """Run all sizes, print what they came to and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, nargs="+", default=tuple(MINUTES), choices=MINUTES)
    options = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for servers in options.servers:
            outcomes.append(run(servers, MINUTES[servers], Path(folder)))
            print("; ".join(f"{name} {cell(outcomes[-1])}" for name, cell in TABLE.items()))
            print(f"  {outcomes[-1].seconds:.0f} s of processor time, {outcomes[-1].memory_mb:.0f} MB", flush=True)
    write_result(result(outcomes))


def result(outcomes: Sequence[Outcome]) -> Result:
    """Put the outcomes into a section of docs/performance.md."""
    rows = [[cell(outcome) for cell in TABLE.values()] for outcome in outcomes]
    return Result(
        "scale-simulated",
        "Ten thousand sidecars, in simulated time",
        55,
        "make bench-scale",
        machine(),
        [
            Text(
                f"Swarms on {BLOCKS} blocks that begin with a hole of {len(HOLE)} blocks, in simulated time. Every server has a sidecar, and each of them runs the production code of decisions, claims, guards and "
                "moves; the DHT, its delays (nobody sees anything less than 3 s old) and loading (1 to 20 minutes) are "
                "simulated. Readings miss nothing here."
            ),
            Table(list(TABLE), rows),
            Text(
                "Checks grow with the swarm, as every sidecar makes its own: each is one reading and one plan on the machine "
                "of that sidecar; the simulator makes each different one once. Claims and moves grow far less: all who see the "
                "same make the same plan, only those act whom it names, and a plan has no more than ten moves. So a hole is "
                "closed sooner the larger the swarm is, by the quickest of more servers, but what a few blocks lack takes the "
                "longer to be made up the more servers it takes: after its five minutes the largest swarm serves every block "
                "and has little more than begun."
            ),
        ],
        {"outcomes": [asdict(outcome) for outcome in outcomes]},
    )


if __name__ == "__main__":
    main()
