"""A swarm under every fault at once: `make chaos`. What must never happen is looked for all along, by what servers really did.

The seed decides which faults strike whom, in which order and for how long; what they meet is up to the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from swarmkeel.balance.decision import Verdict
from swarmkeel.daemon.journal import Journal
from swarmkeel.demo.optimum import BestPossible, ask_best_possible
from swarmkeel.demo.scenario import GOAL, TOTAL_BLOCKS, plan_servers
from tests.chaos.faults import KINDS, Scene, strike
from tests.chaos.report import End, Footprint, Leftovers, Report
from tests.chaos.truth import Life, Rules, judge
from tests.support.interrupts import run_to_the_end
from tests.support.live_swarm import LiveSwarm, Speed, settings_of
from tests.support.resources import hivemind_sockets, p2pd_of, processes_with, usage

READ_TIMEOUT: Final = 5.0
REQUEST_TIMEOUT: Final = 10.0
BREAKER_BASE: Final = 8.0
FAULT_EVERY_SECONDS: Final = (0.5, 3.5)
AT_ONCE: Final = 5
"""So many faults at most at the same time."""
CHURN: Final = "server: SIGKILL"
CHURN_RATIO: Final = 0.2
LOOK_SECONDS: Final = 1.0
STEADY_SECONDS: Final = 8.0
REST_SECONDS: Final = 240.0
"""The swarm must have come to rest by then, at first and after the faults."""
NEW_CHECKS: Final = 3
SPEED: Final = Speed()
SECTIONS: Final = settings_of(
    swarm={"read_timeout": READ_TIMEOUT},
    balance={"policy": "coordinated", "load_seconds": SPEED.load, "check_period": 2.5, "check_jitter": 0.4},
    claims={"settle": 2, "lifetime": 20, "prefetch_poll": 0.3, "prefetch_timeout": 20, "prefetch_retry": 5},
    guards={
        "cooldown": 6,
        "minimum_uptime": 0,
        "moves_per_day": 1000,
        "breaker_base": BREAKER_BASE,
        "breaker_max": 2 * BREAKER_BASE,
    },
    move={
        "drain": 0,
        "request_timeout": REQUEST_TIMEOUT,
        "restart_timeout": 20,
        "verify_timeout": 15,
        "poll_period": 0.5,
    },
    log={"level": "info", "format": "json"},
)
RULES: Final = Rules(
    # A record's life, and then a reading under way, a claim that settles, and a request that is on its way.
    propagation=SPEED.lifetime + READ_TIMEOUT + REQUEST_TIMEOUT,
    breaker=BREAKER_BASE - 0.5,
    total_blocks=TOTAL_BLOCKS,
)


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    seed: int
    minutes: float
    servers: int
    folder: Path
    kinds: tuple[str, ...]

    @property
    def repeat(self) -> str:
        """The command that strikes the same servers with the same faults again."""
        kinds = "" if len(self.kinds) == len(KINDS) else f" --kinds '{','.join(self.kinds)}'"
        return f'make chaos ARGS="--seed {self.seed} --minutes {self.minutes:g} --servers {self.servers}{kinds}"'


class Chaos:
    """One run.

    Args:
        options: How long, and with which seed.
        swarm: The swarm, which has been entered.
    """

    def __init__(self, options: Options, swarm: LiveSwarm) -> None:
        lives = {slot.name: Life() for slot in swarm.slots}
        self.scene = Scene(swarm, lives, random.Random(options.seed))  # noqa: S311 - a run that can be repeated
        self.sockets: set[Path] = set()
        self.violations: list[str] = []
        self._options = options
        self._swarm = swarm
        self._read: dict[str, int] = {}
        self._started = time.monotonic()

    async def run(self) -> tuple[End, Footprint, Footprint]:
        """Let the swarm come to rest, strike it, and let it come to rest again."""
        self._tell("starting")
        await self._swarm.start()
        best = await ask_best_possible(
            [(slot.plan.num_blocks, slot.plan.throughput) for slot in self._swarm.slots], TOTAL_BLOCKS, seconds=20
        )
        watching = asyncio.create_task(self._watch())
        try:
            first = await self._rest(best)
            self._tell(f"at rest at first after {first.seconds:.0f} s: {first.missing or 'balanced and covered'}")
            if first.missing:
                self._violated(f"it did not come to rest before any fault: {first.missing}")
            before = await self._footprint()
            await self._strike()
            self._tell("no more faults")
            end = await self._rest(best)
            self._tell(f"at rest after {end.seconds:.0f} s: {end.missing or 'balanced and covered'}")
            if end.missing:
                self._violated(f"it did not come to rest: {end.missing}")
            after = await self._footprint()
        finally:
            watching.cancel()
        self._look()
        self._look_at_logs()
        self._look_at_journals()
        return end, before, after

    async def _strike(self) -> None:
        """Strike until time is over; returns when all has been mended."""
        rng, kinds = self.scene.rng, list(self._options.kinds)
        until = time.monotonic() + 60 * self._options.minutes
        waiting: list[str] = []
        at_once = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as striking:
            while time.monotonic() < until:
                # All kinds in one order, then all in another, so that none is left out.
                if not waiting:
                    waiting = rng.sample(kinds, len(kinds))
                # Servers that come and go give the others something to move for.
                kind = CHURN if rng.random() < CHURN_RATIO else waiting.pop()
                place = rng.randrange(len(self._swarm.slots))
                await at_once.acquire()
                # The next one that no other fault has to itself.
                slots = self._swarm.slots[place:] + self._swarm.slots[:place]
                slot = next((slot for slot in slots if not slot.free.locked()), slots[0])
                self._tell(f"{kind}{'' if KINDS[kind].of_all else f', {slot.name}'}")
                task = striking.create_task(strike(self.scene, kind, slot))
                task.add_done_callback(lambda _: at_once.release())
                await asyncio.sleep(rng.uniform(*FAULT_EVERY_SECONDS))

    async def _watch(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> None:
        """Read what is new in the diaries, and hold all that has happened against the rules."""
        for slot in self._swarm.slots:
            text = slot.diary.read_text() if slot.diary.exists() else ""
            lines = text[: text.rfind("\n") + 1].splitlines()
            entries = lines[self._read.get(slot.name, 0) :]
            self.scene.lives[slot.name].diary += [json.loads(line) for line in entries]
            self._read[slot.name] = len(lines)
        for text in (*judge(self.scene.lives, self.scene.faults, RULES).violations, *self.scene.broken_rules):
            self._violated(text)
        for slot in self._swarm.slots:
            if slot.free.locked():
                continue
            for process in (slot.server, slot.sidecar):
                if process is not None and not process.is_running:
                    self._violated(str(process.failure("ended by itself")))
        self.sockets |= hivemind_sockets(processes_with(self._swarm.mark))

    def _look_at_logs(self) -> None:
        for slot in self._swarm.slots:
            for line in slot.sidecar_log.read_text(errors="replace").splitlines():
                if "Traceback" in line:
                    self._violated(f"{slot.name}: its sidecar ran into a fault of its own: {line[:2000]}")

    def _look_at_journals(self) -> None:
        for slot in self._swarm.slots:
            with closing(sqlite3.connect(slot.journal)) as database:
                if (found := database.execute("PRAGMA integrity_check").fetchone()) != ("ok",):
                    self._violated(f"{slot.name}: its sidecar's journal is damaged: {found}")
            with Journal(slot.journal, read_only=True) as journal:
                for move in journal.unfinished_moves():
                    self._violated(f"{slot.name}: the move {move.id} has come to no end: it is {move.step.value}")

    async def _rest(self, best: BestPossible) -> End:
        """Wait until the swarm is balanced and covered, and stays so with nothing more to do."""
        began, since = time.monotonic(), None
        checks = {slot.name: slot.checks() for slot in self._swarm.slots}
        while True:
            end = self._state(best, began, checks)
            now = time.monotonic()
            since = None if end.missing else since or now
            if since is not None and now - since >= STEADY_SECONDS:
                return end
            if now - began > REST_SECONDS:
                return end
            await asyncio.sleep(LOOK_SECONDS)

    def _state(self, best: BestPossible, began: float, checks: dict[str, int]) -> End:
        seconds, since = time.monotonic() - began, time.time() - (time.monotonic() - began)
        served = [0.0] * TOTAL_BLOCKS
        loading = []
        for slot in self._swarm.slots:
            stretch = next(iter(self.scene.lives[slot.name].stretches()[-1:]), None)
            if stretch is None or stretch.step != "online" or stretch.span is None:
                loading.append(slot.name)
                continue
            for block in range(*stretch.span):
                served[block] += slot.plan.throughput
        verdicts = [slot.verdict(since) for slot in self._swarm.slots]
        fewest = min(slot.checks() - checks[slot.name] for slot in self._swarm.slots)
        uncovered, share = served.count(0.0), min(served) / best.bound_rps
        missing = None
        if uncovered:
            missing = f"{uncovered} blocks are served by nobody"
        elif loading:
            missing = f"not all serve: {', '.join(loading)}"
        elif fewest < NEW_CHECKS:
            missing = f"a sidecar has made {fewest} checks since"
        elif any(verdict is not Verdict.BALANCED for verdict in verdicts):
            others = {
                slot.name: verdict.value if verdict else "nothing that it could read"
                for slot, verdict in zip(self._swarm.slots, verdicts, strict=True)
                if verdict is not Verdict.BALANCED
            }
            missing = f"not all find it balanced: {others}"
        elif share < GOAL:
            missing = f"the bottleneck is {share:.0%} of the best possible"
        told = Counter("none" if verdict is None else verdict.value for verdict in verdicts)
        return End(round(seconds, 1), round(share, 3), min(served), uncovered, dict(told), fewest, missing)

    async def _footprint(self) -> Footprint:
        """Measure the sidecars, when all of them have their p2pd."""
        while True:
            daemons = [slot.sidecar.pid for slot in self._swarm.slots if slot.sidecar is not None]
            p2pds = [pid for pid in map(p2pd_of, daemons) if pid is not None]
            of_daemons = [found for found in map(usage, daemons) if found is not None]
            of_p2pds = [found for found in map(usage, p2pds) if found is not None]
            if len(of_daemons) == len(of_p2pds) == len(self._swarm.slots):
                return Footprint.of(of_daemons, of_p2pds)
            await asyncio.sleep(LOOK_SECONDS)

    def _violated(self, text: str) -> None:
        if text not in self.violations:
            self.violations.append(text)
            self._tell(f"VIOLATED: {text}")

    def _tell(self, text: str) -> None:
        print(f"{time.monotonic() - self._started:6.1f} s  {text}", flush=True)

    def checks(self) -> int:
        return sum(slot.checks() for slot in self._swarm.slots)


def _left_behind(swarm: LiveSwarm, chaos: Chaos) -> Leftovers:
    return Leftovers(
        processes=len(processes_with(swarm.mark)),
        files=tuple(sorted(path.name for path in swarm.temporary.rglob("*"))),
        sockets_seen=len(chaos.sockets),
        sockets=sum(path.exists() for path in chaos.sockets),
        crashes=chaos.scene.crashes,
    )


async def chaos(options: Options) -> int:
    """Run it, write the report, and give the exit code."""
    plans = plan_servers(options.servers, options.seed)
    async with LiveSwarm(plans, total_blocks=TOTAL_BLOCKS, speed=SPEED, sections=SECTIONS) as swarm:
        run = Chaos(options, swarm)
        end, before, after = await run.run()
        checks = run.checks()
        await swarm.end_processes()
        leftovers = _left_behind(swarm, run)
    violations = (*run.violations, *after.leaks_since(before), *leftovers.leaks())
    report = Report(
        seed=options.seed,
        minutes=options.minutes,
        servers=options.servers,
        repeat=options.repeat,
        faults=dict(sorted(Counter(fault.kind for fault in run.scene.faults).items())),
        judgement=judge(run.scene.lives, run.scene.faults, RULES),
        checks=checks,
        end=end,
        before=before,
        after=after,
        leftovers=leftovers,
        violations=violations,
    )
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"report-{options.seed}.json"
    path.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    for line in report.lines():
        print(line)
    print(f"everything is in {path}")
    return 1 if violations else 0


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="decides the faults; drawn and told where left out")
    parser.add_argument("--minutes", type=float, default=3, help="how long faults go on")
    parser.add_argument("--servers", type=int, default=12, choices=range(12, 17), help="how many servers")
    parser.add_argument("--folder", type=Path, default=Path("build/chaos"), help="takes the report")
    parser.add_argument("--kinds", default="", help="only faults with one of these texts in their names, with commas")
    given: dict[str, Any] = vars(parser.parse_args(arguments))
    texts = [text for text in given.pop("kinds").split(",") if text]
    kinds = tuple(kind for kind in KINDS if not texts or any(text in kind for text in texts))
    if not kinds:
        parser.error(f"--kinds: there are {', '.join(KINDS)}")
    if given["seed"] is None:
        given["seed"] = random.SystemRandom().randrange(10_000)
    return Options(kinds=kinds, **given)


if __name__ == "__main__":
    sys.exit(run_to_the_end(chaos(parse(sys.argv[1:]))))
