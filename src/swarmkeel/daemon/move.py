"""A move of the own server as a persisted state machine: pure transitions, no I/O.

`advance` takes the move as it was last written down and what is seen now, and gives the next state and what to do. The
driver (`daemon.mover`) writes the state down before it acts, so that a crash at any point is resumed here: every
action can be repeated (the control protocol makes restarts idempotent by their id), and a move that was planned but
never requested is rolled back, since what it rested on is no longer known.

    planned -> requested -> verifying -> done
                   |            |
                   +--> falling_back -> verifying_fallback -> fell_back
                   |            |               |
    abandoned <----+            +----> failed <-+
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from swarmkeel.control.protocol import RestartPhase, RestartRequest, ServerPhase, ServerStatus
from swarmkeel.swarm.span import Span


class MoveStep(StrEnum):
    """How far a move has come."""

    PLANNED = "planned"
    """Written down; the server was told nothing."""
    REQUESTED = "requested"
    """The server may have been told to serve the target."""
    VERIFYING = "verifying"
    """The server says that it serves the target; the DHT must show it."""
    FALLING_BACK = "falling_back"
    """The server may have been told to serve its former span again."""
    VERIFYING_FALLBACK = "verifying_fallback"
    """The server says that it serves its former span; the DHT must show it."""
    DONE = "done"
    """The DHT shows the target ONLINE."""
    ABANDONED = "abandoned"
    """Given up before the server did anything."""
    FELL_BACK = "fell_back"
    """The target failed; the DHT shows the former span ONLINE."""
    FAILED = "failed"
    """The target failed, and the former span too or nobody knows."""


FINAL_STEPS: Final = frozenset({MoveStep.DONE, MoveStep.ABANDONED, MoveStep.FELL_BACK, MoveStep.FAILED})


class Move(BaseModel):
    """One move of the own server.

    Attributes:
        id: Unique; also the id of the restart request.
        peer_id: The server.
        origin: The span that it leaves; None for its first placement.
        target: The span that it is to serve.
        reason: Why, in words.
        drain_seconds: How long open sessions may go on.
        predicted_gain_rps: By how much the bottleneck should rise.
        bottleneck_before_rps: The bottleneck when the move was decided.
        started_at: When it was planned, seconds since the epoch.
        step: How far it has come.
        step_since: When it came to that step, seconds since the epoch.
        acknowledged: Whether the server is known to have taken the request of the present step.
        error: What went wrong; None while nothing did.
        realised_gain_rps: By how much the bottleneck did rise; None until the move is done.
        staged: Whether the weights had been fetched before.
        requested_at: When the server was first told, seconds since the epoch; None until then.
        served_at: When it was seen to serve the target; None until then.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    peer_id: str
    origin: Span | None
    target: Span
    reason: str
    drain_seconds: float = 0.0
    predicted_gain_rps: float = 0.0
    bottleneck_before_rps: float = 0.0
    started_at: float
    step: MoveStep = MoveStep.PLANNED
    step_since: float
    acknowledged: bool = False
    error: str | None = None
    realised_gain_rps: float | None = None
    staged: bool = False
    requested_at: float | None = None
    served_at: float | None = None

    @property
    def outage_seconds(self) -> float | None:
        """Seconds from telling the server to its serving the target, draining included; None where that is not known."""
        if self.requested_at is None or self.served_at is None or self.served_at < self.requested_at:
            return None
        return self.served_at - self.requested_at

    @property
    def fallback_id(self) -> str:
        """Id of the one request that may bring the former span back."""
        return f"{self.id}-back"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.step in FINAL_STEPS

    @property
    def was_requested(self) -> bool:
        """Whether the server may have acted on it."""
        return self.step not in (MoveStep.PLANNED, MoveStep.ABANDONED)


class MoveLimits(BaseModel):
    """How long the steps of a move may take, in seconds; see the section `move` of the configuration."""

    model_config = ConfigDict(frozen=True)

    request_timeout: float
    restart_timeout: float
    verify_timeout: float


class Announcement(StrEnum):
    """What the DHT shows of a span that is being verified."""

    NOT_READ = "not_read"
    """The DHT could not be read, or was not: no evidence either way."""
    MISSING = "missing"
    """It was read, and the server is not ONLINE on that span."""
    ONLINE = "online"
    """It was read, and the server is ONLINE on that span."""


@dataclass(frozen=True)
class Refusal:
    """The server's final no to the request of the present step."""

    status: int
    detail: str


@dataclass(frozen=True)
class Observation:
    """What is seen of a move at one moment.

    Attributes:
        now: Seconds since the epoch.
        status: The server's status; None if it did not answer.
        refusal: Its answer to the last request, if that was a no.
        announcement: What the DHT shows of the span that is being verified.
        waited: Seconds since the move came to its step, on a clock that nobody sets; None leaves it to `now`.
    """

    now: float
    status: ServerStatus | None
    refusal: Refusal | None = None
    announcement: Announcement = Announcement.NOT_READ
    waited: float | None = None


@dataclass(frozen=True)
class Transition:
    """What follows: the move's next state, to be written down before `request` is sent."""

    move: Move
    request: RestartRequest | None = None


UNVERIFIABLE_FACTOR: Final = 4
"""A DHT that cannot be read is waited for this many times `verify_timeout`: no evidence is no reason to fall back."""


def advance(move: Move, seen: Observation, limits: MoveLimits) -> Transition:
    """Take a move one step further.

    A move that stays where it is comes back unchanged, without a request: look again later.
    """
    if seen.status is not None and seen.status.peer_id not in (None, move.peer_id) and not move.is_final:
        untouched = move.step is MoveStep.PLANNED
        error = "another server answers at the control socket now"
        return Transition(_to(move, MoveStep.ABANDONED if untouched else MoveStep.FAILED, seen.now, error))
    match move.step:
        case MoveStep.PLANNED:
            return _advance_planned(move, seen, limits)
        case MoveStep.REQUESTED:
            return _advance_requested(move, seen, limits)
        case MoveStep.VERIFYING:
            return _advance_verifying(move, seen, limits)
        case MoveStep.FALLING_BACK:
            return _advance_falling_back(move, seen, limits)
        case MoveStep.VERIFYING_FALLBACK:
            return _advance_verifying_fallback(move, seen, limits)
        case _:
            return Transition(move)


def resume(move: Move, now: float) -> Move:
    """Take up a move that a former process of this sidecar left behind.

    What was only planned is rolled back: the snapshot that it rested on is gone. All else goes on where it was.
    """
    if move.step is MoveStep.PLANNED:
        return _to(move, MoveStep.ABANDONED, now, "the sidecar stopped before the server was told")
    return move


def _to(move: Move, step: MoveStep, now: float, error: str | None = None) -> Move:
    update = {"step": step, "step_since": now, "acknowledged": False, "error": error or move.error}
    if step is MoveStep.REQUESTED:
        update["requested_at"] = now
    return move.model_copy(update=update)


def _waited(move: Move, seen: Observation) -> float:
    return by_the_clock(move, seen.now) if seen.waited is None else seen.waited


def by_the_clock(move: Move, now: float) -> float:
    """Give the seconds since a move came to its step, as far as the time of day tells."""
    # A clock that was set back must not make a deadline unreachable.
    return abs(now - move.step_since)


def _restart_is_running(status: ServerStatus) -> bool:
    return status.restart is not None and not status.restart.phase.is_final


def _serves(status: ServerStatus, span: Span | None) -> bool:
    return status.state is ServerPhase.ONLINE and status.span == span


def _advance_planned(move: Move, seen: Observation, limits: MoveLimits) -> Transition:
    def abandon(error: str) -> Transition:
        return Transition(_to(move, MoveStep.ABANDONED, seen.now, error))

    # While the machine slept nobody waited, but what the move rests on has become old.
    if max(_waited(move, seen), by_the_clock(move, seen.now)) > limits.request_timeout:
        return abandon("the server could not be told in time")
    if seen.status is None:
        return Transition(move)
    if seen.status.span != move.origin:
        return abandon(f"the server meanwhile serves {seen.status.span}")
    if _restart_is_running(seen.status):
        return abandon("the server is meanwhile restarting for another reason")
    return Transition(_to(move, MoveStep.REQUESTED, seen.now), _target_request(move))


def _advance_requested(move: Move, seen: Observation, limits: MoveLimits) -> Transition:
    status, restart = seen.status, seen.status.restart if seen.status else None
    ours = restart is not None and restart.id == move.id
    if status is not None and _serves(status, move.target) and not (ours and restart and not restart.phase.is_final):
        # By the time of day it may have served before it was told.
        served_at = None if move.requested_at is None else move.requested_at + _waited(move, seen)
        return Transition(_to(move, MoveStep.VERIFYING, seen.now).model_copy(update={"served_at": served_at}))
    if ours and restart is not None:
        if restart.phase is RestartPhase.FAILED:
            return _fall_back(
                move, seen.now, f"the server could not serve {move.target}: {restart.error or 'no reason given'}"
            )
        if _waited(move, seen) > limits.restart_timeout:
            return _fall_back(move, seen.now, f"the server did not serve {move.target} in time")
        return Transition(move if move.acknowledged else move.model_copy(update={"acknowledged": True}))
    return _advance_unacknowledged(move, seen, limits)


def _advance_unacknowledged(move: Move, seen: Observation, limits: MoveLimits) -> Transition:
    """Handle a request of which the server shows nothing: never arrived, refused, or forgotten by a new process."""

    def end(step: MoveStep, error: str) -> Transition:
        return Transition(_to(move, step, seen.now, error))

    status = seen.status
    if status is None:
        limit = limits.restart_timeout if move.acknowledged else limits.request_timeout
        if _waited(move, seen) > limit:
            return end(MoveStep.FAILED, "the server does not answer any more")
        return Transition(move)
    if seen.refusal is not None and not move.acknowledged:
        return end(MoveStep.ABANDONED, f"the server refused ({seen.refusal.status}): {seen.refusal.detail}")
    if _restart_is_running(status) or status.span != move.origin:
        # It may have begun on the request, and lost it, between two looks: nothing is known but where it is now.
        return end(MoveStep.FAILED, f"the server went another way: it is {status.state.value} on {status.span}")
    if move.acknowledged:
        return end(MoveStep.FAILED, "the server forgot the restart, as after a crash of its own")
    if _waited(move, seen) > limits.request_timeout:
        return end(MoveStep.ABANDONED, "the server did not take the request in time")
    return Transition(move, _target_request(move))


def _advance_verifying(move: Move, seen: Observation, limits: MoveLimits) -> Transition:
    if seen.status is not None and not _serves(seen.status, move.target):
        return _fall_back(move, seen.now, f"the server left {move.target} again: it is {seen.status.state.value}")
    # A record outlives the server that wrote it, so the server itself must say the same.
    if seen.announcement is Announcement.ONLINE and seen.status is not None:
        return Transition(_to(move, MoveStep.DONE, seen.now))
    waited = _waited(move, seen)
    if seen.announcement is Announcement.MISSING and waited > limits.verify_timeout:
        return _fall_back(move, seen.now, f"the DHT does not show the server on {move.target}")
    if waited > UNVERIFIABLE_FACTOR * limits.verify_timeout:
        return Transition(_to(move, MoveStep.FAILED, seen.now, "the DHT could not be read to verify the move"))
    return Transition(move)


def _fall_back(move: Move, now: float, error: str) -> Transition:
    if move.origin is None:
        return Transition(_to(move, MoveStep.FAILED, now, error))
    return Transition(_to(move, MoveStep.FALLING_BACK, now, error))


def _advance_falling_back(move: Move, seen: Observation, limits: MoveLimits) -> Transition:
    status = seen.status
    if _waited(move, seen) > limits.restart_timeout:
        return Transition(_to(move, MoveStep.FAILED, seen.now, f"{move.error}; nor did it serve {move.origin} again"))
    if status is None:
        return Transition(move)
    if _serves(status, move.origin) and not _restart_is_running(status):
        return Transition(_to(move, MoveStep.VERIFYING_FALLBACK, seen.now))
    restart = status.restart
    if restart is not None and restart.id == move.fallback_id:
        if restart.phase is RestartPhase.FAILED:
            error = f"{move.error}; nor could it serve {move.origin} again: {restart.error or 'no reason given'}"
            return Transition(_to(move, MoveStep.FAILED, seen.now, error))
        return Transition(move)
    if _restart_is_running(status) or status.state in (ServerPhase.JOINING, ServerPhase.DRAINING, ServerPhase.STOPPING):
        # Many servers bring their former span back by themselves; a request would only be refused meanwhile.
        return Transition(move)
    return Transition(move, _origin_request(move, status.span))


def _advance_verifying_fallback(move: Move, seen: Observation, limits: MoveLimits) -> Transition:
    left = seen.status is not None and not _serves(seen.status, move.origin)
    if left or _waited(move, seen) > UNVERIFIABLE_FACTOR * limits.verify_timeout:
        error = f"{move.error}; and the DHT does not show it on {move.origin}"
        return Transition(_to(move, MoveStep.FAILED, seen.now, error))
    if seen.announcement is Announcement.ONLINE and seen.status is not None:
        return Transition(_to(move, MoveStep.FELL_BACK, seen.now))
    return Transition(move)


def _target_request(move: Move) -> RestartRequest:
    return RestartRequest(
        id=move.id, span=move.target, if_span=move.origin, reason=move.reason, drain_seconds=move.drain_seconds
    )


def _origin_request(move: Move, present: Span | None) -> RestartRequest:
    if move.origin is None:
        raise AssertionError("a first placement has nothing to fall back to")
    return RestartRequest(
        id=move.fallback_id, span=move.origin, if_span=present, reason=f"fallback: {move.error}"[:500]
    )
