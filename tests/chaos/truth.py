"""What servers really did, from their own diaries, and what of it must never have happened. Pure.

Nothing here believes a sidecar or the DHT. What was done to the servers is known from the faults that were injected.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final

SERVING: Final = frozenset({"online", "draining"})
BACK: Final = "-back"
"""Ends the id of the one restart that may bring a former span back."""
CRASH_LOOPS: Final = frozenset({"sidecar crashes again and again", "server crashes again and again"})
MOVES_IN_A_CRASH_LOOP: Final = 2


@dataclass(frozen=True)
class Fault:
    """Something that was broken on purpose.

    Attributes:
        kind: What.
        server: The server, or the server beside the sidecar, that it struck; empty if all.
        began: When, seconds since the epoch.
        ended: When it was over; infinity while it is not.
        hides: Whether true records may have been missing from the DHT.
        invents: Whether false records may have been in it.
    """

    kind: str
    server: str
    began: float
    ended: float = math.inf
    hides: bool = False
    invents: bool = False


@dataclass(frozen=True)
class Stretch:
    """A time during which a server did one thing.

    Attributes:
        began: When it began, seconds since the epoch.
        ended: When it ended; infinity for the last one.
        step: What it was at; "gone" while it did not run.
        span: Its blocks, the end excluded; None without any.
        restart: Id of the last restart that it was told to make.
        failed: Whether that had failed.
    """

    began: float
    ended: float
    step: str
    span: tuple[int, int] | None
    restart: str | None = None
    failed: bool = False

    def serves(self, block: int) -> bool:
        return self.step in SERVING and self._has(block)

    def loads(self, block: int) -> bool:
        return self.step == "loading" and self._has(block)

    def overlaps(self, since: float, until: float) -> bool:
        return self.began <= until and self.ended >= since

    def _has(self, block: int) -> bool:
        return self.span is not None and self.span[0] <= block < self.span[1]


@dataclass(frozen=True)
class Asked:
    """A restart that a server was asked for.

    Attributes:
        at: When, seconds since the epoch.
        id: Its id.
        target: The blocks asked for.
        served: The blocks that it had by then.
        busy_with: A restart that was not over.
        refused: Whether it said no.
    """

    at: float
    id: str
    target: tuple[int, int]
    served: tuple[int, int] | None
    busy_with: str | None
    refused: bool

    @property
    def is_fallback(self) -> bool:
        return self.id.endswith(BACK)

    @property
    def move(self) -> str:
        return self.id.removesuffix(BACK)


@dataclass
class Life:
    """All that is known of one server.

    Attributes:
        diary: Its own entries, in order.
        gone: When its process was found to have ended.
        frozen: From when to when it was stopped.
    """

    diary: list[Mapping[str, Any]] = field(default_factory=list)
    gone: list[float] = field(default_factory=list)
    frozen: list[tuple[float, float]] = field(default_factory=list)

    def stretches(self) -> list[Stretch]:
        """Give what it did, in order; what it did while it was frozen is cut out."""
        marks: list[tuple[float, Mapping[str, Any] | None]] = [(at, None) for at in self.gone]
        marks += [(entry["at"], entry) for entry in self.diary if entry["what"] == "life"]
        marks.sort(key=lambda mark: mark[0])
        found = []
        for (at, entry), (until, _) in pairwise([*marks, (math.inf, None)]):
            if entry is None:
                found.append(Stretch(at, until, "gone", None))
            else:
                failed = bool(entry["over"] and entry["error"])
                found.append(Stretch(at, until, entry["step"], _span(entry["span"]), entry["restart"], failed))
        return [part for stretch in found for part in self._thawed(stretch)]

    def _thawed(self, stretch: Stretch) -> list[Stretch]:
        parts, began = [], stretch.began
        for since, until in sorted(self.frozen):
            if since < stretch.ended and until > began:
                if since > began:
                    parts.append(_cut(stretch, began, since))
                began = until
        return [*parts, _cut(stretch, began, stretch.ended)] if began < stretch.ended else parts

    def asked(self) -> list[Asked]:
        return [
            Asked(
                entry["at"],
                entry["id"],
                _span(entry["target"]) or (0, 0),
                _span(entry["served"]),
                entry["busy_with"],
                entry["refusal"] is not None,
            )
            for entry in self.diary
            if entry["what"] == "asked"
        ]


def _cut(stretch: Stretch, began: float, ended: float) -> Stretch:
    return Stretch(began, ended, stretch.step, stretch.span, stretch.restart, stretch.failed)


def _span(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    start, end = text.split(":")
    return int(start), int(end)


class Why(StrEnum):
    """Why a server could leave blocks that nobody else served; the first that holds is named."""

    SERVED_BEFORE = "another one had served them shortly before, and its records outlive it"
    LOADED = "another one was loading them"
    FALSE_RECORDS = "there were false records"
    HOLE = "others were served by nobody, and a plan that closes every hole may take servers from anywhere"
    HIDDEN_RECORDS = "true records were missing, so that others seemed to be served by nobody"


@dataclass(frozen=True)
class Uncovering:
    """A move that left blocks which nobody else served.

    Attributes:
        at: When.
        server: Which server.
        blocks: The blocks.
        why: What explains it; None if nothing does.
    """

    at: float
    server: str
    blocks: tuple[int, ...]
    why: Why | None


@dataclass(frozen=True)
class Rules:
    """The limits that the truth is held against, in seconds.

    Attributes:
        propagation: So long may what was true decide a move: a record's life, a reading, and a request's own time.
        breaker: After a failed move the next one comes no sooner.
        total_blocks: Blocks of the model.
    """

    propagation: float
    breaker: float
    total_blocks: int


@dataclass(frozen=True)
class Judgement:
    """What the truth says.

    Attributes:
        moves: Moves that each server began.
        failed: Restarts of all servers that failed.
        fallbacks: Ways back that all servers began.
        uncoverings: Moves that left blocks which nobody else served, all of them.
        violations: What must never happen, in words.
    """

    moves: Mapping[str, int]
    failed: int
    fallbacks: int
    uncoverings: tuple[Uncovering, ...]
    violations: tuple[str, ...]


def judge(lives: Mapping[str, Life], faults: Sequence[Fault], rules: Rules) -> Judgement:
    """Hold all lives against the rules."""
    asked = {name: life.asked() for name, life in lives.items()}
    stretches = {name: life.stretches() for name, life in lives.items()}
    violations: list[str] = []
    for name, life in lives.items():
        own = [fault for fault in faults if fault.server == name]
        violations += [f"{name}: {text}" for text in _of_one(asked[name], stretches[name], life, own, rules)]
    uncoverings = _uncoverings(asked, stretches, faults, rules)
    violations += [
        f"{one.server}: left blocks {list(one.blocks)} at {one.at:.1f}, which it served alone, for no reason"
        for one in uncoverings
        if one.why is None
    ]
    return Judgement(
        moves={name: len({one.id for one in _begun(own) if not one.is_fallback}) for name, own in asked.items()},
        failed=sum(len({one.restart for one in own if one.failed}) for own in stretches.values()),
        fallbacks=sum(one.is_fallback for own in asked.values() for one in _begun(own)),
        uncoverings=tuple(uncoverings),
        violations=tuple(violations),
    )


def _begun(asked: Iterable[Asked]) -> list[Asked]:
    return [one for one in asked if not one.refused]


def _of_one(
    asked: Sequence[Asked], stretches: Sequence[Stretch], life: Life, faults: Sequence[Fault], rules: Rules
) -> Iterable[str]:
    """Find what one server alone shows to be wrong."""
    yield from _wrong_requests(asked, faults)
    yield from _begun_twice(asked, life)
    yield from _moves_after_failures(asked, stretches, faults, rules)
    for fault in faults:
        if fault.kind in CRASH_LOOPS:
            within = {one.id for one in _begun(asked) if fault.began <= one.at <= fault.ended and not one.is_fallback}
            if len(within) > MOVES_IN_A_CRASH_LOOP:
                yield f"began {len(within)} moves in a crash loop of {fault.ended - fault.began:.0f} s"


def _wrong_requests(asked: Sequence[Asked], faults: Sequence[Fault]) -> Iterable[str]:
    """Find requests that no sidecar may send, unless its server had lied to it."""
    lies = [fault for fault in faults if fault.kind == "server lies about its state"]
    backs: set[str] = set()
    for one in asked:
        lied = any(fault.began - 2 <= one.at <= fault.ended + 2 for fault in lies)
        if one.busy_with is not None and one.busy_with != one.id and not lied:
            yield f"was asked for {one.id} at {one.at:.1f} while {one.busy_with} was not over: two moves at once"
        if not one.is_fallback and not one.refused and one.target == one.served and not lied:
            yield f"was told at {one.at:.1f} to move to {one.target}, where it was"
        if one.is_fallback:
            backs.add(one.move)
        elif one.move in backs:
            yield f"was asked for {one.id} at {one.at:.1f} after its way back"


def _begun_twice(asked: Sequence[Asked], life: Life) -> Iterable[str]:
    """Find restarts that one process began twice; what a server has forgotten with its process it may be told again."""
    times: dict[str, list[float]] = {}
    for one in _begun(asked):
        times.setdefault(one.id, []).append(one.at)
    for request, begun in times.items():
        for first, second in pairwise(begun):
            if not any(first < at < second for at in life.gone):
                yield f"began {request} twice, at {first:.1f} and {second:.1f}"


def _moves_after_failures(
    asked: Sequence[Asked], stretches: Sequence[Stretch], faults: Sequence[Fault], rules: Rules
) -> Iterable[str]:
    """Find moves that came too soon after one that had failed."""
    lost = [fault.ended for fault in faults if fault.kind == "journal corrupted"]
    moves = list({one.id: one for one in _begun(asked) if not one.is_fallback}.values())
    for former, following in pairwise(moves):
        failed_at = _failed_at(former, following.at, stretches)
        if failed_at is None or any(former.at <= at <= following.at for at in lost):
            continue
        if following.at - failed_at < rules.breaker:
            yield f"began {following.id} {following.at - failed_at:.1f} s after {former.id} had failed"


def _failed_at(move: Asked, before: float, stretches: Sequence[Stretch]) -> float | None:
    """Say when a move had failed for certain, as the server itself knows; None if it had not, or nobody can say."""
    mine = [stretch for stretch in stretches if move.at - 0.5 <= stretch.began < before]
    for stretch in mine:
        if stretch.restart == move.id and stretch.step == "online" and not stretch.failed:
            return None
        if stretch.restart == move.id and stretch.failed:
            return stretch.began
        if stretch.step == "gone":
            # A server that comes back where the move was to lead it to has arrived, for all that its sidecar can see.
            later = [other for other in mine if other.began > stretch.began]
            return None if any(other.span == move.target for other in later) else stretch.began
    return None


def _uncoverings(
    asked: Mapping[str, Sequence[Asked]],
    stretches: Mapping[str, Sequence[Stretch]],
    faults: Sequence[Fault],
    rules: Rules,
) -> list[Uncovering]:
    found = []
    for name, own in asked.items():
        others = [stretch for other, theirs in stretches.items() if other != name for stretch in theirs]
        for one in own:
            if one.refused or one.is_fallback or one.served is None:
                continue
            left = [block for block in range(*one.served) if not one.target[0] <= block < one.target[1]]
            alone = tuple(block for block in left if not _is_served(block, others, one.at))
            if alone:
                every = [stretch for theirs in stretches.values() for stretch in theirs]
                why = _explain(alone, one.at, others, every=every, faults=faults, rules=rules)
                found.append(Uncovering(one.at, name, alone, why))
    return sorted(found, key=lambda one: one.at)


def _is_served(block: int, stretches: Iterable[Stretch], at: float) -> bool:
    return any(stretch.serves(block) and stretch.began <= at < stretch.ended for stretch in stretches)


def _explain(
    blocks: Sequence[int],
    at: float,
    others: Sequence[Stretch],
    *,
    every: Sequence[Stretch],
    faults: Sequence[Fault],
    rules: Rules,
) -> Why | None:
    """Find the first explanation that holds for all of the blocks; see `Why`."""
    since = at - rules.propagation
    recent = [stretch for stretch in others if stretch.overlaps(since, at)]
    lately = [fault for fault in faults if fault.began <= at and fault.ended >= since]
    if all(any(stretch.serves(block) for stretch in recent) for block in blocks):
        return Why.SERVED_BEFORE
    if all(any(stretch.serves(block) or stretch.loads(block) for stretch in recent) for block in blocks):
        return Why.LOADED
    if any(fault.invents for fault in lately):
        return Why.FALSE_RECORDS
    if _had_a_hole(every, since, at, rules.total_blocks):
        return Why.HOLE
    if any(fault.hides for fault in lately):
        return Why.HIDDEN_RECORDS
    return None


def _had_a_hole(stretches: Sequence[Stretch], since: float, until: float, total_blocks: int) -> bool:
    """Tell whether some block was served by nobody at some moment of a time."""
    recent = [stretch for stretch in stretches if stretch.step in SERVING and stretch.overlaps(since, until)]
    moments = [since, *(stretch.ended for stretch in recent if since < stretch.ended < until)]
    return any(not _is_served(block, recent, moment) for moment in moments for block in range(total_blocks))


def count_reasons(uncoverings: Iterable[Uncovering]) -> dict[str, int]:
    """Count moves that uncovered blocks by what explains them."""
    return dict(Counter(one.why.value if one.why else "nothing explains it" for one in uncoverings))
