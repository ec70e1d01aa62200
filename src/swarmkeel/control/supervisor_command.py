"""The command of a supervised server, with places for the blocks that it is to serve; pure."""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from swarmkeel.errors import UsageError
from swarmkeel.swarm.span import Span

_PLACES: Final = re.compile(r"\{(start|end|num_blocks)\}")


@dataclass(frozen=True)
class CommandTemplate:
    """A command with `{start}`, `{end}` (excluded) and `{num_blocks}` in its arguments; other braces mean themselves.

    There is no shell: each argument stays one argument.

    Attributes:
        arguments: The program and its arguments.

    Raises:
        UsageError: If there is no program, or no argument says which blocks.
    """

    arguments: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.arguments or not self.arguments[0]:
            raise UsageError("there is no command to run", "write it behind --, like: -- serve --blocks {start}:{end}")
        if not any("{start}" in argument for argument in self.arguments):
            raise UsageError(
                "the command does not say which blocks to serve", "put {start} and {end} where it takes them"
            )

    @property
    def name(self) -> str:
        """The name of the program without its folder."""
        return os.path.basename(self.arguments[0])  # noqa: PTH119 - a name, of a file that need not be there

    def fill(self, span: Span) -> Sequence[str]:
        """Give the command that serves these blocks."""
        values = {"start": str(span.start), "end": str(span.end), "num_blocks": str(len(span))}
        return [_PLACES.sub(lambda place: values[place[1]], argument) for argument in self.arguments]
