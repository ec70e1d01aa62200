"""Guards: what must hold before a wanted move is made. Pure: a decision and what is known in, a decision out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from swarmkeel.balance.decision import Decision, Reason, Verdict
from swarmkeel.daemon.claiming import is_emergency, moving_limit
from swarmkeel.daemon.move import Move, MoveStep

SECONDS_PER_DAY: Final = 86_400.0


class GuardSettings(BaseModel):
    """Limits of the guards, in seconds unless said otherwise; see the section `guards` of the configuration."""

    model_config = ConfigDict(frozen=True)

    cooldown: float
    minimum_uptime: float
    moves_per_day: int
    confirmations: int
    breaker_base: float
    breaker_max: float


class GuardView(BaseModel):
    """What the guards look at.

    Attributes:
        now: Seconds since the epoch.
        server_state: What the server says that it does.
        running_restart: Id of a restart that is not over; None without one.
        pinned: Whether the server's operator has pinned its blocks.
        span_since: Since when the present span is served, as far as this sidecar knows; seconds since the epoch.
        moves: Moves of this server, oldest first; at least those of the last day and the last failures in a row.
        confirmations: Snapshots in a row that led to a move, the present one included.
        servers: Servers that the snapshot shows JOINING or ONLINE.
        others_moving: Those of them, the own one left out, whose moves are unfinished, see `claiming.count_moving`.
    """

    model_config = ConfigDict(frozen=True)

    now: float
    server_state: str
    running_restart: str | None
    pinned: bool
    span_since: float | None
    moves: tuple[Move, ...]
    confirmations: int
    servers: int = 0
    others_moving: int = 0


def apply_guards(decision: Decision, view: GuardView, settings: GuardSettings, *, dry_run: bool) -> Decision:
    """Turn a wanted move into `holding` or, in a dry run, into `would_move`; other decisions pass unchanged.

    A server without blocks serves nobody, so nothing that protects what it serves holds its first placement back. A move
    that closes a hole does not wait for what only protects against needless moves: nothing works until it is made.
    """
    if decision.verdict is not Verdict.MOVING:
        return decision
    if decision.own_span is None:
        guards = ALWAYS
    else:
        guards = (*ALWAYS, *WHILE_SERVING) if is_emergency(decision) else (*ALWAYS, *WHILE_SERVING, *UNLESS_URGENT)
    holding = tuple(reason for reason in (guard(view, settings) for guard in guards) if reason is not None)
    if holding:
        return decision.model_copy(update={"verdict": Verdict.HOLDING, "reasons": (*holding, *decision.reasons)})
    if dry_run:
        reasons = (Reason(name="dry_run"), *decision.reasons)
        return decision.model_copy(update={"verdict": Verdict.WOULD_MOVE, "reasons": reasons})
    return decision


class GuardKind(StrEnum):
    """Which moves a guard is asked about."""

    ALWAYS = "always"
    WHILE_SERVING = "while_serving"
    """All but a first placement."""
    UNLESS_URGENT = "unless_urgent"
    """All but a first placement and moves that close a hole."""


@dataclass(frozen=True)
class GuardReading:
    """What one guard says now.

    Attributes:
        name: The name of the reason that it gives.
        kind: Which moves it is asked about.
        reason: Why it holds; None while it does not.
        releases_at: When it lets go, seconds since the epoch; None where it does not hold or nobody knows.
    """

    name: str
    kind: GuardKind
    reason: Reason | None
    releases_at: float | None


def look_at_guards(view: GuardView, settings: GuardSettings) -> tuple[GuardReading, ...]:
    """Give what each guard says of a move that would begin now, whether one is wanted or not."""
    kinds = {GuardKind.ALWAYS: ALWAYS, GuardKind.WHILE_SERVING: WHILE_SERVING, GuardKind.UNLESS_URGENT: UNLESS_URGENT}
    readings = []
    for kind, guards in kinds.items():
        for guard in guards:
            reason = guard(view, settings)
            releases_at = None if reason is None else _release(reason, view, settings)
            readings.append(GuardReading(_NAMES[guard], kind, reason, releases_at))
    return tuple(readings)


def _release(reason: Reason, view: GuardView, settings: GuardSettings) -> float | None:
    """Say when a guard that holds for this reason lets go; None where that is not a matter of time."""
    match reason.name:
        case "cooldown" | "minimum_uptime":
            return view.now + _seconds(reason, "limit_seconds") - _seconds(reason, "since_seconds")
        case "breaker":
            return view.now + _seconds(reason, "remaining_seconds")
        case "moves_per_day" if settings.moves_per_day > 0:
            counted = sorted(move.started_at for move in _moves_of_the_day(view))
            return counted[-settings.moves_per_day] + SECONDS_PER_DAY
    return None


def _seconds(reason: Reason, name: str) -> float:
    """Read a number that a guard has put into its reason."""
    return float(reason.values[name] or 0.0)


def movable_at(view: GuardView, settings: GuardSettings) -> float | None:
    """Say from when on the guards would let this server be moved, for others to plan with.

    Returns:
        Seconds since the epoch, 0 if nothing holds it; None if not even a hole would let it move now: pinned, failed or
        in the middle of a restart, out of its budget of moves, or held by the breaker.
    """
    if any(guard(view, settings) is not None for guard in (*ALWAYS, *WHILE_SERVING)):
        return None
    waits = []
    if (held := _cooldown(view, settings)) is not None:
        waits.append(settings.cooldown - _seconds(held, "since_seconds"))
    if (held := _minimum_uptime(view, settings)) is not None:
        waits.append(settings.minimum_uptime - _seconds(held, "since_seconds"))
    # A clock that goes a little ahead must not make others wait for a server that waits for nothing.
    return view.now + max(waits) if waits else 0.0


def in_order(moves: Sequence[Move], now: float) -> list[Move]:
    """Put moves in the order in which they ended, oldest first, although somebody may have set the clock.

    One that ended ahead of the clock did so before the clock was set back, so it is older than all others.
    """
    return sorted(moves, key=lambda move: (move.step_since <= now, move.step_since))


def breaker_release(moves: Sequence[Move], settings: GuardSettings) -> tuple[int, float]:
    """Count the failures since the last success, and say when the hold that they cause ends.

    Args:
        moves: Oldest first, see `in_order`.
        settings: The limits.

    Returns:
        The failures in a row and the end of the hold in seconds since the epoch; the hold starts at `breaker_base` and
        doubles with every failure up to `breaker_max`.
    """
    failures = 0
    for move in reversed(moves):
        if not move.is_final:
            continue
        if move.step is MoveStep.DONE:
            break
        failures += 1
    if not failures:
        return 0, 0.0
    last = next(move.step_since for move in reversed(moves) if move.is_final)
    # The exponent is bounded so that a long row of failures cannot overflow.
    hold = min(settings.breaker_base * 2.0 ** min(failures - 1, 60), settings.breaker_max)
    return failures, last + hold


@dataclass(frozen=True)
class Breaker:
    """What failed moves hold back.

    Attributes:
        failures: Moves that failed since the last that did not.
        open_until: Until when no move is made, seconds since the epoch; None while nothing is held back.
    """

    failures: int = 0
    open_until: float | None = None


def view_breaker(moves: Sequence[Move], settings: GuardSettings, now: float) -> Breaker:
    """Say what the failures among some moves hold back now."""
    failures, release = breaker_release(in_order(moves, now), settings)
    is_open = failures > 0 and 0 < release - now <= settings.breaker_max
    return Breaker(failures, release if is_open else None)


def _since(then: float, now: float) -> float:
    # Times ahead of the clock (it was set back) count by their distance: they may hold for a while, not for ever.
    return abs(now - then)


def _pinned(view: GuardView, _: GuardSettings) -> Reason | None:
    return Reason(name="pinned") if view.pinned else None


def _restart_running(view: GuardView, _: GuardSettings) -> Reason | None:
    if view.running_restart is None and view.server_state in ("online", "idle"):
        return None
    return Reason(name="restart_running", values={"state": view.server_state, "restart": view.running_restart})


def _breaker(view: GuardView, settings: GuardSettings) -> Reason | None:
    breaker = view_breaker(view.moves, settings, view.now)
    if breaker.open_until is None:
        return None
    values = {"failures": breaker.failures, "remaining_seconds": breaker.open_until - view.now}
    return Reason(name="breaker", values=values)


def _cooldown(view: GuardView, settings: GuardSettings) -> Reason | None:
    ended = [move.step_since for move in in_order(view.moves, view.now) if move.is_final and move.was_requested]
    if not ended:
        return None
    since = _since(ended[-1], view.now)
    if since >= settings.cooldown:
        return None
    return Reason(name="cooldown", values={"since_seconds": since, "limit_seconds": settings.cooldown})


def _minimum_uptime(view: GuardView, settings: GuardSettings) -> Reason | None:
    since = 0.0 if view.span_since is None else _since(view.span_since, view.now)
    if since >= settings.minimum_uptime:
        return None
    return Reason(name="minimum_uptime", values={"since_seconds": since, "limit_seconds": settings.minimum_uptime})


def _moves_of_the_day(view: GuardView) -> list[Move]:
    return [m for m in view.moves if m.was_requested and _since(m.started_at, view.now) < SECONDS_PER_DAY]


def _moves_per_day(view: GuardView, settings: GuardSettings) -> Reason | None:
    moves = len(_moves_of_the_day(view))
    if moves < settings.moves_per_day:
        return None
    return Reason(name="moves_per_day", values={"moves": moves, "limit": settings.moves_per_day})


def _too_many_moving(view: GuardView, _: GuardSettings) -> Reason | None:
    limit = moving_limit(view.servers)
    if view.others_moving <= limit:
        return None
    values = {"moving": view.others_moving, "servers": view.servers, "limit": limit}
    return Reason(name="too_many_moving", values=values)


def _confirmation(view: GuardView, settings: GuardSettings) -> Reason | None:
    if view.confirmations >= settings.confirmations:
        return None
    return Reason(name="confirmation", values={"seen": view.confirmations, "needed": settings.confirmations})


Guard = Callable[[GuardView, GuardSettings], Reason | None]
ALWAYS: Final[tuple[Guard, ...]] = (_pinned, _restart_running, _breaker)
WHILE_SERVING: Final[tuple[Guard, ...]] = (_moves_per_day,)
UNLESS_URGENT: Final[tuple[Guard, ...]] = (_cooldown, _minimum_uptime, _too_many_moving, _confirmation)
_NAMES: Final[Mapping[Guard, str]] = {
    _pinned: "pinned",
    _restart_running: "restart_running",
    _breaker: "breaker",
    _moves_per_day: "moves_per_day",
    _cooldown: "cooldown",
    _minimum_uptime: "minimum_uptime",
    _too_many_moving: "too_many_moving",
    _confirmation: "confirmation",
}
