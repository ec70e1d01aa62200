"""Who lives in a simulated swarm, and what befalls them: drawn before a run, the same for every policy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final, NamedTuple

from swarmkeel.balance.shapes import throughput_of
from swarmkeel.simulation.scenario import Burst, LoadPart, MemoryClass, Range, Scenario, Size
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.recorded import read_snapshot_file
from swarmkeel.swarm.span import Span

_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def stream(seed: int, *names: str | int) -> Random:
    """Give a source of randomness of its own, the same on every machine and under every hash seed.

    Args:
        seed: Of the run.
        names: What it is for.
    """
    return Random("/".join(map(str, (seed, *names))))  # noqa: S311 - a simulation must be repeatable


@dataclass(frozen=True, slots=True)
class Fate:
    """One server's properties and life; times are seconds from the beginning of the run.

    Attributes:
        index: Number in the order of drawing.
        peer_id: Its peer id.
        num_blocks: Blocks that it holds.
        throughput: Requests a second that it truly serves with all its blocks.
        lie: How many times what it serves it announces; 1 for an honest server.
        rates: Requests a second that it computes through one block, and that its network carries; None where unknown.
        min_blocks: The fewest blocks that it can be told to hold.
        arrives_at: When it comes.
        leaves_at: When it goes.
        crashes: Whether it goes without a goodbye.
        cold_seconds: How long it takes to download and load all its blocks.
        disk_blocks: Blocks that its disk keeps.
        clock_offset: Its host's clock minus true time, seconds.
        adoption_draw: It has a sidecar if this (0 to 1) is below the share of adoption.
        fixed_draw: Without a sidecar, its blocks are fixed if this is below the share of fixed servers.
        forged_draw: Its sidecar's records are overwritten if this is below the share of forged ones.
        first_span: Where a recorded server is at the beginning; None for one that chooses.
    """

    index: int
    peer_id: str
    num_blocks: int
    throughput: float
    lie: float
    rates: tuple[float, float] | None
    min_blocks: int
    arrives_at: float
    leaves_at: float
    crashes: bool
    cold_seconds: float
    disk_blocks: int
    clock_offset: float
    adoption_draw: float
    fixed_draw: float
    forged_draw: float
    first_span: Span | None = None

    def throughput_of(self, blocks: int) -> float:
        """Give the requests a second that it truly serves with a number of blocks."""
        if self.rates is None or blocks == self.num_blocks:
            return self.throughput
        return throughput_of(blocks, compute_rps=self.rates[0], network_rps=self.rates[1])

    def announced_of(self, blocks: int) -> float:
        """Give the requests a second that it announces with a number of blocks."""
        return self.throughput_of(blocks) * self.lie

    def load_seconds(self, missing: int, loads: LoadPart, blocks: int | None = None) -> float:
        """Give how long it takes to load blocks when some of them have to be downloaded first.

        Args:
            missing: How many are not on disk.
            loads: The world's parameters.
            blocks: How many it loads; all that it holds where left out.
        """
        count = self.num_blocks if blocks is None else blocks
        per_block = self.cold_seconds / self.num_blocks
        return loads.start + per_block * (missing * (1 - loads.disk_share) + count * loads.disk_share)

    def download_seconds(self, missing: int, loads: LoadPart) -> float:
        """Give how long it takes to download this many blocks."""
        return self.cold_seconds / self.num_blocks * missing * (1 - loads.disk_share)


@dataclass(frozen=True, slots=True)
class Population:
    """All servers of a run.

    Attributes:
        total_blocks: Blocks of the model.
        fates: The servers in the order of their arrival.
    """

    total_blocks: int
    fates: tuple[Fate, ...]


class _Server(NamedTuple):
    blocks: int
    throughput: float
    rates: tuple[float, float] | None = None


class _Arrival(NamedTuple):
    at: float
    mean_life: float


def draw_population(scenario: Scenario, size: Size, seed: int) -> Population:
    """Draw who comes, and when and how everybody goes.

    Args:
        scenario: The world.
        size: Blocks and mean number of servers; a recorded swarm has its own.
        seed: Of the run.
    """
    if scenario.recorded is not None:
        total_blocks, fates = _recorded(scenario, seed)
    else:
        total_blocks = size.blocks
        classes = _scaled_classes(scenario, size)
        arrivals = _arrivals(scenario, size.servers, seed)
        fates = [
            _live(
                scenario,
                seed,
                index,
                _draw_server(scenario, classes, total_blocks, stream(seed, "server", index)),
                arrival,
            )
            for index, arrival in enumerate(arrivals)
        ]
    fates = _strike(scenario, fates, seed)
    return Population(total_blocks, tuple(sorted(fates, key=lambda fate: (fate.arrives_at, fate.index))))


def _arrivals(scenario: Scenario, servers: int, seed: int) -> Iterator[_Arrival]:
    """Draw when servers come, and how long they live in the mean."""
    churn, population = scenario.churn, scenario.population
    draw = stream(seed, "arrivals")
    life = churn.mean_life if churn.enabled else math.inf
    if not population.growth:
        for _ in range(servers):
            yield _Arrival(draw.uniform(0.0, population.arrive_over), life)
    if churn.enabled or population.growth:
        time = draw.expovariate(servers / churn.mean_life)
        while time < scenario.ends_at:
            yield _Arrival(time, life)
            time += draw.expovariate(servers / churn.mean_life)
    for number, burst in enumerate(scenario.bursts):
        yield from _burst(scenario, burst, servers, stream(seed, "burst", number))


def _burst(scenario: Scenario, burst: Burst, servers: int, draw: Random) -> Iterator[_Arrival]:
    for _ in range(round(burst.share * servers)):
        yield _Arrival(scenario.warm_up + burst.at + draw.uniform(0.0, burst.over), burst.mean_life)


def _scaled_classes(scenario: Scenario, size: Size) -> tuple[MemoryClass, ...]:
    """Give the memory classes, their blocks scaled to the wanted coverage where there is one."""
    population = scenario.population
    classes = population.classes
    if population.coverage is None:
        return classes
    mean = sum(each.blocks * each.weight for each in classes) / sum(each.weight for each in classes)
    factor = population.coverage * size.blocks / (size.servers * mean)
    return tuple(each.model_copy(update={"blocks": max(1, round(each.blocks * factor))}) for each in classes)


def _log_uniform(draw: Random, limits: Range) -> float:
    return math.exp(draw.uniform(math.log(limits.low), math.log(limits.high)))


def _draw_server(scenario: Scenario, classes: Sequence[MemoryClass], total_blocks: int, draw: Random) -> _Server:
    population = scenario.population
    (memory,) = draw.choices(classes, [each.weight for each in classes])
    num_blocks = min(memory.blocks, total_blocks)
    compute = memory.compute_rps * math.exp(draw.gauss(0.0, population.compute_spread))
    network = _log_uniform(draw, population.network_rps)
    if draw.random() < population.relay_share:
        network *= 1 - population.relay_penalty
    throughput = throughput_of(num_blocks, compute_rps=compute, network_rps=network)
    return _Server(num_blocks, throughput, (compute, network))


def _live(scenario: Scenario, seed: int, index: int, server: _Server, arrival: _Arrival) -> Fate:
    """Draw one server's life, and all of its properties but what it serves."""
    draw = stream(seed, "fate", index)
    hostile, loads = scenario.hostile, scenario.loads
    life = draw.expovariate(1.0) * arrival.mean_life
    lies = draw.random() < hostile.liar_share
    return Fate(
        index=index,
        peer_id="Qm" + "".join(draw.choices(_BASE58, k=10)) + _as_base58(index),
        num_blocks=server.blocks,
        throughput=server.throughput,
        lie=hostile.liar_factor if lies else 1.0,
        rates=server.rates,
        min_blocks=max(1, math.ceil(server.blocks * scenario.population.min_blocks_share)),
        arrives_at=arrival.at,
        leaves_at=arrival.at + life,
        crashes=draw.random() < scenario.churn.crash_share,
        cold_seconds=_log_uniform(draw, loads.cold_seconds),
        disk_blocks=max(server.blocks, math.floor(server.blocks * loads.disk_factor)),
        clock_offset=draw.gauss(0.0, scenario.sidecars.clock_skew),
        adoption_draw=draw.random(),
        fixed_draw=draw.random(),
        forged_draw=draw.random(),
    )


def _as_base58(index: int) -> str:
    digits = ""
    for _ in range(4):
        index, digit = divmod(index, len(_BASE58))
        digits = _BASE58[digit] + digits
    return digits


def _recorded(scenario: Scenario, seed: int) -> tuple[int, list[Fate]]:
    """Draw the lives of recorded servers; those that come later are like one of them."""
    assert scenario.recorded is not None  # noqa: S101 - the caller has looked
    snapshot = read_snapshot_file(scenario.recorded.snapshot)
    total_blocks = snapshot.total_blocks
    recorded = [
        remote
        for remote in snapshot.spans(ServerState.JOINING).values()
        if 0 <= remote.start < remote.end <= total_blocks
    ]
    churn = scenario.churn
    life = churn.mean_life if churn.enabled else math.inf
    fates = [
        replace(
            _live(scenario, seed, index, _Server(remote.length, remote.throughput), _Arrival(0.0, life)),
            peer_id=remote.peer_id,
            first_span=Span(remote.start, remote.end),
        )
        for index, remote in enumerate(recorded)
    ]
    if churn.enabled and recorded:
        draw = stream(seed, "arrivals")
        time = draw.expovariate(len(recorded) / churn.mean_life)
        while time < scenario.ends_at:
            like = draw.choice(recorded)
            server = _Server(like.length, like.throughput)
            fates.append(_live(scenario, seed, len(fates), server, _Arrival(time, life)))
            time += draw.expovariate(len(recorded) / churn.mean_life)
    return total_blocks, fates


def _strike(scenario: Scenario, fates: Sequence[Fate], seed: int) -> list[Fate]:
    """Let the correlated failures take their share of those alive."""
    struck = list(fates)
    for number, failure in enumerate(scenario.failures):
        time = scenario.warm_up + failure.at
        alive = [index for index, fate in enumerate(struck) if fate.arrives_at <= time < fate.leaves_at]
        for index in stream(seed, "failure", number).sample(alive, round(failure.share * len(alive))):
            struck[index] = replace(struck[index], leaves_at=time, crashes=not failure.announced)
    return struck
