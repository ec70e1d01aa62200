"""Replay: decide again what the journal says was decided, and compare the two bit for bit. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from swarmkeel.balance.decision import Decision
from swarmkeel.daemon.check import decide_again
from swarmkeel.daemon.journal import CheckRecord
from swarmkeel.errors import UsageError

ABSENT: Final = "(nothing)"
"""Stands for what is on one side alone."""


class ReplayResult(StrEnum):
    """What came of a replay."""

    SAME = "same"
    """The same decision, bit for bit."""
    DIFFERENT = "different"
    """Another one."""
    NOTHING_DECIDED = "nothing_decided"
    """There was nothing to decide on, as when the DHT could not be read: no policy was asked, so none can be again."""
    UNKNOWN_POLICY = "unknown_policy"
    """This version has no such policy."""
    UNREADABLE = "unreadable"
    """What the journal holds of it cannot be read."""


class Difference(BaseModel):
    """One place where two decisions differ.

    Attributes:
        place: Such as `after.bottleneck_rps`.
        recorded: What the journal says there, as JSON.
        replayed: What came out now.
    """

    model_config = ConfigDict(frozen=True)

    place: str
    recorded: str
    replayed: str


class Replay(BaseModel):
    """One check, decided again.

    Attributes:
        check_id: The check.
        at: When it was made, seconds since the epoch; None where not even that can be read.
        result: What came of it.
        verdict: The verdict in the journal; None as above.
        detail: Why nothing could be compared; empty where it could.
        version: Version of Swarmkeel that decided then; None where that was not written down.
        differences: What differs.
    """

    model_config = ConfigDict(frozen=True)

    check_id: str
    at: float | None
    result: ReplayResult
    verdict: str | None
    detail: str = ""
    version: str | None = None
    differences: tuple[Difference, ...] = ()


def replay_check(record: CheckRecord) -> Replay:
    """Decide a check again from what it followed from, and compare."""
    decision = record.decision
    seen = Replay(
        check_id=record.check_id,
        at=record.at,
        result=ReplayResult.SAME,
        verdict=decision.verdict.value,
        version=record.version,
    )
    if record.inputs is None:
        names = ", ".join(reason.name for reason in decision.reasons) or "no reason given"
        return seen.model_copy(update={"result": ReplayResult.NOTHING_DECIDED, "detail": names})
    try:
        again = decide_again(record.inputs, decision.policy)
    except UsageError as error:
        return seen.model_copy(update={"result": ReplayResult.UNKNOWN_POLICY, "detail": error.problem})
    differences = tuple(compare_decisions(decision, again))
    result = ReplayResult.DIFFERENT if differences else ReplayResult.SAME
    return seen.model_copy(update={"result": result, "differences": differences})


def unreadable(check_id: str, detail: str) -> Replay:
    """Give the replay of a check that cannot be read."""
    return Replay(check_id=check_id, at=None, result=ReplayResult.UNREADABLE, verdict=None, detail=detail)


def compare_decisions(recorded: Decision, replayed: Decision) -> Iterator[Difference]:
    """Give each place where two decisions differ, be it by the last bit of a number."""
    left, right = (_flatten("", decision.model_dump(mode="python")) for decision in (recorded, replayed))
    known = dict(right)
    for place, value in left:
        other = known.pop(place, ABSENT)
        if other != value:
            yield Difference(place=place, recorded=value, replayed=other)
    for place, other in known.items():
        yield Difference(place=place, recorded=ABSENT, replayed=other)


def _flatten(place: str, value: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - whatever a dump holds
    """Give each leaf of a dump with its place; texts tell numbers apart to the last bit, -0.0 from 0.0 too."""
    if isinstance(value, Mapping) and value:
        inside = ((f"{place}.{name}" if place else str(name), part) for name, part in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        inside = ((f"{place}[{index}]", part) for index, part in enumerate(value))
    else:
        return [(place, json.dumps(value, default=str))]
    return [leaf for name, part in inside for leaf in _flatten(name, part)]
