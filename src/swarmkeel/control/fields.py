"""JSON from another process, read with suspicion: parsed, then checked one field at a time.

Standard library only, as all that the server's side of the control protocol needs. Every reader raises ValueError with
one line that says what is wrong, where, and what is allowed there; nothing else escapes, whatever the text holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NoReturn, TypeVar

from swarmkeel.printable import printable
from swarmkeel.swarm.span import Span

MAX_ID_LENGTH: Final = 128
MAX_NAME_LENGTH: Final = 256
MAX_NAMES: Final = 64
MAX_TEXT_LENGTH: Final = 2000
MAX_WHOLE: Final = 2**31 - 1

_Phase = TypeVar("_Phase", bound=StrEnum)


def parse_json(body: bytes) -> object:
    """Read a JSON text as RFC 8259 has it: UTF-8, no NaN or Infinity.

    Raises:
        ValueError: If it is not JSON, or nested deeper than Python reads.
    """
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("the body is nested too deeply to be read as JSON") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"the body is not UTF-8: byte {error.start} cannot be read") from None
    except ValueError as error:
        raise ValueError(f"the body is not JSON: {printable(str(error), 200)}") from None


def render_json(document: Mapping[str, object]) -> bytes:
    """Write a message as it goes over the socket.

    Raises:
        ValueError: If a number is not finite.
        TypeError: If a value has no form in JSON.
    """
    return json.dumps(document, allow_nan=False).encode("ascii")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


class Fields:
    """The fields of a JSON object, each read with its type and range checked.

    Args:
        source: The object as `parse_json` gave it.
        what: What it should be, for the errors.

    Raises:
        ValueError: From the constructor if `source` is no object, from each method if the field is not what it reads.
    """

    def __init__(self, source: object, what: str) -> None:
        if not isinstance(source, Mapping):
            raise ValueError(f"a {what} must be a JSON object, not {_shown(source)}")
        self.source: Mapping[str, object] = source
        self._what = what

    def has(self, name: str) -> bool:
        """Tell whether the field is there and not null."""
        return self.source.get(name) is not None

    def refuse(self, name: str, allowed: str) -> NoReturn:
        """Raise the one line that says what is wrong, where, and what is allowed."""
        given = f"not {_shown(self.source[name])}" if name in self.source else "and is missing"
        raise ValueError(f"{self._what}: {name} {allowed}, {given}")

    def identifier(self, name: str) -> str:
        """Read an id: printable text of at most 128 characters."""
        return self._printed(name, MAX_ID_LENGTH)

    def name(self, name: str) -> str:
        """Read a name: printable text of at most 256 characters."""
        return self._printed(name, MAX_NAME_LENGTH)

    def names(self, name: str) -> tuple[str, ...]:
        """Read a list of names."""
        value = self.source.get(name)
        if not isinstance(value, list | tuple) or len(value) > MAX_NAMES:
            self.refuse(name, f"must be a list of at most {MAX_NAMES} names")
        for item in value:
            if not _is_printed(item, MAX_NAME_LENGTH):
                self.refuse(name, f"must hold names of 1 to {MAX_NAME_LENGTH} printable characters")
        return tuple(value)

    def text(self, name: str) -> str:
        """Read text that people wrote for people: any, but made harmless."""
        value = self.source.get(name)
        if not isinstance(value, str):
            self.refuse(name, "must be text")
        return printable(value, MAX_TEXT_LENGTH)

    def flag(self, name: str) -> bool:
        """Read true or false."""
        value = self.source.get(name)
        if not isinstance(value, bool):
            self.refuse(name, "must be true or false")
        return value

    def whole(self, name: str, *, least: int = 0, most: int = MAX_WHOLE) -> int:
        """Read a whole number."""
        value = self.source.get(name)
        # bool is a subclass of int in Python, but true is no number in JSON.
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.refuse(name, f"must be a whole number from {least} to {most}")
        return value

    def number(self, name: str, *, most: float = math.inf) -> float:
        """Read a finite number of at least 0."""
        value = self.source.get(name)
        range_text = "of at least 0" if most == math.inf else f"from 0 to {most:g}"
        allowed = f"must be a finite number {range_text}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(name, allowed)
        try:
            number = float(value)
        except OverflowError:  # a whole number of more than 308 digits
            self.refuse(name, allowed)
        if not (math.isfinite(number) and 0 <= number <= most):
            self.refuse(name, allowed)
        return number

    def span(self, name: str) -> Span:
        """Read a span; how many blocks there are is for the caller to know."""
        value = self.source.get(name)
        allowed = f'must be like {{"start": 0, "end": 8}} with 0 <= start < end <= {MAX_WHOLE}'
        try:
            span = Span.from_json(value)
        except ValueError:
            self.refuse(name, allowed)
        if span.end > MAX_WHOLE:
            self.refuse(name, allowed)
        return span

    def phase(self, name: str, phases: type[_Phase]) -> _Phase:
        """Read one of a fixed set of words."""
        value = self.source.get(name)
        if not isinstance(value, str) or value not in set(phases):
            self.refuse(name, f"must be one of {', '.join(phases)}")
        return phases(value)

    def _printed(self, name: str, longest: int) -> str:
        value = self.source.get(name)
        if not isinstance(value, str) or not _is_printed(value, longest):
            self.refuse(name, f"must be text of 1 to {longest} printable characters")
        return value


def _is_printed(value: object, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()


def _shown(value: object) -> str:
    """Show a value from outside in an error: short, on one line, whatever it holds."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and abs(value) > MAX_WHOLE:  # Python refuses to print whole numbers of 4,300 digits
        return "a number out of range"
    if isinstance(value, str):
        return f'"{printable(value, 60)}"'
    return json.dumps(value) if isinstance(value, bool | int | float | None) else type(value).__name__
