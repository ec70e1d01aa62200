"""Days in an hour: `make soak`. A live swarm whose sidecars check several times a second, with failures and moves going on.

Each sidecar stays the same process from the first to the last check. What it takes of the machine is measured all along.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientError, ClientSession, ClientTimeout
from prometheus_client.parser import text_string_to_metric_families

from swarmkeel.daemon.journal import Journal, JournalError
from swarmkeel.demo.processes import ProcessFailedError
from swarmkeel.demo.scenario import ServerPlan
from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.record import ServerInfo, ServerState
from tests.soak.measure import MEGABYTE, Course, Sample, follow, measures
from tests.support.dht import plant
from tests.support.interrupts import run_to_the_end
from tests.support.live_swarm import LiveSwarm, Slot, Speed, settings_of
from tests.support.resources import p2pd_of, processes_with, usage
from tests.support.watched_server import Orders

TOTAL_BLOCKS: Final = 8
_SIZES: Final = ((3, 8.0), (4, 8.0), (4, 9.0), (5, 10.0))
PLANS: Final = tuple(ServerPlan(f"server-{number}", blocks, rps, 0) for number, (blocks, rps) in enumerate(_SIZES))
JOURNAL_MEGABYTES: Final = 1
JOURNAL_SLACK_MEGABYTES: Final = 14
"""Above its limit, with its neighbours: what is written between two looks at its size, and the write-ahead log (8 MB)."""
SAMPLE_SECONDS: Final = 10.0
RESTLESS_SECONDS: Final = 1.0
RESTLESS_PEERS: Final = "abcd"
FAILURE_CHECKS: Final = (50, 250)
"""After so many checks of all sidecars together the next failure comes."""
SECTIONS: Final = settings_of(
    swarm={"read_timeout": 5},
    balance={"policy": "coordinated", "load_seconds": 1, "check_period": 0.3, "check_jitter": 0.2},
    claims={"settle": 0.5, "lifetime": 10, "prefetch_poll": 0.3, "prefetch_timeout": 10},
    guards={"cooldown": 3, "minimum_uptime": 0, "moves_per_day": 100_000, "breaker_base": 4, "breaker_max": 8},
    move={"drain": 0, "request_timeout": 10, "restart_timeout": 20, "verify_timeout": 10, "poll_period": 0.3},
    journal={"max_megabytes": JOURNAL_MEGABYTES},
    log={"level": "info", "format": "json"},
)


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    checks: int
    watchers: int
    minutes: float
    seed: int
    folder: Path


class Soak:
    """One soak.

    Args:
        options: How long.
        swarm: The swarm, which has been entered.
    """

    def __init__(self, options: Options, swarm: LiveSwarm) -> None:
        self.samples: list[Sample] = []
        self.failures: dict[str, int] = {}
        self._options = options
        self._swarm = swarm
        self._random = random.Random(options.seed)  # noqa: S311 - a run that can be repeated
        self._started = time.monotonic()
        self._checks: dict[str, int] = {}
        self._urls: dict[str, str] = {}

    @property
    def checks(self) -> int:
        """Checks that all sidecars have made together, as they count them themselves."""
        return sum(self._checks.values())

    @property
    def _sidecars(self) -> list[Slot]:
        return [*self._swarm.slots, *self._swarm.watchers]

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    async def run(self) -> None:
        """Go on until there were enough checks.

        Raises:
            TimeoutError: If that takes longer than it may.
            ExceptionGroup: If a process ends by itself.
        """
        async with asyncio.timeout(self._options.minutes * 60):
            await self._swarm.start()
            await self._swarm.start_watchers(self._options.watchers)
            print(f"{len(self._sidecars)} sidecars of {len(self._swarm.slots)} servers are up", flush=True)
            self._started = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                disturbing = [tasks.create_task(work) for work in (self._fail(), self._be_restless())]
                while self.checks < self._options.checks:
                    await asyncio.sleep(SAMPLE_SECONDS)
                    await self._measure()
                for task in disturbing:
                    task.cancel()

    async def _measure(self) -> None:
        async with ClientSession(timeout=ClientTimeout(total=20)) as client:
            for slot in self._sidecars:
                if (sample := await self._look(slot, client)) is not None:
                    self.samples.append(sample)
                    self._checks[slot.name] = sample.checks
        last = self.samples[-1]
        print(
            f"{self.seconds:6.0f} s  {self.checks:6,} checks  daemon {last.rss_mb:.1f} MB, p2pd {last.p2pd_rss_mb:.1f} MB, "
            f"{last.descriptors} descriptors, journal {last.journal_mb:.1f} MB, {sum(self.failures.values())} failures",
            flush=True,
        )

    async def _look(self, slot: Slot, client: ClientSession) -> Sample | None:
        """Measure one sidecar; None while it is too busy to answer, or has just lost its p2pd."""
        sidecar = slot.sidecar
        assert sidecar is not None
        if not sidecar.is_running:
            raise sidecar.failure("ended by itself")
        p2pd = p2pd_of(sidecar.pid)
        own, child = usage(sidecar.pid), usage(p2pd) if p2pd else None
        if own is None or child is None:
            return None
        try:
            url = self._urls.get(slot.name) or self._urls.setdefault(slot.name, _url(slot))
            async with client.get(f"{url}/metrics") as answer:
                text = await answer.text()
            with Journal(slot.journal, read_only=True) as journal:
                moves = len(journal.moves(limit=-1))
        except (ClientError, TimeoutError, JournalError):
            return None
        checks = next(
            int(found.value)
            for family in text_string_to_metric_families(text)
            for found in family.samples
            if found.name == "swarmkeel_check_duration_seconds_count"
        )
        return Sample(
            at=round(self.seconds, 1),
            sidecar=slot.name,
            checks=checks,
            rss_mb=own.rss_bytes / MEGABYTE,
            p2pd_rss_mb=child.rss_bytes / MEGABYTE,
            descriptors=own.descriptors,
            p2pd_descriptors=child.descriptors,
            threads=own.threads,
            journal_mb=sum(path.stat().st_size for path in _files_of(slot.journal)) / MEGABYTE,
            moves=moves,
        )

    async def _fail(self) -> None:
        """Have one failure after the other, so that there is always something to move."""
        kinds = [self._crash, self._leave, self._fail_to_load, self._lose_p2pd]
        while True:
            due = self.checks + self._random.randint(*FAILURE_CHECKS)
            while self.checks < due:
                await asyncio.sleep(1)
            kind, slot = self._random.choice(kinds), self._random.choice(self._swarm.slots)
            name = kind.__name__.strip("_").replace("_", " ")
            self.failures[name] = self.failures.get(name, 0) + 1
            await kind(slot)

    async def _crash(self, slot: Slot) -> None:
        await self._swarm.crash_server(slot)
        await asyncio.sleep(self._random.uniform(1, 20))
        await self._swarm.start_server(slot)

    async def _leave(self, slot: Slot) -> None:
        server, slot.server = slot.server, None
        assert server is not None
        await server.end()
        await asyncio.sleep(self._random.uniform(1, 20))
        await self._swarm.start_server(slot)

    async def _fail_to_load(self, slot: Slot) -> None:
        Orders(failing=tuple(self._random.sample(range(TOTAL_BLOCKS), TOTAL_BLOCKS // 2))).give(slot.folder)
        await asyncio.sleep(15)
        Orders().give(slot.folder)

    async def _lose_p2pd(self, slot: Slot) -> None:
        if slot.sidecar is not None and (p2pd := p2pd_of(slot.sidecar.pid)) is not None:
            with suppress(ProcessLookupError):
                os.kill(p2pd, signal.SIGKILL)

    async def _be_restless(self) -> None:
        """Have servers announce themselves that are no two times the same, so that no two snapshots are alike."""
        model, rng = self._swarm.model, random.Random(self._options.seed + 1)  # noqa: S311 - as above
        info = ServerInfo(ServerState.ONLINE, 0.01, 0, TOTAL_BLOCKS)
        while True:
            ends = time.time() + 30
            for name in RESTLESS_PEERS:
                value = encode_value(replace(info, throughput=rng.uniform(0.001, 0.02)).to_tuple())
                for block in range(TOTAL_BLOCKS):
                    plant(self._swarm.peers.nodes, f"{model}.{block}", f"QmRest{name}", value, ends)
            await asyncio.sleep(RESTLESS_SECONDS)


def _files_of(journal: Path) -> list[Path]:
    return [path for path in journal.parent.glob(f"{journal.name}*") if not path.name.endswith(".lock")]


def _url(slot: Slot) -> str:
    for line in slot.sidecar_log.read_text().splitlines():
        if '"event": "started"' in line:
            return str(json.loads(line)["http"])
    raise ProcessFailedError(f"the sidecar of {slot.name} has not said where it listens", f"see {slot.sidecar_log}")


def report_of(soak: Soak, courses: Sequence[Course], left: int, broken: str | None) -> dict[str, Any]:
    """Give all that a soak found as JSON values."""
    return {
        "checks": soak.checks,
        "sidecars": len({sample.sidecar for sample in soak.samples}),
        "seconds": round(soak.seconds),
        "moves": sum(
            max(s.moves for s in soak.samples if s.sidecar == name) for name in {s.sidecar for s in soak.samples}
        ),
        "failures": dict(sorted(soak.failures.items())),
        "journal_limit_mb": JOURNAL_MEGABYTES,
        "processes_left": left,
        "broken": broken,
        "python": platform.python_version(),
        "courses": [asdict(course) for course in courses],
        "samples": [asdict(sample) for sample in soak.samples],
    }


async def soak(options: Options) -> int:
    """Run one soak, write its report, and give the exit code."""
    speed = Speed(load=0.7, download=0.5, update_period=3, lifetime=9)
    async with LiveSwarm(PLANS, total_blocks=TOTAL_BLOCKS, speed=speed, sections=SECTIONS, peers=1) as swarm:
        run, broken = Soak(options, swarm), None
        try:
            await run.run()
        except* TimeoutError:
            broken = f"{run.checks:,} checks in {options.minutes:g} minutes are too few"
        except* ProcessFailedError as group:
            broken = f"{group.exceptions[0]}"
        await swarm.end_processes()
        left = len(processes_with(swarm.mark))
    if broken:
        print(broken, file=sys.stderr)
    if not run.samples:
        return 1
    courses = [follow(run.samples, measure) for measure in measures(JOURNAL_MEGABYTES + JOURNAL_SLACK_MEGABYTES)]
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "report.json"
    path.write_text(json.dumps(report_of(run, courses, left, broken), indent=1) + "\n")
    print(f"{run.checks:,} checks in {run.seconds:.0f} s; everything is in {path}")
    for course in courses:
        quarters = " ".join(f"{mean:8.1f}" for mean in course.quarters)
        word = "bounded" if course.bounded else "GROWS"
        print(f"{course.measure:28} {quarters}  largest {course.largest:8.1f} {course.unit:3} {word}")
    if left:
        print(f"{left} processes are left behind")
    return 0 if not left and not broken and all(course.bounded for course in courses) else 1


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--checks", type=int, default=10_000, help="how many checks all sidecars make together")
    parser.add_argument("--watchers", type=int, default=1, help="sidecars beside each server that only watch it")
    parser.add_argument("--minutes", type=float, default=90, help="fail if that takes longer")
    parser.add_argument("--seed", type=int, default=1, help="decides who fails when")
    parser.add_argument("--folder", type=Path, default=Path("build/soak"), help="takes the report")
    return Options(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(run_to_the_end(soak(parse(sys.argv[1:]))))
