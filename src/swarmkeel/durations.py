"""Durations as people write them: `90s`, `15m`, `2h`, `1d`, or a plain number of seconds."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, PlainSerializer

_SECONDS_OF: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_ALLOWED: Final = "must be a duration: a number of seconds, or text like 90s, 15m, 2h, 1d"
_PATTERN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(value: object) -> object:
    """Turn text such as `1h30m` into seconds; everything but text is handed on for pydantic to judge.

    Raises:
        ValueError: If the text is no duration.
    """
    if not isinstance(value, str):
        if isinstance(value, bool):
            raise ValueError(_ALLOWED)
        return value
    text = value.strip().replace(" ", "")
    parts = _PATTERN.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _SECONDS_OF[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        raise ValueError(_ALLOWED) from None


def format_duration(seconds: float) -> str:
    """Write seconds as `parse_duration` reads them, exactly, in the largest unit that leaves a whole number."""
    for unit in ("d", "h", "m"):
        count, rest = divmod(seconds, _SECONDS_OF[unit])
        if count >= 1 and not rest:
            return f"{int(count)}{unit}"
    text = format(Decimal(repr(seconds)), "f")
    return f"{text.removesuffix('.0')}s"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0, allow_inf_nan=False),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]
"""Seconds; read by `parse_duration`, printed by `format_duration`."""

PositiveDuration = Annotated[Duration, Field(gt=0)]
"""Seconds, more than 0."""
