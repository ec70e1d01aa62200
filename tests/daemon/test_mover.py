"""The driver of a move: what is written down before what, and a kill at every single operation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from swarmkeel.control.client import ServerRefused, ServerUnreachable
from swarmkeel.control.protocol import RestartPhase, RestartRequest, ServerPhase, ServerStatus
from swarmkeel.daemon.move import FINAL_STEPS, Move, MoveLimits, MoveStep, resume
from swarmkeel.daemon.mover import Mover
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from tests.support.simulated_server import ORIGIN, TARGET, SimulatedServer

LIMITS = MoveLimits(request_timeout=10, restart_timeout=100, verify_timeout=50)


class Killed(BaseException):
    """The sidecar's process is gone."""


@dataclass
class SimulatedWorld:
    """A server, a DHT, a journal and a clock; counts every operation and kills the sidecar at a chosen one."""

    server: SimulatedServer = field(default_factory=SimulatedServer)
    now: float = 0.0
    log: list[str] = field(default_factory=list)
    journal: Move | None = None
    kill_at: int | None = None
    operations: int = 0
    loads_fail: bool = False
    reachable: bool = True
    journal_fails: bool = False
    announces: bool = True
    load_seconds: float = 5.0
    loading_since: float = 0.0
    clock_is_ahead: float = 0.0
    clock_jumps: dict[int, float] = field(default_factory=dict)
    """Before which operations the clock is set, and by how much it is ahead from then on."""

    def _operation(self, name: str) -> None:
        self.operations += 1
        self.clock_is_ahead = self.clock_jumps.get(self.operations, self.clock_is_ahead)
        self.log.append(name)
        if self.operations == self.kill_at:
            raise Killed

    async def wait(self, seconds: float) -> None:
        self._operation("wait")
        self.now += seconds

    async def status(self) -> ServerStatus:
        self._operation("status")
        if not self.reachable:
            raise ServerUnreachable("no answer", "wait")
        self._load()
        return self.server.status()

    def _load(self) -> None:
        restart = self.server.restart
        if restart is None or restart.phase.is_final or self.now - self.loading_since < self.load_seconds:
            return
        if self.loads_fail and restart.span == TARGET:
            failed = replace(restart, phase=RestartPhase.FAILED, error="out of memory")
            self.server = replace(self.server, span=None, state=ServerPhase.FAILED, restart=failed)
        else:
            self.server = replace(
                self.server, state=ServerPhase.ONLINE, restart=replace(restart, phase=RestartPhase.ONLINE)
            )

    async def restart(self, request: RestartRequest) -> ServerStatus:
        self._operation(f"restart {request.span}")
        known = len(self.server.accepted)
        self.server, refusal = self.server.take(request)
        if refusal is not None:
            raise ServerRefused(refusal.status, refusal.detail)
        if len(self.server.accepted) > known:
            self.loading_since = self.now
        # The answer may be lost although the server has begun.
        self._operation("answer")
        return self.server.status()

    async def save(self, move: Move) -> None:
        if self.journal_fails:
            raise SwarmkeelError("disk full", "make room")
        self._operation(f"before save {move.step.value}")
        self.journal = move
        self._operation(f"save {move.step.value}")

    async def read(self) -> SwarmSnapshot:
        self._operation("read")
        state = ServerState.ONLINE if self.server.state is ServerPhase.ONLINE else ServerState.JOINING
        span = self.server.span if self.announces else None
        blocks = []
        for block in range(8):
            covered = span is not None and span.start <= block < span.end
            info = ServerInfo(state, 1.0, start_block=span.start, end_block=span.end) if span else None
            blocks.append(BlockReading(f"m.{block}", KeyReading.OK, {"p": info} if covered and info else {}))
        return SwarmSnapshot("m", 0, tuple(blocks), self.now)

    async def drive(self) -> Move:
        assert self.journal is not None
        self.journal = resume(self.journal, self.now)
        return await self.mover().run(self.journal, LIMITS, poll_period=1.0)

    def mover(self) -> Mover:
        return Mover(
            server=self,
            read_swarm=self.read,
            save=self.save,
            clock=lambda: self.now + self.clock_is_ahead,
            steady=lambda: self.now,
            wait=self.wait,
        )


def planned() -> Move:
    return Move(id="m", peer_id="p", origin=ORIGIN, target=TARGET, reason="r", started_at=0, step_since=0)


def world(**changes: object) -> SimulatedWorld:
    made = SimulatedWorld(**changes)  # type: ignore[arg-type] # any field of it
    # As if the sidecar had just begun: a planned move that is taken up again is rolled back.
    made.journal = planned().model_copy(update={"step": MoveStep.REQUESTED})
    return made


async def drive_new(made: SimulatedWorld) -> Move:
    return await made.mover().run(planned(), LIMITS, poll_period=1.0)


async def test_every_step_is_written_down_before_it_is_taken() -> None:
    made = SimulatedWorld()
    final = await drive_new(made)
    assert final.step is MoveStep.DONE
    assert made.journal == final
    told = [entry for entry in made.log if entry.startswith(("save", "restart"))]
    assert told == ["save requested", "restart 4:8", "save requested", "save verifying", "save done"]


async def test_a_failed_load_goes_back_once() -> None:
    made = SimulatedWorld(loads_fail=True)
    final = await drive_new(made)
    assert final.step is MoveStep.FELL_BACK
    assert "out of memory" in str(final.error)
    assert made.server.accepted == ("m", "m-back")
    assert made.server.span == ORIGIN


async def test_a_refused_move_is_abandoned() -> None:
    made = world(server=SimulatedServer(span=None, state=ServerPhase.IDLE))
    final = await made.drive()
    assert final.step in {MoveStep.ABANDONED, MoveStep.FAILED}
    assert made.server.accepted == ()


async def test_without_a_journal_nothing_is_told_to_the_server() -> None:
    made = SimulatedWorld(journal_fails=True, kill_at=50)
    with pytest.raises(Killed):
        await drive_new(made)
    assert made.server.accepted == ()


async def test_a_server_that_never_answers_again_ends_the_move() -> None:
    made = world(reachable=False)
    assert (await made.drive()).step is MoveStep.FAILED


@pytest.mark.parametrize("jump", [-1e6, -500.0, 500.0, 1e6])
async def test_a_clock_that_is_set_at_any_moment_makes_no_good_move_go_back(jump: float) -> None:
    undisturbed = SimulatedWorld()
    outage = (await drive_new(undisturbed)).outage_seconds
    assert outage
    for jump_at in range(1, undisturbed.operations):
        made = SimulatedWorld(clock_jumps={jump_at: jump, jump_at + 3: 0.0})
        final = await drive_new(made)
        # A plan that looks old is not begun; what was begun is not undone.
        assert final.step is (MoveStep.DONE if made.server.accepted else MoveStep.ABANDONED)
        assert made.server.accepted in (("m",), ())
        assert final.outage_seconds == (outage if made.server.accepted else None)


async def test_a_span_that_the_dht_never_shows_is_given_back() -> None:
    made = world(announces=False)
    final = await made.drive()
    assert made.server.accepted == ("m", "m-back")
    assert final.step is MoveStep.FAILED
    assert made.server.span == ORIGIN


@pytest.mark.parametrize("loads_fail", [False, True], ids=["loads", "fails-to-load"])
async def test_a_kill_at_every_operation_is_survived(loads_fail: bool) -> None:  # noqa: FBT001 - a parameter
    undisturbed = SimulatedWorld(loads_fail=loads_fail)
    expected = (await drive_new(undisturbed)).step
    killed = 0
    for kill_at in range(1, undisturbed.operations + 1):
        made = SimulatedWorld(loads_fail=loads_fail, journal=planned(), kill_at=kill_at)
        with pytest.raises(Killed):
            await drive_new(made)
        killed += 1
        made.kill_at = None
        final = await made.drive()
        assert final.step in FINAL_STEPS
        assert final == made.journal
        if made.server.accepted:
            assert final.step is expected
            assert made.server.accepted == undisturbed.server.accepted
        else:
            assert final.step is MoveStep.ABANDONED
            assert made.server.span == ORIGIN
    assert killed > 10
