"""How near plans come to the best that there is, in swarms where time stands still: against an integer program (HiGHS).

    python benchmarks/frozen.py [--seeds 8] [--sizes 32/10,80/10,80/30] [--seconds 30]

A swarm of the scenario steady-churn is placed server by server as Petals does, and a fifth of it is lost. Then plans are
followed until there is none left. Beside the plans as they are: longer ones, and ones whose moves may leave blocks without a
server for a while, as a swap of two servers does. The teacher is the integer program, with as many moves as the plans made,
and with as many as it likes. Shares are of what it reaches with any number of moves, or of its bound where time runs out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from swarmkeel.balance.plan import make_plan
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.balance.search import SearchRules, find_states, initial_state
from swarmkeel.balance.selection import find_best_start
from swarmkeel.simulation.population import draw_population
from swarmkeel.simulation.scenario import Size, load_scenario, parse_size
from swarmkeel.swarm.span import Span

Servers = tuple[PlanServer, ...]
MOVE_COST = 0.04
ROUNDS = 30


def draw_swarm(size: Size, seed: int) -> Servers:
    """Give a swarm after a loss."""
    fates = draw_population(load_scenario("steady-churn"), size, seed).fates[: size.servers]
    coverage, servers = np.zeros(size.blocks), []
    for fate in fates:
        start = find_best_start(coverage, fate.num_blocks)
        span = Span(start, start + fate.num_blocks)
        coverage[span.start : span.end] += fate.throughput
        servers.append(PlanServer(fate.peer_id, span, fate.throughput, True, True, True, load_seconds=300.0))  # noqa: FBT003
    rng = np.random.default_rng(seed)
    lost = set(rng.choice(len(servers), round(0.2 * len(servers)), replace=False).tolist())
    kept = (server for index, server in enumerate(servers) if index not in lost)
    return tuple(sorted(kept, key=lambda server: server.peer_id))


def bottleneck(servers: Servers, total_blocks: int) -> float:
    """Give the least coverage."""
    return initial_state(servers, total_blocks, 1.0).bottleneck


def by_plans(servers: Servers, total_blocks: int) -> dict[str, Span]:
    """Plan as the policy does."""
    plan = make_plan(servers, total_blocks=total_blocks, move_cost=MOVE_COST)
    return {move.peer_id: move.target for move in plan.moves}


def by_search(depth: int, beam: int, *, may_uncover: bool) -> Callable[[Servers, int], dict[str, Span]]:
    """Plan by a search with other rules, taken on the true bottleneck after costs."""

    def plan(servers: Servers, total_blocks: int) -> dict[str, Span]:
        unit = sum(server.throughput * len(server.final) for server in servers) / total_blocks
        start = initial_state(servers, total_blocks, unit)
        cost = MOVE_COST * max(start.bottleneck, 0.1)
        rules = SearchRules(depth=depth, beam=beam, sharpnesses=(8, 32), move_cost=cost, may_uncover=may_uncover)
        states = find_states(servers, range(len(servers)), start, unit=unit, rules=rules)
        best = min(states, key=lambda state: (state.cost - state.bottleneck, len(state.steps)), default=None)
        if best is None or best.bottleneck - best.cost <= start.bottleneck + 1e-9:
            return {}
        return {servers[step.mover].peer_id: step.target for step in best.steps}

    return plan


def follow(servers: Servers, total_blocks: int, plan: Callable[[Servers, int], dict[str, Span]]) -> tuple[Servers, int]:
    """Follow plans until there is none left; gives the swarm and the number of moves."""
    moves = 0
    for _ in range(ROUNDS):
        targets = plan(servers, total_blocks)
        if not targets:
            break
        moves += len(targets)
        servers = tuple(replace(server, final=targets.get(server.peer_id, server.final)) for server in servers)
    return servers, moves


def teach(servers: Servers, total_blocks: int, seconds: float, moves: int | None = None) -> tuple[float, float, int]:
    """Give the best bottleneck that a number of moves reaches, the bound on it, and how many moves were made."""
    places = [
        (index, start) for index, server in enumerate(servers) for start in range(total_blocks - len(server.final) + 1)
    ]
    fastest = max(server.throughput for server in servers)
    matrix = np.zeros((total_blocks + len(servers) + 1, len(places) + 1))
    for column, (index, start) in enumerate(places):
        length = len(servers[index].final)
        matrix[start : start + length, column] = servers[index].throughput / fastest
        matrix[total_blocks + index, column] = 1.0
        matrix[-1, column] = start == servers[index].final.start
    matrix[:total_blocks, -1] = -1.0
    stay = 0 if moves is None else len(servers) - moves
    result = milp(
        np.concatenate([np.zeros(len(places)), [-1.0]]),
        constraints=LinearConstraint(
            matrix,
            np.concatenate([np.zeros(total_blocks), np.ones(len(servers)), [stay]]),
            np.concatenate([np.full(total_blocks, np.inf), np.ones(len(servers)), [len(servers)]]),
        ),
        integrality=np.concatenate([np.ones(len(places)), [0.0]]),
        bounds=Bounds(0.0, np.inf),
        options={"time_limit": seconds},
    )
    bound = -float(result.mip_dual_bound) * fastest
    if result.x is None:
        return bottleneck(servers, total_blocks), bound, 0
    return -float(result.fun) * fastest, bound, len(servers) - round(float(matrix[-1, :-1] @ result.x[:-1]))


def main() -> None:
    """Print one table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--sizes", default="32/10,80/10,80/30")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    ways = {
        "as it is": by_plans,
        "up to 6 moves, beam 8": by_search(6, 8, may_uncover=False),
        "up to 3 moves, blocks uncovered for a while": by_search(3, 4, may_uncover=True),
    }
    for size in map(parse_size, options.sizes.split(",")):
        rows: dict[str, list[tuple[float, float]]] = {}
        for seed in range(options.seeds):
            servers = draw_swarm(size, seed)
            if sum(len(server.final) for server in servers) < size.blocks:
                continue
            best, bound, best_moves = teach(servers, size.blocks, options.seconds)
            whole = max(best, bound)
            rows.setdefault("no move", []).append((bottleneck(servers, size.blocks) / whole, 0))
            made = 0
            for name, plan in ways.items():
                after, moves = follow(servers, size.blocks, plan)
                made = made or moves
                rows.setdefault(name, []).append((bottleneck(after, size.blocks) / whole, moves))
            taught, _, taught_moves = teach(servers, size.blocks, options.seconds, made)
            rows.setdefault("integer program, as many moves", []).append((taught / whole, taught_moves))
            rows.setdefault("integer program, any number", []).append((best / whole, best_moves))
        print_table(size, rows)


def print_table(size: Size, rows: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Print medians over the seeds."""
    seeds = max((len(row) for row in rows.values()), default=0)
    print(f"\n{size}, {seeds} swarms\n\n| plans | of the best bound | worst | moves |\n|---|---|---|---|")
    for name, row in rows.items():
        shares, moves = [share for share, _ in row], [count for _, count in row]
        print(f"| {name} | {median(shares):.1%} | {min(shares):.1%} | {median(moves):g} |", flush=True)


if __name__ == "__main__":
    main()
