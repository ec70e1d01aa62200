"""Claims: from a wanted move to the moment when it may begin. Pure: values in, the next step out.

A sidecar whose policy wants a move first tells the others (a claim in the DHT), waits until they can have seen it,
and decides again on a fresh snapshot and fresh claims, where only claims older than its own count. Whoever is no longer
named withdraws. So of several sidecars that saw the same and want the same, one moves. A server that can is then asked
to fetch the weights while it still serves, and the decision is made once more.

    no claim -> settling -> (fetching ->) under way -> no claim
        ^          |            |
        +----------+------------+   withdrawn: the move is not wanted any more, or another one is

Whoever drives this (the daemon, the simulator) makes a decision with `ClaimState.standing` as `OwnServer.claim`, lets the
guards look at it, asks `next_step`, does what it says, and comes back at `ClaimStep.look_again_at` at the latest. What
has happened meanwhile is noted by `ClaimState.published`, `.with_prefetch` and `.begun`. All times are seconds since the
epoch, all durations seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from swarmkeel.balance.decision import Decision, Reason, Verdict
from swarmkeel.balance.policy import OwnServer
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.span import Span

MOVING_SHARE: Final = 0.1
"""Of the servers; while more are on the move nobody knows what the swarm will look like when they are done."""
MOVING_AT_LEAST: Final = 2
"""So many may always be on the move, however small the swarm."""
LONGEST_WAIT_FOR_OTHERS: Final = 180.0
"""Seconds within which those must claim whose moves one's own is for nothing without; by default they look thrice."""
DIGEST_LENGTH: Final = 12
"""So much of a snapshot's digest is told: enough to see whether two sidecars looked at the same."""


class ClaimSettings(BaseModel):
    """How claims are made, in seconds; see the section `claims` of the configuration.

    Attributes:
        settle: How long a claim must have been out before it is decided again: until others can have seen it.
        lifetime: How long a claim counts if it is not extended.
        prefetch_timeout: How long the server may take to fetch the weights.
        prefetch_poll: How often it is asked whether it has.
        prefetch_retry: How long no move is claimed after the weights could not be fetched.
    """

    model_config = ConfigDict(frozen=True)

    settle: float = 8.0
    lifetime: float = 180.0
    prefetch_timeout: float = 900.0
    prefetch_poll: float = 2.0
    prefetch_retry: float = 600.0


class Prefetch(StrEnum):
    """How far the server is with fetching the weights of the target while it still serves."""

    NONE = "none"
    """Not asked for."""
    FETCHING = "fetching"
    """Asked for, and not over."""
    DONE = "done"
    """The weights are there."""
    FAILED = "failed"
    """It could not be done."""


class ClaimState(BaseModel):
    """What one sidecar knows of its own claim.

    Attributes:
        claim: The claim; None without one.
        published_at: When it was first out, or was tried to be; None until then.
        prefetch: How far the server is with the weights.
        prefetch_since: When they were asked for; None until then.
        waiting_since: Since when others' claims are all that the move waits for; None while it does not.
        under_way: Whether the move itself has begun.
        held_until: Until when no move is claimed, since the last one's weights could not be fetched.
    """

    model_config = ConfigDict(frozen=True)

    claim: Claim | None = None
    published_at: float | None = None
    prefetch: Prefetch = Prefetch.NONE
    prefetch_since: float | None = None
    waiting_since: float | None = None
    under_way: bool = False
    held_until: float = 0.0

    def published(self, now: float) -> ClaimState:
        """Note that the claim is out, or that putting it out was tried: a DHT that takes nothing stops no move."""
        return self if self.published_at is not None else self.model_copy(update={"published_at": now})

    def standing(self, settings: ClaimSettings) -> Claim | None:
        """Give the claim as it stands against others: what `OwnServer.claim` is to be.

        One that took long to come out is as old as its coming out: others may have settled theirs without seeing it.
        """
        claim = self.claim
        if claim is None or self.published_at is None or self.published_at - claim.made_at <= settings.settle / 2:
            return claim
        return replace(claim, made_at=self.published_at)

    def with_prefetch(self, prefetch: Prefetch) -> ClaimState:
        """Note how far the server is with the weights; only while it fetches them."""
        return self.model_copy(update={"prefetch": prefetch}) if self.prefetch is Prefetch.FETCHING else self

    def begun(self) -> ClaimState:
        """Note that the move itself has begun."""
        return self.model_copy(update={"under_way": True})


class ClaimInputs(BaseModel):
    """What the next step follows from beside the decision; kept in the journal so that it can be taken again.

    Attributes:
        state: What is known of the own claim.
        settings: How claims are made.
        can_prefetch: Whether the server can fetch weights while it serves.
        asked_at: When the reading that the decision rests on began; None for the time of the decision.
    """

    model_config = ConfigDict(frozen=True)

    state: ClaimState
    settings: ClaimSettings
    can_prefetch: bool
    asked_at: float | None = None


class ClaimAction(StrEnum):
    """What is to be done about the own claim."""

    NOTHING = "nothing"
    """There is none, and none is to be made."""
    PUBLISH = "publish"
    """Put the (new) claim out, then note it by `ClaimState.published`."""
    WAIT = "wait"
    """Leave it as it is."""
    PREFETCH = "prefetch"
    """Put the extended claim out, and ask the server to fetch the weights of the target."""
    EXTEND = "extend"
    """Put the claim out again: it counts longer now."""
    WITHDRAW = "withdraw"
    """Take it back."""
    GO = "go"
    """Begin the move, after the extended claim is out; then note it by `ClaimState.begun`."""


@dataclass(frozen=True, slots=True)
class ClaimStep:
    """What follows for the own claim.

    Attributes:
        action: What is to be done.
        state: The state that this leads to.
        reason: Why a wanted move does not begin now; None where it begins or none is wanted.
        look_again_at: When to decide again, or to see how far the server is with the weights; None leaves that to the
            usual period.
    """

    action: ClaimAction
    state: ClaimState
    reason: Reason | None = None
    look_again_at: float | None = None


def is_emergency(decision: Decision) -> bool:
    """Tell whether a decision closes a hole: a block that nobody serves fails every request."""
    before, after = decision.before, decision.after
    names = {reason.name for reason in decision.reasons}
    if decision.target is None or before is None or after is None:
        return False
    closes = "closes_holes" in names and after.uncovered_blocks < before.uncovered_blocks
    return closes or "closes_holes_sooner" in names


def make_claim(decision: Decision, own: OwnServer, *, now: float, settings: ClaimSettings) -> Claim:
    """Give the claim of a wanted move.

    Raises:
        ValueError: If the decision has no target.
    """
    if decision.target is None:
        raise ValueError("a decision without a target claims nothing")
    gain = 0.0
    if decision.before is not None and decision.after is not None:
        gain = decision.after.bottleneck_rps - decision.before.bottleneck_rps
    return Claim(
        origin=decision.own_span,
        target=decision.target,
        made_at=now,
        expires_at=now + settings.lifetime,
        throughput=throughput_on(own, decision.target),
        gain_rps=gain if math.isfinite(gain) else 0.0,
        digest=decision.snapshot_digest[:DIGEST_LENGTH],
    )


def throughput_on(own: OwnServer, target: Span) -> float:
    """Give the requests a second that the own server would serve on a target: by its length alone."""
    present = own.num_blocks if own.span is None else len(own.span)
    if len(target) == present:
        return own.throughput
    return next((throughput for length, throughput in own.shapes if length == len(target)), own.throughput)


def next_step(
    decision: Decision,
    state: ClaimState,
    *,
    own: OwnServer,
    now: float,
    can_prefetch: bool,
    settings: ClaimSettings,
    asked_at: float | None = None,
) -> ClaimStep:
    """Say what follows from a decision for the own claim, before the move has begun.

    Args:
        decision: Made on a fresh snapshot and fresh claims, with `state.standing` as the own server's, and seen by the
            other guards: `moving` if nothing but the claim stands between it and the move.
        state: What is known of the own claim.
        own: The own server.
        now: Seconds since the epoch.
        can_prefetch: Whether the server can fetch weights while it serves.
        settings: How claims are made.
        asked_at: When the reading that the decision rests on began: what others have put out since may not be in it.
            `now` where left out.
    """
    claim = state.claim
    if claim is not None and not _still_counts(state, claim, now):
        # It ran out while nobody looked, as after the machine slept: others have forgotten it, so it starts afresh.
        claim, state = None, ClaimState(held_until=state.held_until)
        withdrawal = ClaimAction.WITHDRAW
    else:
        withdrawal = ClaimAction.NOTHING if claim is None else ClaimAction.WITHDRAW
    if decision.verdict is Verdict.INSUFFICIENT_INFORMATION and claim is not None:
        # What could not be read is no reason to give up; the claim runs out if that lasts.
        return ClaimStep(ClaimAction.WAIT, state, look_again_at=now + settings.settle)
    if decision.verdict is not Verdict.MOVING or decision.target is None:
        return ClaimStep(withdrawal, ClaimState(held_until=state.held_until))
    if claim is None:
        return _claim_anew(decision, state, own=own, now=now, withdrawal=withdrawal, settings=settings)
    settled_at = (claim.made_at if state.published_at is None else state.published_at) + settings.settle
    if (now if asked_at is None else min(asked_at, now)) < settled_at:
        return ClaimStep(ClaimAction.WAIT, state, _settling(claim, max(settled_at - now, 0.0)), max(settled_at, now))
    if decision.target != claim.target and decision.own_span is not None:
        return _lose(decision, claim, own=own, now=now, settings=settings)
    return _after_settling(decision, state, own=own, now=now, can_prefetch=can_prefetch, settings=settings)


def _still_counts(state: ClaimState, claim: Claim, now: float) -> bool:
    # A clock that was set back must not make a claim wait or count for ever.
    latest = max(claim.made_at, state.published_at or 0.0, state.prefetch_since or 0.0)
    return latest - 1.0 <= now < claim.expires_at


def _extended(state: ClaimState, now: float, settings: ClaimSettings) -> ClaimState:
    claim = state.claim
    if claim is None:
        return state
    longer = replace(claim, expires_at=max(claim.expires_at, now + settings.lifetime))
    return state.model_copy(update={"claim": longer})


def _settling(claim: Claim, seconds: float) -> Reason:
    return Reason(name="claim_settling", values={"target": str(claim.target), "seconds": seconds})


def _claim_anew(
    decision: Decision,
    state: ClaimState,
    *,
    own: OwnServer,
    now: float,
    withdrawal: ClaimAction,
    settings: ClaimSettings,
) -> ClaimStep:
    remaining = state.held_until - now
    if 0 < remaining <= settings.prefetch_retry and not is_emergency(decision):
        values = {"target": str(decision.target), "remaining_seconds": remaining}
        return ClaimStep(withdrawal, state, Reason(name="prefetch_failed", values=values))
    claim = make_claim(decision, own, now=now, settings=settings)
    new = ClaimState(claim=claim, held_until=state.held_until)
    return ClaimStep(ClaimAction.PUBLISH, new, _settling(claim, settings.settle), now + settings.settle)


def _lose(decision: Decision, claim: Claim, *, own: OwnServer, now: float, settings: ClaimSettings) -> ClaimStep:
    """Give up a claim: older claims have made another target the right one."""
    if is_emergency(decision):
        # Nothing works while there is a hole, so the other target is claimed at once.
        new = make_claim(decision, own, now=now, settings=settings)
        return ClaimStep(
            ClaimAction.PUBLISH, ClaimState(claim=new), _settling(new, settings.settle), now + settings.settle
        )
    values = {"target": str(claim.target), "other": str(decision.target)}
    return ClaimStep(ClaimAction.WITHDRAW, ClaimState(), Reason(name="claim_overtaken", values=values))


def _after_settling(
    decision: Decision, state: ClaimState, *, own: OwnServer, now: float, can_prefetch: bool, settings: ClaimSettings
) -> ClaimStep:
    """Go on with a claim that the decision still stands for."""
    claim = state.claim
    assert claim is not None  # noqa: S101 - the caller has looked
    if decision.own_span is None:
        # A server without blocks looks once more, and then takes what is best by now.
        if decision.target != claim.target:
            moved = make_claim(decision, own, now=now, settings=settings)
            state = state.model_copy(update={"claim": moved})
        return ClaimStep(ClaimAction.GO, _extended(state, now, settings))
    since = now if state.prefetch_since is None else state.prefetch_since
    match state.prefetch:
        case Prefetch.NONE if can_prefetch:
            state = state.model_copy(update={"prefetch": Prefetch.FETCHING, "prefetch_since": now})
            action, state = ClaimAction.PREFETCH, _extended(state, now, settings)
        case Prefetch.FETCHING if now - since < settings.prefetch_timeout:
            action = ClaimAction.WAIT
            if claim.expires_at - now < settings.lifetime / 2:
                action, state = ClaimAction.EXTEND, _extended(state, now, settings)
        case Prefetch.FETCHING | Prefetch.FAILED if not is_emergency(decision):
            values = {"target": str(claim.target), "remaining_seconds": settings.prefetch_retry}
            return ClaimStep(
                ClaimAction.WITHDRAW,
                ClaimState(held_until=now + settings.prefetch_retry),
                Reason(name="prefetch_failed", values=values),
            )
        case _ if any(reason.name == "needs_others" for reason in decision.reasons):
            return _wait_for_others(claim, state, now=now, settings=settings)
        case _:
            return ClaimStep(ClaimAction.GO, _extended(state, now, settings))
    reason = Reason(name="prefetching", values={"target": str(claim.target), "seconds": now - since})
    return ClaimStep(action, state, reason, now + settings.prefetch_poll)


def _wait_for_others(claim: Claim, state: ClaimState, *, now: float, settings: ClaimSettings) -> ClaimStep:
    """Keep a claim until those have claimed whose moves it needs; give it up if they do not."""
    since = now if state.waiting_since is None else state.waiting_since
    if not 0 <= now - since < LONGEST_WAIT_FOR_OTHERS:
        values = {"target": str(claim.target)}
        return ClaimStep(ClaimAction.WITHDRAW, ClaimState(), Reason(name="others_stay", values=values))
    action, state = ClaimAction.WAIT, state.model_copy(update={"waiting_since": since})
    if claim.expires_at - now < settings.lifetime / 2:
        action, state = ClaimAction.EXTEND, _extended(state, now, settings)
    reason = Reason(name="waiting_for_others", values={"target": str(claim.target), "seconds": now - since})
    return ClaimStep(action, state, reason, now + settings.settle)


def step_back(state: ClaimState) -> ClaimStep:
    """Say what follows for the own claim where no move may be made at all, such as in a pause."""
    action = ClaimAction.NOTHING if state.claim is None else ClaimAction.WITHDRAW
    return ClaimStep(action, ClaimState(held_until=state.held_until))


def step_under_way(
    state: ClaimState, *, is_visible: bool, is_over: bool, now: float, settings: ClaimSettings
) -> ClaimStep:
    """Say what follows for the own claim once its move has begun.

    Args:
        state: What is known of it.
        is_visible: Whether the DHT shows the server on the target: from then on its record says more than the claim.
        is_over: Whether the move has ended, however it did.
        now: Seconds since the epoch.
        settings: How claims are made.
    """
    claim = state.claim
    if claim is None:
        return ClaimStep(ClaimAction.NOTHING, ClaimState())
    if is_visible or is_over:
        return ClaimStep(ClaimAction.WITHDRAW, ClaimState())
    if claim.expires_at - now < settings.lifetime / 2 or now < claim.made_at:
        return ClaimStep(ClaimAction.EXTEND, _extended(state, now, settings))
    return ClaimStep(ClaimAction.WAIT, state)


def apply_claim(decision: Decision, step: ClaimStep) -> Decision:
    """Turn a wanted move that the claim does not let begin yet into `holding`; other decisions pass unchanged."""
    if decision.verdict is not Verdict.MOVING or step.action is ClaimAction.GO:
        return decision
    reasons = decision.reasons if step.reason is None else (step.reason, *decision.reasons)
    return decision.model_copy(update={"verdict": Verdict.HOLDING, "reasons": reasons})


def moving_limit(servers: int) -> float:
    """Give how many servers of a swarm may have unfinished moves before others wait."""
    return max(MOVING_AT_LEAST, MOVING_SHARE * servers)


def count_moving(
    spans: Mapping[str, RemoteSpanInfo[str]], sidecars: Mapping[str, Sidecar], own: OwnServer, *, now: float
) -> int:
    """Count the other servers whose moves are unfinished: those that load, and those with a claim.

    Claims younger than the own one do not count: of several that wait for each other, the oldest must be able to go. Nor
    do claims of servers that the DHT does not show, since anyone can make up such. And since claims are not signed either,
    they count for no more than may move at once: together with one that really loads they hold others back, alone never.

    Args:
        spans: The JOINING and ONLINE servers.
        sidecars: What sidecars tell, with plausible claims alone.
        own: The own server.
        now: Seconds since the epoch.
    """
    loading = {peer_id for peer_id, span in spans.items() if span.state is ServerState.JOINING} - {own.peer_id}
    claimed = 0
    for peer_id in sidecars.keys() & spans.keys() - loading - {own.peer_id}:
        claim = sidecars[peer_id].claim
        if claim is None or claim.expires_at <= now:
            continue
        claimed += own.claim is None or claim.precedes(peer_id, own.claim, own.peer_id)
    return len(loading) + min(claimed, int(moving_limit(len(spans))))
