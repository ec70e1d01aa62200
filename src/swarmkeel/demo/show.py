"""The demo itself: a badly placed swarm heals, loses some servers without a goodbye, and heals again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from swarmkeel.demo.optimum import BestPossible, ask_best_possible
from swarmkeel.demo.report import Milestone, Report, what_is_missing
from swarmkeel.demo.scenario import TOTAL_BLOCKS, ServerPlan, Timing, choose_victims, plan_servers
from swarmkeel.demo.sight import MoveCounter, Sight
from swarmkeel.demo.stand_in import StandInSettings
from swarmkeel.demo.swarm import DemoSwarm
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.failures import SwarmUnreachable

_LOOK_EVERY_SECONDS: Final = 0.7
_SOLVER_SECONDS: Final = 10.0
_COUNTS: Final = {2: "two", 3: "three", 4: "four"}


class NotHealedError(SwarmkeelError):
    """The demo did not end well."""


@dataclass(frozen=True)
class Scene:
    """What there is to show at one moment.

    Attributes:
        seconds: Time since the start.
        act: What goes on.
        sight: The swarm.
        best: The best bottleneck that the living servers could have; None while that is not known.
        moves: Moves so far.
    """

    seconds: float
    act: str
    sight: Sight
    best: BestPossible | None
    moves: int


class Audience(Protocol):
    """Whoever watches the demo."""

    def show(self, scene: Scene) -> None:
        """Take in how the swarm is now."""
        ...

    def tell(self, seconds: float, text: str) -> None:
        """Take in something that happened.

        Args:
            seconds: When, since the start.
            text: What, in one line; may hold names from the DHT.
        """
        ...


class Demo:
    """One run of the demo.

    Args:
        servers: How many servers, 8 to 16.
        seed: Decides how the servers are placed at first.
        deadline: Seconds after which the swarm must have healed.
        policy: The sidecars' policy.
        kill: How many servers are killed half-way.
        victims: Names of those; chosen when it is time, so as to hurt most, where left out.
        audience: Who watches.
    """

    def __init__(
        self,
        *,
        servers: int,
        seed: int,
        deadline: float,
        policy: str,
        kill: int = 2,
        victims: Sequence[str] = (),
        audience: Audience,
    ) -> None:
        self._seed = seed
        self._policy = policy
        self._kill_count = kill
        self._victims = tuple(victims)
        self._deadline = deadline
        self._audience = audience
        self._timing = Timing()
        self._started = time.monotonic()
        self._counter = MoveCounter()
        self._milestones: list[Milestone] = []
        self._act = "starting"
        self._best: BestPossible | None = None
        self._missing = "its servers are not up"
        self._plans = plan_servers(servers, seed)
        self.swarm = DemoSwarm(self._plans, self._timing, policy)

    async def run(self) -> Report:
        """Run the demo; `swarm` must have been entered, and is still up afterwards.

        Raises:
            NotHealedError: If the swarm did not heal in time; the text says what is missing.
            ProcessFailedError: If a process did not come up or ended by itself.
        """
        try:
            async with asyncio.timeout(self._deadline):
                await self._place_badly()
                await self._heal("balanced")
                await self._kill_some()
                await self._heal("healed")
        except TimeoutError as error:
            raise NotHealedError(
                f"the swarm did not heal within {self._deadline:.0f} s: {self._missing}",
                "see the sidecars' logs with --keep, or give a slow machine more time with --deadline",
            ) from error
        return self.report()

    def report(self, missing: str | None = None) -> Report:
        """Give what has been reached so far; `missing` says what has not."""
        return Report(self._seed, self._policy, self._victims, tuple(self._milestones), missing)

    async def watch(self) -> None:
        """Go on showing the swarm until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _place_badly(self) -> None:
        self._tell("starting the servers")
        async with asyncio.TaskGroup() as tasks:
            best = tasks.create_task(self._ask_best(self._plans))
            await self.swarm.start_servers()
        self._best = best.result()
        sight = await self._look()
        while len(sight.online) < len(self.swarm.servers):
            self._missing = "not all servers came online"
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            sight = await self._look()
        self._note_milestone("placed badly", sight)
        self._act = "starting the sidecars"
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self.watch())
            await self.swarm.start_sidecars()
            watching.cancel()

    async def _heal(self, name: str) -> None:
        """Wait until the swarm has been good enough for a while, with nobody loading and no dead server believed in."""
        self._act = "sidecars at work"
        since: float | None = None
        while True:
            sight = await self._look()
            # The goal itself is what a swarm that does not heal misses; the rest says that it is not over.
            reason = what_is_missing(sight, self._best) if self._best is not None else "the optimum is not known"
            if reason is None and sight.believed_dead:
                reason = "the DHT still shows a killed server"
            if reason is None and len(sight.online) < len(self.swarm.living):
                reason = "a server is still loading"
            self._missing = reason or "it was not steady for long enough"
            now = time.monotonic()
            since = None if reason else since or now
            if since is not None and now - since >= self._timing.steady:
                self._note_milestone(name, sight)
                return
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _kill_some(self) -> None:
        sight = await self._look()
        names = {peer_id: server.settings.public_name or "" for peer_id, server in self.swarm.servers.items()}
        if self._victims:
            victims = tuple(peer_id for peer_id, name in names.items() if name in self._victims)
        else:
            victims = choose_victims(sight.online, TOTAL_BLOCKS, self._kill_count)
            self._victims = tuple(names[peer_id] for peer_id in victims)
        self._act = f"{len(victims)} servers are gone"
        self._tell(f"kill -9 {', '.join(self._victims[:-1])} and {self._victims[-1]}: nobody is told")
        await asyncio.gather(*map(self.swarm.kill, victims))
        self._best = None
        damaged = await self._look()
        self._best = await self._ask_best([server.settings for server in self.swarm.living])
        self._note_milestone(f"{_COUNTS.get(len(victims), len(victims))} killed", damaged)

    async def _ask_best(self, servers: Iterable[ServerPlan | StandInSettings]) -> BestPossible:
        sizes = [(server.num_blocks, server.throughput) for server in servers]
        try:
            return await ask_best_possible(sizes, TOTAL_BLOCKS, seconds=_SOLVER_SECONDS)
        except (OSError, ValueError) as error:
            raise NotHealedError(
                f"the best possible bottleneck could not be computed ({error})", "see that scipy can be imported here"
            ) from error

    async def _look(self) -> Sight:
        """Read the swarm and show it; tries again while the DHT does not answer."""
        while True:
            await self.swarm.check_processes()
            try:
                snapshot = await self.swarm.read()
            except SwarmUnreachable:
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
                continue
            sight = Sight.take(snapshot, self.swarm.dead)
            for text in self._counter.look(sight):
                self._tell(text)
            self._audience.show(Scene(self._seconds, self._act, sight, self._best, self._counter.moves))
            return sight

    def _note_milestone(self, name: str, sight: Sight) -> None:
        assert self._best is not None  # noqa: S101 - it is asked for before the first milestone and after the kill
        milestone = Milestone(
            name=name,
            seconds=self._seconds,
            servers=len(self.swarm.living),
            bottleneck_rps=sight.bottleneck_rps,
            best=self._best,
            uncovered_blocks=sight.uncovered_blocks,
            moves=self._counter.moves,
        )
        self._milestones.append(milestone)
        self._tell(
            f"{name}: bottleneck {milestone.bottleneck_rps:.4g} RPS, {milestone.share:.0%} of the best possible "
            f"{self._best.bound_rps:.4g}; uncovered blocks: {milestone.uncovered_blocks}"
        )

    def _tell(self, text: str) -> None:
        self._audience.tell(self._seconds, text)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def milestones(self) -> Sequence[Milestone]:
        """What has been reached so far."""
        return self._milestones
