"""The one family of errors that Swarmkeel raises on purpose: each says what is wrong and what to do about it."""

from __future__ import annotations

from typing import ClassVar


class SwarmkeelError(Exception):
    """Something went wrong that a person can mend.

    Args:
        problem: What is wrong and where, in one line.
        remedy: What to do about it, in one line.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}"


class UsageError(SwarmkeelError):
    """The command line or the configuration cannot be used as given."""

    exit_code: ClassVar[int] = 2
