"""One run: a population, a policy and a seed, from the first arrival to the last measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from swarmkeel.simulation.bounds import BoundStep, bound_steps
from swarmkeel.simulation.dht import Dht
from swarmkeel.simulation.events import EventQueue
from swarmkeel.simulation.eyes import CoordinatedDecider, Decider, PetalsDecider
from swarmkeel.simulation.hostile import FalseClaims
from swarmkeel.simulation.measures import RunResult, measure_run
from swarmkeel.simulation.petals_loop import PetalsCheck, PetalsLoop
from swarmkeel.simulation.policies import PolicySpec
from swarmkeel.simulation.population import Fate, Population, draw_population, stream
from swarmkeel.simulation.scenario import Scenario, Size
from swarmkeel.simulation.server import Phase, SimulatedServer
from swarmkeel.simulation.sidecar import ClaimCounts, SimulatedSidecar
from swarmkeel.simulation.truth import Truth


class _Driver(Protocol):
    def start(self) -> None:
        """Take the server over."""
        ...


class World:
    """A swarm in simulated time.

    Args:
        scenario: Its parameters.
        population: Its servers.
        policy: What runs them.
        seed: Of the policy's and the DHT's own randomness.
        audit: Is told of every check of Petals' loop.

    Attributes:
        queue: Simulated time.
        dht: The DHT.
        truth: What really happens.
        servers: The servers that have arrived, by peer id.
        claims: Counts the sidecars' claims.
    """

    def __init__(
        self,
        scenario: Scenario,
        population: Population,
        policy: PolicySpec,
        seed: int,
        *,
        audit: Callable[[PetalsCheck], None] | None = None,
    ) -> None:
        self.queue = EventQueue()
        self.truth = Truth(self.queue, population, scenario.warm_up)
        self.dht = Dht(self.queue, scenario.dht, population.total_blocks, stream(seed, "dht"))
        self.servers: dict[str, SimulatedServer] = {}
        self._scenario = scenario
        self._population = population
        self._policy = policy
        self._seed = seed
        self._audit = audit
        self.claims = ClaimCounts()
        FalseClaims(
            scenario.hostile,
            population.total_blocks,
            queue=self.queue,
            dht=self.dht,
            servers=self.servers,
            is_forged=lambda server: server.fate.forged_draw < scenario.hostile.forged_share,
            draw=stream(seed, "hostile"),
        )
        self._decider: Decider
        if policy.kind == "petals-sidecar":
            self._decider = PetalsDecider(scenario.petals)
        else:
            cost = scenario.sidecars.move_cost if policy.move_cost is None else policy.move_cost
            self._decider = CoordinatedDecider(cost)
        for fate in population.fates:
            if fate.arrives_at < scenario.ends_at:
                self.queue.at(fate.arrives_at, partial(self._arrive, fate))

    def _arrive(self, fate: Fate) -> None:
        scenario, total_blocks = self._scenario, self._population.total_blocks
        self.truth.arrives(fate.peer_id)
        server = SimulatedServer(
            fate,
            scenario,
            total_blocks,
            queue=self.queue,
            dht=self.dht,
            truth=self.truth,
            draw=stream(self._seed, "loads", fate.index),
        )
        self.servers[fate.peer_id] = server
        driver = self._driver(server)
        if fate.first_span is not None:
            server.start_on(fate.first_span)
        self.queue.at(fate.leaves_at, lambda: self._leave(server))
        driver.start()

    def _leave(self, server: SimulatedServer) -> None:
        if server.phase is not Phase.GONE:
            server.leave()

    def _driver(self, server: SimulatedServer) -> _Driver:
        fate, scenario, policy = server.fate, self._scenario, self._policy
        total_blocks = self._population.total_blocks
        adoption = scenario.sidecars.adoption if policy.adoption is None else policy.adoption
        if policy.uses_sidecars and fate.adoption_draw < adoption:
            return SimulatedSidecar(
                server,
                scenario,
                total_blocks,
                decider=self._decider,
                makes_claims=policy.kind == "coordinated",
                queue=self.queue,
                dht=self.dht,
                truth=self.truth,
                counts=self.claims,
                draw=stream(self._seed, "sidecar", fate.index),
            )
        fixed = fate.fixed_draw < scenario.hostile.fixed_share
        return PetalsLoop(
            server,
            scenario,
            total_blocks,
            queue=self.queue,
            dht=self.dht,
            draw=stream(self._seed, "petals", fate.index),
            rebalances=policy.kind != "none" and not fixed,
            audit=self._audit,
        )

    def run(self) -> None:
        """Let everything happen."""
        self.queue.run_until(self._scenario.ends_at)
        self.truth.finish()


def simulate(
    scenario: Scenario,
    size: Size,
    policy: PolicySpec,
    seed: int,
    *,
    population: Population | None = None,
    bounds: Sequence[BoundStep] | None = None,
) -> RunResult:
    """Make one run.

    Args:
        scenario: The world.
        size: Blocks and servers.
        policy: What runs the servers.
        seed: Of everything random; the same seed gives every policy the same servers and lives.
        population: What `draw_population` gives for the same arguments, if that is known already.
        bounds: What `bound_steps` gives for it, if that is known already.
    """
    if population is None:
        population = draw_population(scenario, size, seed)
    if bounds is None:
        bounds = bound_steps(population, scenario.ends_at)
    world = World(scenario, population, policy, seed)
    world.run()
    return measure_run(
        scenario,
        population,
        world.truth,
        bounds,
        policy=policy.name,
        seed=seed,
        servers=size.servers,
        claims=world.claims.made,
        claims_lost=world.claims.lost,
    )
