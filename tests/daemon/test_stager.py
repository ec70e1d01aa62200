"""What the daemon has its server stage, with a server that answers as told: beside the checks, and after everything else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

import swarmkeel.daemon.stager as stager_module
from swarmkeel.balance.decision import Decision, Verdict
from swarmkeel.balance.plan import Plan, make_plan
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.control.client import ServerRefused
from swarmkeel.control.protocol import PrefetchPhase, PrefetchRequest, PrefetchStatus, ServerPhase, ServerStatus
from swarmkeel.daemon.check import Outcome, Reading
from swarmkeel.daemon.guard import GuardSettings, GuardView
from swarmkeel.daemon.journal import CheckInputs
from swarmkeel.daemon.metrics import Metrics
from swarmkeel.daemon.stager import Stager
from swarmkeel.daemon.staging import StagingResult, StagingSettings
from swarmkeel.daemon.state import DaemonState
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span

HOME, TARGET = Span(0, 4), Span(4, 8)
STATUS = ServerStatus("sim/1", "p", "m", 8, 4, 10.0, ServerPhase.ONLINE, HOME, capabilities=("prefetch",))
SETTINGS = StagingSettings(period=100.0, quiet_for=10.0)
GUARDS = GuardSettings(
    cooldown=0.0, minimum_uptime=0.0, moves_per_day=9, confirmations=1, breaker_base=1.0, breaker_max=1.0
)


def snapshot() -> SwarmSnapshot:
    """Give a swarm of two servers on the first half and one on the other: who is spare steps in when that one leaves."""
    spans = {"p": HOME, "q": HOME, "r": TARGET}
    infos = {
        peer: ServerInfo(ServerState.ONLINE, 10.0, start_block=span.start, end_block=span.end)
        for peer, span in spans.items()
    }
    blocks = tuple(
        BlockReading(
            f"m.{index}",
            KeyReading.OK,
            {peer: infos[peer] for peer, span in spans.items() if span.start <= index < span.end},
        )
        for index in range(8)
    )
    return SwarmSnapshot("m", 0, blocks, 0.0)


class Server:
    """Takes what it is asked for, and says what it is told to say of it."""

    def __init__(self) -> None:
        self.asked: list[PrefetchRequest] = []
        self.refuses = False
        self.prefetch_status: PrefetchStatus | None = None

    async def status(self) -> ServerStatus:
        return replace(STATUS, prefetch=self.prefetch_status)

    async def prefetch(self, request: PrefetchRequest) -> ServerStatus:
        self.asked.append(request)
        if self.refuses:
            raise ServerRefused(409, "busy")
        self.prefetch_status = PrefetchStatus(request.id, request.span, PrefetchPhase.FETCHING)
        return await self.status()

    def ends(self, phase: PrefetchPhase) -> None:
        self.prefetch_status = PrefetchStatus(self.asked[-1].id, self.asked[-1].span, phase)


class Stage:
    """A stager and all that is around it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.is_free = True
        self.server = Server()
        self.daemon = DaemonState(started_at=0.0)
        self.metrics = Metrics(
            self.daemon, version="1", dht_prefix="m", policy=lambda: "coordinated", clock=lambda: self.now
        )
        self.stager = Stager(
            server=self.server,
            metrics=self.metrics,
            daemon=self.daemon,
            is_free=lambda: self.is_free,
            clock=lambda: self.now,
        )

    async def check(self, seconds: float = 10.0, verdict: Verdict = Verdict.BALANCED) -> None:
        """Make a check after some time."""
        self.now += seconds
        own = OwnServer(peer_id="p", span=HOME, num_blocks=4, throughput=10.0, load_seconds=60.0)
        situation = Situation(snapshot=snapshot(), own=own, settings=PolicySettings(), now=self.now, seed=0)
        view = GuardView(
            now=self.now,
            server_state="online",
            running_restart=None,
            pinned=False,
            span_since=0.0,
            moves=(),
            confirmations=0,
            servers=3,
            others_moving=0,
        )
        decision = Decision(
            verdict=verdict,
            reasons=(),
            policy="coordinated",
            peer_id="p",
            own_span=HOME,
            target=None,
            before=None,
            after=None,
            snapshot_digest="",
            seed=0,
        )
        inputs = CheckInputs(situation=situation, view=view, guards=GUARDS, dry_run=False, claim=None)
        reading = Reading(situation.snapshot, None, await self.server.status(), None, asked_at=self.now)
        await self.stager.follow(reading, Outcome(decision, inputs), SETTINGS)

    async def rest(self) -> None:
        """Wait until nothing goes on beside the checks."""
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            await task

    async def until_asked(self) -> None:
        await self.check()
        await self.check()
        await self.rest()

    def counted(self) -> dict[str, float]:
        values = {
            result.value: self.metrics.registry.get_sample_value(
                "swarmkeel_staging_requests_total", {"result": result.value}
            )
            for result in StagingResult
        }
        return {name: value for name, value in values.items() if value}


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_after_a_quiet_time_the_server_fetches_where_it_would_be_asked_to_go(stage: Stage) -> None:
    await stage.check()
    await stage.rest()
    assert stage.server.asked == []
    await stage.check()
    await stage.rest()
    assert [request.span for request in stage.server.asked] == [TARGET]
    await stage.check()
    assert stage.daemon.staged_blocks == 0
    assert stage.counted() == {}
    stage.server.ends(PrefetchPhase.DONE)
    await stage.check()
    assert stage.daemon.staged_blocks == 4
    for _ in range(30):  # three periods
        await stage.check()
        await stage.rest()
    assert len(stage.server.asked) == 1  # it has all that it could be asked for
    assert stage.counted() == {"done": 1}


async def test_a_fetch_that_fails_is_asked_for_again_but_only_in_the_next_period(stage: Stage) -> None:
    await stage.until_asked()
    stage.server.ends(PrefetchPhase.FAILED)
    for _ in range(9):
        await stage.check()
        await stage.rest()
    assert len(stage.server.asked) == 1
    stage.server.refuses = True
    await stage.check()
    await stage.rest()
    assert len(stage.server.asked) == 2
    await stage.check()
    assert stage.counted() == {"failed": 1, "refused": 1}
    assert stage.daemon.staged_blocks == 0


async def test_a_claim_that_comes_first_or_takes_its_place_is_not_stood_in_the_way_of(stage: Stage) -> None:
    stage.is_free = False
    await stage.until_asked()
    assert stage.server.asked == []
    stage.is_free = True
    stage.now += 100
    await stage.until_asked()
    assert len(stage.server.asked) == 1
    stage.server.prefetch_status = PrefetchStatus("the claim's", TARGET, PrefetchPhase.FETCHING)
    await stage.check(verdict=Verdict.HOLDING)
    assert stage.counted() == {"replaced": 1}
    await stage.check()
    await stage.rest()
    assert len(stage.server.asked) == 1


async def test_what_happens_while_plans_are_made_ends_them(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    plans, begun = 0, asyncio.Event()

    def plan(servers: tuple[PlanServer, ...], **rest: Any) -> Plan:
        nonlocal plans
        plans += 1
        loop.call_soon_threadsafe(begun.set)
        return make_plan(servers, **rest)

    monkeypatch.setattr(stager_module, "make_plan", plan)
    await stage.check()
    await stage.check()
    await begun.wait()
    await stage.check(verdict=Verdict.MOVING)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert stage.server.asked == []
    assert plans >= 1
    # What was not thought to its end is thought through after the next quiet time, not only a period later.
    await stage.until_asked()
    assert len(stage.server.asked) == 1


async def test_a_server_that_does_not_tell_is_taken_to_have_it(stage: Stage) -> None:
    await stage.until_asked()
    stage.server.prefetch_status = None
    await stage.check()
    assert stage.counted() == {"untold": 1}
    await stage.check()
    assert stage.daemon.staged_blocks == 4


async def test_without_settings_everything_ends(stage: Stage) -> None:
    await stage.until_asked()
    reading = Reading(None, None, await stage.server.status(), None, asked_at=stage.now)
    await stage.stager.follow(reading, Outcome(None, None), None)  # type: ignore[arg-type] # not looked at
    assert stage.daemon.staged_blocks is None
    await stage.stager.close()
