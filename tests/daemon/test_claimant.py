"""What the daemon does about its claim, with a board that only notes and a server that answers as told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarmkeel.balance.decision import Decision, Reason, Verdict
from swarmkeel.control.client import ServerRefused
from swarmkeel.control.protocol import PrefetchPhase, PrefetchRequest, PrefetchStatus, ServerPhase, ServerStatus
from swarmkeel.daemon.check import Outcome
from swarmkeel.daemon.claimant import Claimant
from swarmkeel.daemon.claiming import ClaimAction, ClaimSettings, ClaimState, ClaimStep, Prefetch
from swarmkeel.daemon.move import Move
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.sidecar_board import SidecarBoard
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span

HOME, TARGET = Span(0, 4), Span(4, 8)
CLAIM = Claim(HOME, TARGET, 100.0, 200.0, 10.0)
SETTINGS = ClaimSettings(settle=8, lifetime=100, prefetch_poll=2)
STATUS = ServerStatus("sim/1", "p", "m", 8, 4, 10.0, ServerPhase.ONLINE, HOME, capabilities=("prefetch",))
MOVE = Move(id="m", peer_id="p", origin=HOME, target=TARGET, reason="r", started_at=100.0, step_since=100.0)


class NotingBoard(SidecarBoard):
    """Keeps what it is told instead of a DHT."""

    def __init__(self) -> None:
        super().__init__("m")
        self.told: list[tuple[Sidecar | None, float]] = []

    async def publish(self, node: DhtNode | None, sidecar: Sidecar, lifetime_seconds: float) -> bool:
        assert node is None
        self.told.append((sidecar, lifetime_seconds))
        return True

    async def withdraw(self, node: DhtNode | None, peer_id: str) -> bool:
        assert (node, peer_id) == (None, "p")
        self.told.append((None, 0.0))
        return True

    @property
    def claims(self) -> list[Claim | None]:
        return [None if sidecar is None else sidecar.claim for sidecar, _ in self.told]


class Server:
    """Answers as told."""

    def __init__(self) -> None:
        self.asked: list[PrefetchRequest] = []
        self.phase: PrefetchPhase | None = PrefetchPhase.FETCHING
        self.shown_id: str | None = None
        self.error: SwarmkeelError | None = None
        self._takes_next = False
        self.staging = False
        """It is at another prefetch, and leaves it for no other."""

    def staging_is_over_at_next_request(self) -> None:
        self._takes_next = True

    async def status(self) -> ServerStatus:
        if self.error is not None:
            raise self.error
        if self.phase is None:
            return STATUS
        if self.staging:
            return replace(STATUS, prefetch=PrefetchStatus("staging", TARGET, self.phase))
        shown = self.shown_id or self.asked[-1].id
        return replace(STATUS, prefetch=PrefetchStatus(shown, TARGET, self.phase))

    async def prefetch(self, request: PrefetchRequest) -> ServerStatus:
        self.asked.append(request)
        if self._takes_next:
            self.staging, self.phase = False, PrefetchPhase.FETCHING
        if self.staging:
            raise ServerRefused(409, "busy")
        return await self.status()


class Stage:
    """A claimant and all that is around it, at 100 s."""

    def __init__(self) -> None:
        self.now = 100.0
        self.board = NotingBoard()
        self.server = Server()
        self.claimant = Claimant(board=self.board, node=lambda: None, server=self.server, clock=lambda: self.now)

    async def follow(self, action: ClaimAction, state: ClaimState, look_again_at: float | None = None) -> None:
        decision = Decision(
            verdict=Verdict.HOLDING,
            reasons=(Reason(name="claim_settling"),),
            policy="coordinated",
            peer_id="p",
            own_span=HOME,
            target=TARGET,
            before=None,
            after=None,
            snapshot_digest="",
            seed=0,
        )
        step = ClaimStep(action, state, None, look_again_at)
        outcome = Outcome(decision, None, step, Sidecar("p", 0.0, 60.0))
        await self.claimant.follow(outcome, lifetime_seconds=30.0)

    async def fetch(self) -> None:
        state = ClaimState(claim=CLAIM, published_at=100.0, prefetch=Prefetch.FETCHING, prefetch_since=108.0)
        await self.follow(ClaimAction.PREFETCH, state, self.now + 2)

    async def look(self) -> bool:
        return await self.claimant.look(SETTINGS)


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_a_claim_is_told_for_as_long_as_it_counts_and_its_settling_begins_when_it_is_out(stage: Stage) -> None:
    await stage.follow(ClaimAction.PUBLISH, ClaimState(claim=CLAIM), 108.0)
    assert stage.board.told == [(Sidecar("p", 0.0, 60.0, claim=CLAIM), 100.0)]
    assert stage.claimant.state.published_at == 100.0
    assert stage.claimant.is_pending
    await stage.follow(ClaimAction.WITHDRAW, ClaimState())
    assert stage.board.told[-1] == (Sidecar("p", 0.0, 60.0), 30.0)
    assert not stage.claimant.is_pending
    assert not await stage.look()


async def test_it_is_time_for_a_check_when_the_server_has_the_weights(stage: Stage) -> None:
    await stage.fetch()
    assert [request.span for request in stage.server.asked] == [TARGET]
    stage.now = 101.9
    assert not await stage.look()
    stage.now = 102.0
    assert not await stage.look()  # still fetching
    stage.server.phase = PrefetchPhase.DONE
    assert not await stage.look()  # not asked again before its time
    stage.now = 104.0
    assert await stage.look()
    assert stage.claimant.state.prefetch is Prefetch.DONE
    assert stage.claimant.has_weights
    await stage.follow(ClaimAction.PUBLISH, ClaimState(claim=CLAIM))
    assert not stage.claimant.has_weights


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_weights_that_the_server_cannot_fetch_are_known_at_the_next_look(stage: Stage, when: str) -> None:
    if when == "at once":
        stage.server.error = SwarmkeelError("no", "none")
        await stage.fetch()
    else:
        await stage.fetch()
        stage.server.phase = PrefetchPhase.FAILED
    stage.now = 102.0
    assert await stage.look()
    assert stage.claimant.state.prefetch is Prefetch.FAILED


@pytest.mark.parametrize("shown", [None, "another prefetch"])
async def test_a_server_that_does_not_tell_how_far_it_is_is_not_waited_for(stage: Stage, shown: str | None) -> None:
    if shown is None:
        stage.server.phase = None
    stage.server.shown_id = shown
    await stage.fetch()
    stage.now = 102.0
    assert await stage.look()
    assert stage.claimant.state.prefetch is Prefetch.DONE
    assert not stage.claimant.has_weights


async def test_a_server_that_does_not_leave_what_it_stages_is_asked_again_when_that_is_over(stage: Stage) -> None:
    stage.server.staging = True
    await stage.fetch()
    stage.now = 102.0
    assert not await stage.look()
    assert len(stage.server.asked) == 1  # no use while it fetches
    stage.server.phase = PrefetchPhase.DONE
    stage.server.staging_is_over_at_next_request()
    stage.now = 104.0
    assert not await stage.look()
    assert [request.span for request in stage.server.asked] == [TARGET, TARGET]
    stage.server.phase = PrefetchPhase.DONE
    stage.now = 106.0
    assert await stage.look()
    assert stage.claimant.has_weights


async def test_a_server_that_refuses_while_it_fetches_nothing_is_asked_once_more(stage: Stage) -> None:
    stage.server.staging = True
    await stage.fetch()
    assert len(stage.server.asked) == 1
    stage.server.phase = PrefetchPhase.FAILED
    stage.now = 102.0
    assert await stage.look()
    assert len(stage.server.asked) == 2
    assert stage.claimant.state.prefetch is Prefetch.FAILED


async def test_a_server_that_does_not_answer_is_asked_again(stage: Stage) -> None:
    await stage.fetch()
    stage.server.error = SwarmkeelError("silence", "none")
    stage.now = 102.0
    assert not await stage.look()
    stage.server.error, stage.server.phase = None, PrefetchPhase.DONE
    stage.now = 104.0
    assert await stage.look()


def snapshot_with(start: int) -> SwarmSnapshot:
    joining = ServerInfo(ServerState.JOINING, 10.0, start_block=start, end_block=start + 4)
    blocks = tuple(
        BlockReading(f"m.{index}", KeyReading.OK, {"p": joining} if start <= index < start + 4 else {})
        for index in range(2, 10)
    )
    return SwarmSnapshot("m", 2, blocks, 100.0)


async def test_the_claim_of_a_move_is_kept_until_the_dht_shows_it(stage: Stage) -> None:
    await stage.follow(ClaimAction.GO, ClaimState(claim=CLAIM, published_at=100.0))
    assert stage.claimant.state.under_way
    for seen in (None, snapshot_with(2)):
        await stage.claimant.follow_move(seen, MOVE, SETTINGS, lifetime_seconds=30.0)
    assert stage.board.claims == [CLAIM, CLAIM, CLAIM]
    await stage.claimant.close()
    assert stage.board.claims == [CLAIM, CLAIM, CLAIM]  # the move goes on without the sidecar
    await stage.claimant.follow_move(snapshot_with(4), MOVE, SETTINGS, lifetime_seconds=30.0)
    assert stage.board.claims[-1] is None
    assert not stage.claimant.state.under_way


async def test_after_a_move_others_are_told_of_the_cooldown(stage: Stage) -> None:
    await stage.follow(ClaimAction.GO, ClaimState(claim=CLAIM, published_at=100.0))
    stage.now = 150.0
    await stage.claimant.move_over(SETTINGS, lifetime_seconds=30.0, cooldown=1200.0)
    assert stage.board.told[-1] == (Sidecar("p", 1350.0, 60.0), 30.0)


async def test_at_the_end_all_is_taken_off_the_board_once(stage: Stage) -> None:
    await stage.claimant.close()
    assert stage.board.told == []
    await stage.follow(ClaimAction.PUBLISH, ClaimState(claim=CLAIM), 108.0)
    await stage.claimant.close()
    await stage.claimant.close()
    assert stage.board.claims == [CLAIM, None]
    assert stage.claimant.state == ClaimState()
