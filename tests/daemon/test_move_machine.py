"""The move's state machine, and the life around it, explored without an end in sight of any sampling.

First the machine alone: every reachable state under every observation that anyone could make up, a liar too, with an
interruption after each. That set is finite and explored to its end, so what holds there holds for sequences of any length.
Then a whole life: checks by the real policies, guards and claims, moves, a server with every freedom, a DHT that lags,
time, and a kill of the sidecar at every operation: every sequence up to a depth, one for all lives that differ in nothing
that a deadline tells apart.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from swarmkeel.balance.decision import Decision, Reason, Verdict
from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import Policy, Situation
from swarmkeel.config import (
    BalanceSection,
    ClaimsSection,
    Config,
    GuardsSection,
    JournalSection,
    MoveSection,
    ServerSection,
    SwarmSection,
)
from swarmkeel.control.protocol import RestartPhase, RestartRequest, RestartStatus, ServerPhase, ServerStatus
from swarmkeel.daemon import check as check_module
from swarmkeel.daemon.check import Outcome, Past, Reading, decide_check, guard_settings, move_limits, plan_move
from swarmkeel.daemon.claiming import ClaimAction, ClaimState, is_emergency
from swarmkeel.daemon.guard import SECONDS_PER_DAY, GuardSettings, GuardView, apply_guards
from swarmkeel.daemon.move import (
    FINAL_STEPS,
    Announcement,
    Move,
    MoveLimits,
    MoveStep,
    Observation,
    Refusal,
    Transition,
    advance,
    resume,
)
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span
from tests.support.ledger import Finding, note
from tests.support.simulated_server import ORIGIN, TARGET, SimulatedServer

SEARCH: Final = "any sequence of events"

# ---------------------------------------------------------------- the machine alone

LIMITS = MoveLimits(request_timeout=10, verify_timeout=50, restart_timeout=100)
WAITS: Final = (0.0, 11.0, 51.0, 101.0, 201.0)
"""One between each two deadlines: 10, 50, 100 and 4 times 50."""
ELSEWHERE: Final = Span(2, 6)
MINE, BACK, FOREIGN = "m", "m-back", "x"


def planned(origin: Span | None = ORIGIN) -> Move:
    return Move(id=MINE, peer_id="p", origin=origin, target=TARGET, reason="r", started_at=0, step_since=0)


def every_status() -> Iterator[ServerStatus | None]:
    """All that may stand at the control socket, be it true or not."""
    yield None
    phases = (RestartPhase.LOADING, RestartPhase.ONLINE, RestartPhase.FAILED)
    restarts = [None, *(RestartStatus(i, TARGET, phase) for i, phase in product((MINE, BACK, FOREIGN), phases))]
    for state, span, restart in product(ServerPhase, (None, ORIGIN, TARGET, ELSEWHERE), restarts):
        yield ServerStatus("any/1", "p", "m", 8, 4, 1.0, state, span, restart=restart)
    for peer_id, state, span in product((None, "q"), ServerPhase, (None, ORIGIN, TARGET)):
        yield ServerStatus("any/1", peer_id, "m", 8, 4, 1.0, state, span)


def every_observation(move: Move) -> Iterator[Observation]:
    for status, refusal, shown, waited in product(
        tuple(every_status()), (None, Refusal(409, "no")), Announcement, WAITS
    ):
        yield Observation(move.step_since + waited, status, refusal, shown, waited)


def state_of(move: Move) -> tuple[MoveStep, bool]:
    return move.step, move.acknowledged


def check_request(move: Move, seen: Observation, request: RestartRequest) -> None:
    assert seen.status is not None
    assert seen.status.peer_id in (None, move.peer_id)
    assert seen.status.restart is None or seen.status.restart.phase.is_final
    assert request.if_span == seen.status.span
    if request.id == MINE:
        assert move.step is MoveStep.REQUESTED
        assert request.span == move.target
        assert request.span != seen.status.span
        assert request.if_span == move.origin
    else:
        assert request.id == BACK
        assert move.step is MoveStep.FALLING_BACK
        assert request.span == move.origin


def check_step(before: Move, seen: Observation, transition: Transition) -> None:
    after, status = transition.move, seen.status
    fixed = ("id", "peer_id", "origin", "target", "reason", "started_at")
    assert all(getattr(after, name) == getattr(before, name) for name in fixed)
    if before.is_final:
        assert transition == Transition(before)
        return
    if transition.request is not None:
        check_request(after, seen, transition.request)
    match after.step:
        case MoveStep.DONE | MoveStep.FELL_BACK:
            assert status is not None
            assert (status.state, status.span) == (
                ServerPhase.ONLINE,
                after.target if after.step is MoveStep.DONE else after.origin,
            )
            assert seen.announcement is Announcement.ONLINE
        case MoveStep.ABANDONED:
            # Nothing shows that the server has begun on it.
            assert not before.acknowledged
            assert before.step in (MoveStep.PLANNED, MoveStep.REQUESTED)
    assert (after.error is None) == (after.step in set(MoveStep) - FINAL_STEPS - FALLBACK | {MoveStep.DONE})
    if max(WAITS) == seen.waited:
        assert after.step is not before.step, "a move that nobody waits for any longer must go on"


FALLBACK: Final = frozenset({MoveStep.FALLING_BACK, MoveStep.VERIFYING_FALLBACK, MoveStep.FELL_BACK})


@pytest.mark.parametrize("origin", [ORIGIN, None], ids=["move", "first-placement"])
def test_no_observation_that_anyone_could_make_up_breaks_the_machine(origin: Span | None) -> None:
    start = planned(origin)
    known, queue = {state_of(start): start}, deque([start])
    edges: dict[tuple[MoveStep, bool], set[tuple[MoveStep, bool]]] = {}
    explored = 0
    while queue:
        move = queue.popleft()
        following = edges.setdefault(state_of(move), set())
        for seen in every_observation(move):
            transition = advance(move, seen, LIMITS)
            check_step(move, seen, transition)
            # Killed before this was written down, after it, and after it was acted on.
            interrupted = [resume(state, seen.now) for state in (move, transition.move)]
            for after in (transition.move, *interrupted):
                explored += 1
                following.add(state_of(after))
                if state_of(after) not in known:
                    known[state_of(after)] = after
                    queue.append(after)
    reached = {step for step, _ in known}
    assert reached == set(MoveStep) - (FALLBACK if origin is None else set())
    assert explored > 50_000
    # Without a way round nothing is done twice: one request for the target, one fallback, whatever is seen and however
    # often the sidecar is killed.
    assert longest_way(edges, state_of(start)) <= len(MoveStep)
    note(Finding(SEARCH, explored, "nothing else", moves=1))


def longest_way(edges: dict[tuple[MoveStep, bool], set[tuple[MoveStep, bool]]], start: tuple[MoveStep, bool]) -> int:
    """Count the states on the longest way; fails if there is a way round."""

    def follow(state: tuple[MoveStep, bool], passed: frozenset[tuple[MoveStep, bool]]) -> int:
        assert state not in passed, f"the machine comes back to {state}"
        onward = edges.get(state, set()) - {state}
        return 1 + max((follow(after, passed | {state}) for after in onward), default=0)

    return follow(start, frozenset())


# ---------------------------------------------------------------- a whole life

TOTAL: Final = 8
HALF: Final = Span(2, 6)
"""Keys that a check could not read."""
PASSING: Final = (1.0, 60.0, 5000.0)
"""Seconds before an event: a look later, after the short deadlines, after cooldown and breaker."""
OTHERS: Final = {
    "hole": (ORIGIN,),
    "thin": (ORIGIN, ORIGIN, TARGET),
    "sole": (TARGET, TARGET),
}
"""Where the others are: a hole at the target; a target that is only thin; nobody but the own server at its place."""


def life_config(policy: str) -> Config:
    return Config(
        swarm=SwarmSection(dht_prefix="m", total_blocks=TOTAL, initial_peers=("/ip4/127.0.0.1/tcp/1/p2p/Q",)),
        server=ServerSection(socket=Path("/s")),
        journal=JournalSection(path=Path("/j")),
        balance=BalanceSection(policy=policy, load_seconds=1),
        guards=GuardsSection(
            cooldown=1000, minimum_uptime=30, moves_per_day=3, confirmations=1, breaker_base=2000, breaker_max=16000
        ),
        claims=ClaimsSection(settle=0.5, lifetime=600),
        move=MoveSection(drain=0, poll_period=1, request_timeout=10, restart_timeout=50, verify_timeout=20),
    )


@dataclass(frozen=True)
class Life:
    """A server and its sidecar at one moment.

    Attributes:
        server: The server as it is.
        announced: What the DHT shows of it; None for nothing.
        others: Where other servers are.
        moves: The journal's.
        claim: What the process of the sidecar remembers of its claim.
        served_since: Since when it knows the server to serve.
        refusal: The server's last no, as the process remembers it.
        now: The time.
        deaths: How often the server's process was another one.
    """

    others: tuple[Span, ...]
    server: SimulatedServer = field(default_factory=SimulatedServer)
    announced: tuple[ServerState, Span] | None = (ServerState.ONLINE, ORIGIN)
    moves: tuple[Move, ...] = ()
    claim: ClaimState = field(default_factory=ClaimState)
    served_since: float | None = 0.0
    refusal: Refusal | None = None
    now: float = 1000.0
    deaths: int = 0

    @property
    def under_way(self) -> Move | None:
        return next((move for move in self.moves if not move.is_final), None)

    @property
    def is_shown_truly(self) -> bool:
        return self.announced == announcement_of(self.server)

    def saved(self, move: Move) -> Life:
        others = tuple(known for known in self.moves if known.id != move.id)
        return replace(self, moves=(*others, move))

    def killed(self) -> Life:
        """The sidecar's process ends, and another one takes up what the journal holds."""
        fresh = replace(self, claim=ClaimState(), served_since=None, refusal=None)
        return fresh if fresh.under_way is None else fresh.saved(resume(fresh.under_way, self.now))


def announcement_of(server: SimulatedServer) -> tuple[ServerState, Span] | None:
    states = {ServerPhase.ONLINE: ServerState.ONLINE, ServerPhase.JOINING: ServerState.JOINING}
    if server.span is None or server.state not in states:
        return None
    return states[server.state], server.span


@cache
def snapshot_of(
    others: tuple[Span, ...], announced: tuple[ServerState, Span] | None, unread: Span | None = None
) -> SwarmSnapshot:
    """What the DHT shows; as fresh as can be, whenever it is looked at."""
    servers = {f"o{n}": (ServerState.ONLINE, span) for n, span in enumerate(others)}
    if announced is not None:
        servers["p"] = announced
    blocks = []
    for block in range(TOTAL):
        if unread is not None and unread.start <= block < unread.end:
            blocks.append(BlockReading(f"m.{block}", KeyReading.UNKNOWN, {}))
            continue
        infos = {
            peer_id: ServerInfo(state, 1.0, start_block=span.start, end_block=span.end)
            for peer_id, (state, span) in servers.items()
            if span.start <= block < span.end
        }
        blocks.append(BlockReading(f"m.{block}", KeyReading.OK if infos else KeyReading.ABSENT, infos))
    return SwarmSnapshot("m", 0, tuple(blocks), read_at=1e12)


class RememberingPolicy:
    """A policy that decides the same situation once: its decisions do not depend on the time while nobody else claims."""

    def __init__(self, policy: Policy) -> None:
        self.name = policy.name
        self._policy = policy
        self._decided: dict[tuple[object, ...], Decision] = {}

    def decide(self, situation: Situation) -> Decision:
        own = situation.own
        known = (situation.snapshot.digest, own.span, own.load_seconds, own.claim and own.claim.target)
        if known not in self._decided:
            self._decided[known] = self._policy.decide(situation)
        return self._decided[known]


def check(life: Life, config: Config, snapshot: SwarmSnapshot | None, status: ServerStatus | None) -> Outcome:
    reading = Reading(snapshot, None, status, None, asked_at=life.now)
    past = Past(life.moves, life.under_way, life.served_since, wishes=1, claim=life.claim)
    return decide_check(config, reading, past, now=life.now, seed=0, numbers=None)


def happenings(life: Life) -> Iterator[Life]:
    """All that may happen before the sidecar looks again: time passes, records spread, the server goes its way."""
    for passed in PASSING:
        yield replace(life, now=life.now + passed)
    soon = replace(life, now=life.now + PASSING[0])
    if not life.is_shown_truly:
        yield replace(soon, announced=announcement_of(life.server))
    for server in life.server.own_steps():
        if server != life.server:
            died = server.restart is None and life.server.restart is not None
            yield replace(soon, server=server, deaths=life.deaths + died)
            yield replace(soon, server=server, deaths=life.deaths + died, announced=announcement_of(server))


@dataclass
class Explorer:
    """Goes through lives breadth first, and looks at each."""

    config: Config
    depth: int
    guards: GuardSettings = field(init=False)
    limits: MoveLimits = field(init=False)
    transitions: int = 0
    begun: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.guards, self.limits = guard_settings(self.config), move_limits(self.config)

    def after_check(self, life: Life, *, badly: bool) -> Iterator[Life]:
        """A check on what is so; if `badly` also on half of the keys, on none, and with a server that does not answer."""
        status = life.server.status()
        since = life.served_since
        since = None if status.state is not ServerPhase.ONLINE else life.now if since is None else since
        seen_well = replace(life, served_since=since)
        readings: list[tuple[SwarmSnapshot | None, ServerStatus | None]] = [
            (snapshot_of(life.others, life.announced), status)
        ]
        if badly:
            readings += [(snapshot_of(life.others, life.announced, HALF), status), (None, status), (None, None)]
        for snapshot, answer in readings:
            seen = seen_well if answer is not None else life
            outcome = check(seen, self.config, snapshot, answer)
            if outcome.step is not None:
                state = outcome.step.state
                seen = replace(seen, claim=state.published(life.now) if state.claim else state)
                if outcome.step.action is ClaimAction.GO:
                    seen = replace(seen, claim=seen.claim.begun())
            if outcome.decision.verdict is Verdict.MOVING:
                assert snapshot is not None
                assert snapshot.quality(life.now).keys_answered_ratio == 1, "a move on half of the keys"
                seen = self.with_move(seen, outcome)
                yield seen.killed()
            yield seen

    def with_move(self, life: Life, outcome: Outcome) -> Life:
        move = plan_move(outcome.decision, move_id=f"m{len(life.moves)}", drain_seconds=0, now=life.now)
        assert life.under_way is None, "two moves at once"
        assert move.target not in (move.origin, life.server.span), "a move to where the server is"
        if life.is_shown_truly and life.server.span is not None:
            present = covered((*life.others, life.server.span))
            assert covered((*life.others, move.target)) >= present, "a move that uncovers a block"
        self.check_pace(life, urgent=is_emergency(outcome.decision), first=move.origin is None)
        self.begun["first placement" if move.origin is None else "move"] += 1
        return life.saved(move)

    def check_pace(self, life: Life, *, urgent: bool, first: bool) -> None:
        """Whatever crashes how often: after failures the next move waits, each time longer, and a day has its limit."""
        ended = list(life.moves)
        failures = 0
        while ended and ended[-1].step is not MoveStep.DONE:
            failures += 1
            last = ended.pop()
            if failures == 1:
                waited = life.now - last.step_since
        if failures:
            hold = min(self.guards.breaker_base * 2 ** (failures - 1), self.guards.breaker_max)
            assert waited >= hold, "a move although the breaker is open"
        told = [move for move in life.moves if move.was_requested]
        if not first:
            today = [move for move in told if life.now - move.started_at < SECONDS_PER_DAY]
            assert len(today) < self.guards.moves_per_day
        if told and not (first or urgent):
            assert life.now - told[-1].step_since >= self.guards.cooldown

    def after_look(self, life: Life) -> Iterator[Life]:
        """A look of the mover, with the server's answer or without, and a kill at each of its operations."""
        move = life.under_way
        if move is None:
            return
        for status in (life.server.status(), None):
            seen = Observation(life.now, status, life.refusal, self.shown(life, move))
            transition = advance(move, seen, self.limits)
            moved = transition.move.step is not move.step
            saved = replace(life.saved(transition.move), refusal=None if moved else life.refusal)
            if transition.move.is_final:
                saved = replace(saved, claim=ClaimState())
            if transition.request is None:
                yield saved
                yield saved.killed()
                continue
            assert transition.request.span != life.server.span
            yield saved.killed()  # written down, and never sent
            taken, refusal = life.server.take(transition.request)
            sent = replace(saved, server=taken, refusal=refusal)
            yield sent
            yield sent.killed()

    def shown(self, life: Life, move: Move) -> Announcement:
        span = {MoveStep.VERIFYING: move.target, MoveStep.VERIFYING_FALLBACK: move.origin}.get(move.step)
        if span is None:
            return Announcement.NOT_READ
        online = life.announced == (ServerState.ONLINE, span)
        return Announcement.ONLINE if online else Announcement.MISSING

    def successors(self, life: Life) -> Iterator[Life]:
        """Something happens or not, and then the sidecar does what it does next, and may be killed at it."""
        for event in happenings(life):
            yield event.killed()
            if event.under_way is not None:
                yield from self.after_look(event)
            else:
                yield from self.after_check(event, badly=event == replace(life, now=event.now))

    def explore(self, start: Life) -> Counter[MoveStep]:
        known, queue, ends = {self.key(start)}, deque([(start, 0)]), Counter[MoveStep]()
        while queue:
            life, depth = queue.popleft()
            for after in self.successors(life):
                self.transitions += 1
                self.look_at(life, after, ends)
                key = self.key(after)
                if depth + 1 < self.depth and key not in known:
                    known.add(key)
                    queue.append((after, depth + 1))
        return ends

    def look_at(self, before: Life, life: Life, ends: Counter[MoveStep]) -> None:
        assert sum(not move.is_final for move in life.moves) <= 1, "two moves at once"
        took = life.server.accepted
        if len(took) > len(before.server.accepted):
            # One process of the server begins one request once.
            assert took.count(took[-1]) <= 1 + life.deaths
        for move in life.moves:
            if move.is_final and move not in before.moves:
                ends[move.step] += 1
                if move.step is MoveStep.DONE:
                    assert life.server.span == move.target
                if move.step is MoveStep.ABANDONED and not life.deaths:
                    assert move.id not in life.server.accepted

    def key(self, life: Life) -> tuple[object, ...]:
        """What tells lives apart: times only by the deadlines that they have passed."""
        limits, guards = self.limits, self.guards
        deadlines = (limits.request_timeout, limits.verify_timeout, limits.restart_timeout, 4 * limits.verify_timeout)
        deadlines += (guards.minimum_uptime, guards.cooldown, *(guards.breaker_base * 2**n for n in range(4)))

        def age(then: float | None) -> int | None:
            return None if then is None else sum(life.now - then > deadline for deadline in deadlines)

        moves = tuple((m.origin, m.target, m.step, m.acknowledged, age(m.step_since)) for m in life.moves)
        claim = life.claim.claim
        claimed = claim and (claim.target, age(claim.made_at), life.now >= claim.expires_at, life.claim.under_way)
        server = (life.server.span, life.server.state, life.server.restart, life.server.former)
        return (server, life.announced, moves, claimed, age(life.served_since), life.refusal, min(life.deaths, 2))


@cache
def covered(spans: tuple[Span, ...]) -> frozenset[int]:
    return frozenset(block for span in spans for block in range(span.start, span.end))


@pytest.mark.parametrize(
    ("policy", "others", "depth", "ways"),
    [
        ("petals", "hole", 5, 30_000),
        ("petals", "sole", 5, 10_000),
        ("coordinated", "hole", 5, 10_000),
        ("coordinated", "thin", 5, 10_000),
        ("coordinated", "sole", 5, 5_000),
    ],
)
def test_no_sequence_of_events_leads_to_a_wrong_move(
    policy: str, others: str, depth: int, ways: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembering = RememberingPolicy(get_policy(policy))
    monkeypatch.setattr(check_module, "get_policy", lambda _: remembering)
    explorer = Explorer(life_config(policy), depth)
    ends = explorer.explore(Life(OTHERS[others]))
    assert explorer.transitions > ways
    assert ends.keys() >= {MoveStep.DONE, MoveStep.ABANDONED, MoveStep.FAILED}
    # Whoever is the only one on its blocks stays; only a server without blocks is placed.
    assert ("move" in explorer.begun) == (others != "sole")
    assert "first placement" in explorer.begun
    note(Finding(SEARCH, explorer.transitions, "nothing else", sum(explorer.begun.values())))


JUMPS: Final = (0.0, 3600.0, -3600.0, 3 * SECONDS_PER_DAY, -3 * SECONDS_PER_DAY)


def test_a_clock_that_jumps_back_and_forth_lets_one_move_a_jump_through_at_most() -> None:
    settings = guard_settings(life_config("coordinated"))
    reason = Reason(name="imbalance", values={"quality": 0.5, "limit": 0.75})
    wanted = Decision(
        verdict=Verdict.MOVING,
        reasons=(reason,),
        policy="petals",
        peer_id="p",
        own_span=ORIGIN,
        target=TARGET,
        before=None,
        after=None,
        snapshot_digest="d",
        seed=0,
    )
    for jumps in product(JUMPS, repeat=4):
        now, moves = 1e9, list[Move]()
        for jump in jumps:
            now += jump
            for _ in range(3):
                now += 60
                view = GuardView(
                    now=now,
                    server_state="online",
                    running_restart=None,
                    pinned=False,
                    span_since=0.0,
                    moves=tuple(sorted(moves, key=lambda move: move.started_at)),
                    confirmations=1,
                )
                if apply_guards(wanted, view, settings, dry_run=False).verdict is Verdict.MOVING:
                    # Each fails at once.
                    update = {"id": f"m{len(moves)}", "step": MoveStep.FAILED, "started_at": now, "step_since": now}
                    moves.append(planned().model_copy(update=update))
        assert len(moves) <= 1 + sum(jump != 0 for jump in jumps), jumps
