"""A pause: the operator's word that the server is not to be moved. Pure: who said so, why, and until when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from swarmkeel.balance.decision import Decision, Reason, Verdict

MAX_REASON_LENGTH: Final = 300
LONGEST_SECONDS: Final = 10 * 366 * 86_400.0
"""Ten years; a longer pause has no end."""
_NOT_PAUSED: Final = frozenset({Verdict.DISABLED, Verdict.INSUFFICIENT_INFORMATION, Verdict.FAILED})
"""What a pause does not hide: nothing would be moved then anyway, and an operator must see why."""


class Pause(BaseModel):
    """A pause; times are seconds since the epoch.

    Attributes:
        since: When it was asked for.
        until: When it ends by itself; None where only `resume` ends it.
        reason: Why, in the operator's words; empty where none was given.
        uid: The user who asked for it.
    """

    model_config = ConfigDict(frozen=True)

    since: float
    until: float | None
    reason: Annotated[str, Field(max_length=MAX_REASON_LENGTH)] = ""
    uid: int

    def holds(self, now: float) -> bool:
        """Tell whether it has not ended yet."""
        return self.until is None or now < self.until

    @property
    def until_text(self) -> str:
        """When it ends, in words."""
        return "it is resumed" if self.until is None else format_time(self.until)


def format_time(seconds: float) -> str:
    """Write a moment, seconds since the epoch, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def apply_pause(decision: Decision, pause: Pause | None) -> Decision:
    """Turn a decision into `paused`, which says what it would have been; others than a look at the balance pass unchanged.

    Args:
        decision: What the policy and the guards have decided.
        pause: The pause that holds; None without one.
    """
    if pause is None or decision.verdict in _NOT_PAUSED:
        return decision
    values = {
        "until": pause.until_text,
        "uid": pause.uid,
        "note": pause.reason or "no reason given",
        "would": decision.verdict.value,
    }
    reasons = (Reason(name="paused", values=values), *decision.reasons)
    return decision.model_copy(update={"verdict": Verdict.PAUSED, "reasons": reasons})
