"""A span: the contiguous blocks that one server serves. Standard library only, since servers import it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Blocks `start` (included) to `end` (excluded) of a model, counted from its first block.

    Raises:
        ValueError: If the span is empty or starts below block 0.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.end <= self.start:
            raise ValueError(f"a span is start:end with 0 <= start < end, not {self.start}:{self.end}")

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.start}:{self.end}"

    def to_json(self) -> dict[str, int]:
        """Give the span as the control protocol and the journal write it."""
        return {"start": self.start, "end": self.end}

    @classmethod
    def from_json(cls, source: object) -> Span:
        """Read what `to_json` wrote; unknown fields are ignored.

        Raises:
            ValueError: If it is not an object with two whole numbers that make a span.
        """
        if not isinstance(source, Mapping):
            raise ValueError('a span is an object like {"start": 0, "end": 8}')
        start, end = source.get("start"), source.get("end")
        if type(start) is not int or type(end) is not int:
            raise ValueError('a span needs the whole numbers "start" and "end"')
        return cls(start, end)
