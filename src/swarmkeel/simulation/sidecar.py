"""A simulated sidecar: production decisions, guards, claims and moves, driven by simulated time.

Its memory is lost when it is killed; its journal (moves and how far they have come) is not. Both are kept apart here as
in the daemon, so that a sidecar that comes back resumes as the daemon does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Final

from swarmkeel.balance.decision import Decision, Verdict
from swarmkeel.balance.policy import OwnServer
from swarmkeel.daemon.claiming import (
    ClaimAction,
    ClaimSettings,
    ClaimState,
    ClaimStep,
    Prefetch,
    apply_claim,
    count_moving,
    next_step,
    step_under_way,
)
from swarmkeel.daemon.guard import GuardSettings, GuardView, apply_guards, movable_at
from swarmkeel.daemon.move import Announcement, Move, MoveLimits, MoveStep, Observation, advance, resume
from swarmkeel.daemon.own_server import own_server
from swarmkeel.simulation.dht import Dht, Reading
from swarmkeel.simulation.events import EventQueue
from swarmkeel.simulation.eyes import Decider, Eyes, staying
from swarmkeel.simulation.scenario import Scenario, SidecarPart
from swarmkeel.simulation.server import Phase, SimulatedServer
from swarmkeel.simulation.staging import SimulatedStaging
from swarmkeel.simulation.truth import Truth
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.sidecar_record import MAX_LOAD_SECONDS

EPOCH: Final = 1_000_000.0
"""What a true clock shows at the beginning of a run."""
_MOVES_KEPT: Final = 40
_ROUNDING: Final = 1e-3
_SECONDS_PER_DAY: Final = 86_400.0
_LIMITS: Final = MoveLimits(request_timeout=120.0, restart_timeout=3600.0, verify_timeout=300.0)


@dataclass(slots=True)
class ClaimCounts:
    """Claims of all sidecars of a run.

    Attributes:
        made: Claims published.
        lost: Claims withdrawn before their move began.
    """

    made: int = 0
    lost: int = 0


@dataclass(slots=True)
class _Memory:
    """What a sidecar forgets when it is killed."""

    claim: ClaimState
    wishes: int = 0
    span_since: float | None = None


def guard_settings(world: SidecarPart, *, makes_claims: bool) -> GuardSettings:
    """Give the limits of the guards, as the daemon has them."""
    return GuardSettings(
        cooldown=world.cooldown,
        minimum_uptime=world.minimum_uptime,
        moves_per_day=world.moves_per_day,
        confirmations=1 if makes_claims else world.confirmations,
        breaker_base=1800.0,
        breaker_max=86400.0,
    )


class SimulatedSidecar:
    """Runs beside one server.

    Args:
        server: The server.
        scenario: The world.
        total_blocks: Blocks of the model.
        decider: The policy.
        makes_claims: Whether the policy tells others of a move before it is made.
        queue: Simulated time.
        dht: What it reads and writes.
        truth: Is told what it is about to do.
        counts: Counts claims.
        draw: Its own source of randomness.
    """

    def __init__(
        self,
        server: SimulatedServer,
        scenario: Scenario,
        total_blocks: int,
        *,
        decider: Decider,
        makes_claims: bool,
        queue: EventQueue,
        dht: Dht,
        truth: Truth,
        counts: ClaimCounts,
        draw: Random,
    ) -> None:
        self._server = server
        self._world = scenario.sidecars
        self._read_delay = scenario.dht.read_delay
        self._total_blocks = total_blocks
        self._decider = decider
        self._makes_claims = makes_claims
        self._queue = queue
        self._dht = dht
        self._truth = truth
        self._counts = counts
        self._draw = draw
        self._guards = guard_settings(scenario.sidecars, makes_claims=makes_claims)
        self._claims = ClaimSettings(lifetime=scenario.sidecars.claim_lifetime, prefetch_poll=15.0)
        self._memory = _Memory(ClaimState())
        self._staging = SimulatedStaging(server, decider, total_blocks, enabled=scenario.sidecars.staging)
        self._journal: list[Move] = []  # the last one may be under way
        self._seen: Reading | None = None
        self._told: Sidecar | None = None
        self._told_at = 0.0
        self._process = 0  # counts lives of the sidecar, so that what a former one planned does not happen
        self._plan_number = 0  # counts planned checks, so that only the newest one happens
        self._is_up = False
        self._move_count = 0
        server.on_change = self._server_changed

    # Its process.

    def start(self) -> None:
        """Begin."""
        self._boot()
        rate = self._world.crashes_per_day / _SECONDS_PER_DAY
        if rate:
            self._queue.after(self._draw.expovariate(rate), self._killed_by_chance)

    def _boot(self) -> None:
        if self._server.phase is Phase.GONE:
            return
        self._is_up = True
        self._memory = _Memory(ClaimState())
        self._staging.forget()
        self._seen = None
        if self._server.is_serving:
            self._memory.span_since = self._now()
        self._tell_again()
        move = self._move_under_way()
        if move is not None:
            self._save(resume(move, self._now()))
            self._memory.claim = ClaimState()
        if self._move_under_way() is not None:
            self._poll(self._process)
        else:
            self._check_after(self._draw.uniform(0.0, 5.0))

    def _killed_by_chance(self) -> None:
        if self._server.phase is Phase.GONE:
            return
        self.kill()
        rate = self._world.crashes_per_day / _SECONDS_PER_DAY
        self._queue.after(self._draw.expovariate(rate), self._killed_by_chance)

    def kill(self) -> None:
        """Kill the sidecar; it is started again after a while."""
        if self._is_up:
            self._is_up = False
            self._process += 1
            self._truth.intends(self._server.peer_id, None)
            self._queue.after(self._world.restart_after, self._boot)

    def _now(self) -> float:
        return EPOCH + self._queue.now + self._server.fate.clock_offset

    def _server_changed(self) -> None:
        if self._server.phase is Phase.GONE:
            self._is_up = False
            self._process += 1
        elif self._is_up:
            self._memory.span_since = self._now() if self._server.is_serving else None

    # What it tells others.

    def _record(self, own: OwnServer) -> Sidecar:
        """Give what it tells of its server now, without a claim."""
        until = movable_at(self._guard_view(0, 0, 0), self._guards)
        told = None if self._told is None else self._told.movable_at
        if until is not None and told is not None and (abs(until - told) < 1.0 or max(until, told) <= self._now()):
            until = told  # the same moment, computed anew, or both have passed: nothing new
        return Sidecar(
            own.peer_id,
            until,
            min(own.load_seconds, MAX_LOAD_SECONDS),
            own.shapes,
            fetch_seconds=min(own.fetch_seconds, MAX_LOAD_SECONDS),
            arrives_at=self._arrives_at(own),
        )

    def _arrives_at(self, own: OwnServer) -> float | None:
        move, claim = self._move_under_way(), self._memory.claim.claim
        if move is not None:
            return move.started_at + own.seconds_to(move.target, has_weights=move.staged)
        return None if claim is None else claim.made_at + own.seconds_to(claim.target)

    def _tell(self, record: Sidecar, claim: Claim | None = None) -> None:
        self._told = record
        self._told_at = self._queue.now
        world = self._world
        lost = self._draw.random() < world.lost_claim_share
        late = self._draw.random() < world.late_claim_share
        if not lost:
            told = record if claim is None else replace(record, shapes=(), claim=claim)
            self._dht.tell(told, lifetime=world.expiration, extra_delay=world.late_seconds if late else 0.0)

    def _tell_again(self) -> None:
        self._tell(self._record(self._own()), self._memory.claim.claim)

    # Checks.

    def _check_after(self, seconds: float) -> None:
        self._plan_number += 1
        self._queue.after(seconds, partial(self._check, self._process, self._plan_number))

    def _check(self, process: int, number: int) -> None:
        if process != self._process or number != self._plan_number or not self._is_up:
            return
        jitter = self._world.check_jitter
        period = self._world.check_period * self._draw.uniform(1 - jitter, 1 + jitter)
        if self._server.phase not in (Phase.SERVING, Phase.IDLE):
            self._tell_again()
            self._check_after(period)
            return
        wait = self._decide()
        if wait is not None:
            self._check_after(min(wait, period))

    def _own(self) -> OwnServer:
        status = self._server.status()
        assert status is not None  # noqa: S101 - nobody asks once it is gone
        return own_server(
            status,
            self._journal,
            claim=self._memory.claim.standing(self._claims),
            assumed_load_seconds=self._world.assumed_load,
        )

    def _eyes(self) -> Eyes:
        former = self._seen
        reading = self._dht.read(self._draw, not_before=former.read_at if former is not None else -1.0)
        self._seen = reading = reading.remembering(former)
        return Eyes(reading, self._dht.read_sidecars(reading), self._total_blocks, self._now())

    def _decide(self) -> float | None:
        """Make one check. Gives the seconds until the next at the latest; None if a move has begun."""
        own, eyes, memory = self._own(), self._eyes(), self._memory
        seed = self._draw.getrandbits(32)
        record = self._record(own)
        self._tell(record, memory.claim.claim)
        is_known = own.span is None or eyes.shows(own.peer_id, own.span, ServerState.JOINING, ServerState.ONLINE)
        wanted: Decision | None
        if not eyes.is_good_enough(own) or not is_known:
            wanted = staying(own, Verdict.INSUFFICIENT_INFORMATION)
        else:
            wanted = self._decider.decide(eyes, own, record, seed)
        self._staging.follow(wanted or staying(own, Verdict.BALANCED), eyes, own, record)
        if wanted is None or wanted.verdict is not Verdict.MOVING:
            memory.wishes = 0
            if memory.claim.claim is None:
                return self._world.check_period * 2
        decision = wanted or staying(own, Verdict.BALANCED)
        if decision.verdict is Verdict.MOVING:
            spans, told = eyes.reading.servers.entries, eyes.plausible().entries
            moving = count_moving(spans, told, own, now=eyes.now) if self._makes_claims else 0
            memory.wishes += 1
            view = self._guard_view(memory.wishes, len(spans), moving)
            decision = apply_guards(decision, view, self._guards, dry_run=False)
        if not self._makes_claims:
            if decision.verdict is not Verdict.MOVING:
                return self._world.check_period * 2
            self._begin(decision)
            return None
        step = next_step(
            decision,
            memory.claim,
            own=own,
            now=eyes.now,
            can_prefetch=self._world.prefetch and own.span is not None,
            settings=self._claims,
            asked_at=eyes.now - self._read_delay,
        )
        return self._follow(apply_claim(decision, step), step)

    def _guard_view(self, confirmations: int, servers: int, others_moving: int) -> GuardView:
        status = self._server.status()
        restart = status.restart if status is not None else None
        return GuardView.model_construct(
            now=self._now(),
            server_state=status.state.value if status is not None else "stopping",
            running_restart=restart.id if restart is not None and not restart.phase.is_final else None,
            pinned=False,
            span_since=self._memory.span_since,
            moves=tuple(self._journal),
            confirmations=confirmations,
            servers=servers,
            others_moving=others_moving,
        )

    # Claims.

    def _follow(self, decision: Decision, step: ClaimStep) -> float | None:
        memory = self._memory
        former = memory.claim.claim
        memory.claim = step.state
        claim = step.state.claim
        match step.action:
            case ClaimAction.PUBLISH:
                self._counts.made += 1
                self._counts.lost += former is not None
                self._tell_again()
                memory.claim = memory.claim.published(self._now())
            case ClaimAction.WITHDRAW:
                self._counts.lost += 1
                self._tell_again()
            case ClaimAction.EXTEND:
                self._tell_again()
            case ClaimAction.PREFETCH:
                self._tell_again()
                assert claim is not None  # noqa: S101 - its weights are to be fetched
                self._server.prefetch(claim.target, partial(self._fetched, self._process, claim.made_at))
            case ClaimAction.GO:
                self._tell_again()
                self._begin(decision)
                return None
            case ClaimAction.NOTHING | ClaimAction.WAIT:
                pass
        self._truth.intends(self._server.peer_id, claim.target if claim is not None else None)
        if step.look_again_at is None:
            return self._world.check_period * 2
        # A simulated check happens when its reading ends; what is due is that one begins.
        return step.look_again_at - self._now() + self._read_delay + _ROUNDING

    def _fetched(self, process: int, made_at: float) -> None:
        claim = self._memory.claim.claim
        if process != self._process or claim is None or claim.made_at != made_at or not self._is_up:
            return
        self._memory.claim = self._memory.claim.with_prefetch(Prefetch.DONE)
        self._check_after(0.0)

    # Moves.

    def _move_under_way(self) -> Move | None:
        return self._journal[-1] if self._journal and not self._journal[-1].is_final else None

    def _save(self, move: Move) -> None:
        """Write a move down, as the journal does before anything is done about it."""
        if self._journal and self._journal[-1].id == move.id:
            self._journal[-1] = move
        else:
            self._journal.append(move)
            del self._journal[:-_MOVES_KEPT]

    def _begin(self, decision: Decision) -> None:
        assert decision.target is not None  # noqa: S101 - nothing else is begun
        staged = self._memory.claim.prefetch is Prefetch.DONE
        self._memory.claim = self._memory.claim.begun()
        self._memory.wishes = 0
        self._move_count += 1
        now = self._now()
        move = Move(
            id=f"{self._server.peer_id}-{self._move_count}",
            peer_id=self._server.peer_id,
            origin=decision.own_span,
            target=decision.target,
            reason="simulated",
            started_at=now,
            step_since=now,
            staged=staged,
        )
        self._save(move)
        if not self._killed_at_step():
            self._poll(self._process)

    def _killed_at_step(self) -> bool:
        """Draw whether the sidecar dies right after it has written a step down, before it acts."""
        if self._draw.random() >= self._world.crash_at_step_share:
            return False
        self.kill()
        return True

    def _poll(self, process: int) -> None:
        move = self._move_under_way()
        if process != self._process or not self._is_up or move is None:
            return
        if self._server.phase is Phase.GONE:
            return
        seen, shown = self._observe(move)
        transition = advance(move, seen, _LIMITS)
        if transition.move is not move:
            self._save(transition.move)
            if transition.move.step is not move.step and self._killed_at_step():
                return
        if transition.request is not None:
            self._server.restart(transition.request)
        is_over = transition.move.is_final
        step = step_under_way(
            self._memory.claim, is_visible=shown, is_over=is_over, now=self._now(), settings=self._claims
        )
        self._memory.claim = step.state
        is_due = self._queue.now - self._told_at >= self._world.update_period
        if is_due or step.action in (ClaimAction.WITHDRAW, ClaimAction.EXTEND):
            self._tell_again()
        if not is_over:
            self._queue.after(self._world.poll_period, partial(self._poll, process))
            return
        self._tell_again()
        self._check_after(self._draw.uniform(0.5, 1.0) * self._world.check_period)

    def _observe(self, move: Move) -> tuple[Observation, bool]:
        """Look at the server, and at the DHT where something is verified there or a claim is out."""
        status = self._server.status()
        announcement, shown = Announcement.NOT_READ, False
        span = None
        if move.step is MoveStep.VERIFYING:
            span = move.target
        elif move.step is MoveStep.VERIFYING_FALLBACK:
            span = move.origin
        if span is not None or self._memory.claim.claim is not None:
            eyes = self._eyes()
            shown = eyes.shows(move.peer_id, move.target, ServerState.JOINING, ServerState.ONLINE)
            if span is not None:
                if eyes.shows(move.peer_id, span, ServerState.ONLINE):
                    announcement = Announcement.ONLINE
                elif not any(block in eyes.reading.lost for block in range(span.start, span.end)):
                    announcement = Announcement.MISSING
        return Observation(now=self._now(), status=status, announcement=announcement), shown
