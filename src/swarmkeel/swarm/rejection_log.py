"""Says in the log what was rejected: at once what is new, and once in a while what goes on.

Whoever plants junk leaves it there for hours, and it is found again by every reading: the log must not fill up with it.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import structlog

REPEAT_SECONDS: Final = 600.0
"""What goes on is said again after this time."""

_log = structlog.get_logger(__name__)


class RejectionLog:
    """Writes one kind of rejections to the log. The reasons are those of a small fixed set, and so are the lines.

    Args:
        event: Name of the event.
        clock: Seconds that only grow.
    """

    def __init__(self, event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._clock = clock
        self._said_at: dict[str, float] = {}
        self._unsaid: Counter[str] = Counter()

    def note(self, rejected: Mapping[str, int]) -> None:
        """Take note of what one reading has rejected, by reason, and say it if it is time to.

        A line counts all that was rejected since the last one, whatever the reason.
        """
        now = self._clock()
        found = {reason: count for reason, count in rejected.items() if count}
        self._unsaid.update(found)
        if all(now - self._said_at.get(reason, -math.inf) < REPEAT_SECONDS for reason in found):
            return
        _log.warning(self._event, **self._unsaid)
        self._said_at |= dict.fromkeys(self._unsaid, now)
        self._unsaid.clear()
