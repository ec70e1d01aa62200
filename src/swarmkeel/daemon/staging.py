"""Staging: what the own server is asked to have on disk before it is needed. Pure: values in, what to do out.

In quiet hours a sidecar thinks through who might leave next (`balance.staging`), and has its server fetch the blocks that it
would then be asked to serve. Nothing waits for that, and it gives way to everything: it is begun only while nothing
happens in the swarm, and a claim asks for its own weights whatever is being fetched.

Whoever drives this (the daemon, the simulator) tells `StagingState.after_check` of each check what `find_disturbance` found
in it, makes the plans when `is_due` says so, asks for `next_span`, and notes by `StagingState.with_fetched` what came of it.
All times are seconds since the epoch, all durations seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from swarmkeel.balance.decision import Decision, Verdict
from swarmkeel.balance.staging import LikelySpan, choose_spans_to_stage
from swarmkeel.control.protocol import PrefetchPhase, ServerPhase, ServerStatus
from swarmkeel.daemon.own_server import PREFETCH
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.sidecar import Sidecar
from swarmkeel.swarm.span import Span


@dataclass(frozen=True, slots=True)
class StagingSettings:
    """How staging is done; see the section `staging` of the configuration.

    Attributes:
        blocks: Blocks to have on disk beside those that are served; None for as many as the server holds, 0 for never.
        period: How often at most the server is asked for any.
        quiet_for: How long nothing must have happened in the swarm before.
    """

    blocks: int | None = None
    period: float = 3600.0
    quiet_for: float = 300.0

    def room(self, status: ServerStatus) -> int:
        """Give how many blocks a server is to have on disk beside those that it serves."""
        return status.num_blocks if self.blocks is None else self.blocks


class Disturbance(StrEnum):
    """Why this is no time for staging."""

    CANNOT = "cannot"
    """The server cannot fetch weights while it serves, or is pinned."""
    SERVER_BUSY = "server_busy"
    """It does not serve, or restarts, or fetches weights already."""
    NOT_BALANCED = "not_balanced"
    """The check ended in another verdict than `balanced`: the sidecar has something to do, or does not see enough."""
    OTHERS_BUSY = "others_busy"
    """Another server loads, or has claimed a move."""
    HOLE = "hole"
    """A block is without a server that serves it."""


class StagingResult(StrEnum):
    """What became of what a server was asked to fetch."""

    DONE = "done"
    """It has the blocks on disk."""
    UNTOLD = "untold"
    """It does not tell how far it is, and is taken to have them: what is missing after all is fetched for the move."""
    FAILED = "failed"
    """It could not fetch them, or a restart came first."""
    REPLACED = "replaced"
    """Something else was asked for before it had them, as by a claim."""
    REFUSED = "refused"
    """It would not, or did not answer."""

    @property
    def has_weights(self) -> bool:
        """Whether the server is taken to have the blocks on disk."""
        return self in (StagingResult.DONE, StagingResult.UNTOLD)


def result_of(request_id: str, status: ServerStatus) -> StagingResult | None:
    """Tell what has become of a request that the server took; None while it fetches."""
    shown = status.prefetch
    if shown is None:
        return StagingResult.UNTOLD
    if shown.id != request_id:
        return StagingResult.REPLACED
    if shown.phase is PrefetchPhase.FETCHING:
        return None
    return StagingResult.DONE if shown.phase is PrefetchPhase.DONE else StagingResult.FAILED


def find_disturbance(
    decision: Decision,
    status: ServerStatus | None,
    spans: Mapping[str, RemoteSpanInfo[str]],
    sidecars: Mapping[str, Sidecar],
    *,
    total_blocks: int,
    now: float,
) -> Disturbance | None:
    """Say what speaks against staging; None if the server is free and the swarm is quiet.

    Args:
        decision: What a check ended in.
        status: The own server's status; None if it did not answer.
        spans: The JOINING and ONLINE servers, counted from the first block read.
        sidecars: What the others' sidecars tell, with plausible claims alone.
        total_blocks: Number of blocks read.
        now: Seconds since the epoch.
    """
    if decision.verdict is not Verdict.BALANCED:
        return Disturbance.NOT_BALANCED
    if status is None or PREFETCH not in status.capabilities or status.pinned:
        return Disturbance.CANNOT
    restarts = status.restart is not None and not status.restart.phase.is_final
    fetches = status.prefetch is not None and status.prefetch.phase is PrefetchPhase.FETCHING
    if status.state is not ServerPhase.ONLINE or status.span is None or restarts or fetches:
        return Disturbance.SERVER_BUSY
    # Claims of servers that the DHT does not show are anybody's word.
    claims = (sidecar.claim for peer_id, sidecar in sidecars.items() if peer_id in spans)
    if any(claim is not None and claim.expires_at > now for claim in claims):
        return Disturbance.OTHERS_BUSY
    if any(span.state is not ServerState.ONLINE for span in spans.values()):
        return Disturbance.OTHERS_BUSY
    return Disturbance.HOLE if _has_hole(spans.values(), total_blocks) else None


def _has_hole(spans: Iterable[RemoteSpanInfo[str]], total_blocks: int) -> bool:
    reached = 0
    for start, end in sorted((span.start, span.end) for span in spans):
        if start > reached:
            return True
        reached = max(reached, end)
    return reached < total_blocks


@dataclass(frozen=True, slots=True)
class StagingState:
    """What one sidecar knows of what it has staged. A new process knows nothing; what it asks for again is there at once.

    Attributes:
        quiet_since: Since when nothing has happened; None while something does.
        thought_at: When plans were last made; None before the first time.
        fetched: Spans that the server has fetched for staging and is taken to have on disk, the latest last.
    """

    quiet_since: float | None = None
    thought_at: float | None = None
    fetched: tuple[Span, ...] = ()

    def after_check(self, disturbance: Disturbance | None, now: float) -> StagingState:
        """Note what a check has found."""
        if disturbance is not None:
            return self.disturbed()
        return self if self.quiet_since is not None else replace(self, quiet_since=now)

    def disturbed(self) -> StagingState:
        """Note that something happens, or may: the quiet time begins anew."""
        return replace(self, quiet_since=None)

    def with_plans_made(self, now: float) -> StagingState:
        """Note that plans are made, whatever comes of them."""
        return replace(self, thought_at=now)

    def with_fetched(self, span: Span, present: Span, room: int) -> StagingState:
        """Note that the server has fetched a span; the oldest are forgotten where there is no room for all.

        Args:
            span: The blocks that it was asked for.
            present: The blocks that it serves.
            room: How many blocks there is room for beside these.
        """
        fetched = (*(each for each in self.fetched if each != span), span)
        while fetched and len(blocks_beside(present, fetched)) > room:
            fetched = fetched[1:]
        return replace(self, fetched=fetched)


def blocks_beside(present: Span, spans: Iterable[Span]) -> frozenset[int]:
    """Give the blocks of some spans that are not among the present ones."""
    return frozenset(block for span in spans for block in range(span.start, span.end)) - set(
        range(present.start, present.end)
    )


def is_due(state: StagingState, settings: StagingSettings, *, room: int, now: float) -> bool:
    """Tell whether it is time to make plans."""
    if room <= 0 or state.quiet_since is None or now - state.quiet_since < settings.quiet_for:
        return False
    # A clock that was set back must not put it off for ever.
    return state.thought_at is None or not 0 <= now - state.thought_at < settings.period


def next_span(likely: Sequence[LikelySpan], state: StagingState, present: Span, *, room: int) -> Span | None:
    """Choose the span that the server is asked to fetch next; None if it has all that there is room for.

    Args:
        likely: Where it may be asked to go, most likely first, counted like `present`.
        state: What is known to be on its disk.
        present: The blocks that it serves.
        room: How many blocks there is room for beside these.
    """
    there = blocks_beside(present, state.fetched)
    for span in choose_spans_to_stage(likely, present, disk_blocks=room):
        if not blocks_beside(present, (span,)) <= there:
            return span
    return None
