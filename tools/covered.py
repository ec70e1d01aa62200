"""Write the table of docs/reliability.md that says how much of the code the tests run: see `make coverage`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools.reliability import PAGE, with_part

BEGIN: Final = "<!-- the coverage: written by make coverage -->"
END: Final = "<!-- the end of the coverage -->"
FLOOR: Final = 0.95
"""Of the lines, and of the branches, of each part."""
PARTS: Final = {
    "`balance/`": "balance/",
    "`control/`, without the adapter": "control/",
    "`control/petals_*`, the adapter inside Petals": "control/petals_",
    "`daemon/`": "daemon/",
}
"""What is written, and how the names of the files begin; a file belongs to the longest beginning."""
WITHOUT_PETALS: Final = "--without-petals"
"""Leaves the adapter out, where the tests with Petals have not run."""
_HEADS: Final = ("Part", "Lines", "of them run", "", "Branches", "of them taken", "")


@dataclass(frozen=True)
class Covered:
    """How much of a part of the code ran.

    Attributes:
        name: Which part.
        lines: Statements in it.
        lines_run: Those that ran.
        branches: Ways to go on from a statement that has several.
        branches_taken: Those that were taken.
    """

    name: str
    lines: int
    lines_run: int
    branches: int
    branches_taken: int

    @property
    def least(self) -> float:
        """The smaller one of the shares of lines and branches."""
        return min(self.lines_run / self.lines, self.branches_taken / self.branches)


def parts(report: Mapping[str, Any], *, without_petals: bool = False) -> tuple[Covered, ...]:
    """Sum up a report of coverage.py in JSON, a part each.

    Raises:
        ValueError: If it was made without branches, or has no file of a part.
    """
    if not report["meta"]["branch_coverage"]:
        raise ValueError("the report was made without branches")
    inside: dict[str, list[Mapping[str, int]]] = {beginning: [] for beginning in PARTS.values()}
    for file, measured in report["files"].items():
        _, _, name = file.rpartition("swarmkeel/")
        beginnings = [beginning for beginning in inside if name.startswith(beginning)]
        if beginnings:
            inside[max(beginnings, key=len)].append(measured["summary"])
    found = []
    for part, beginning in PARTS.items():
        if without_petals and "petals" in beginning:
            continue
        if not inside[beginning]:
            raise ValueError(f"the report has no file of {beginning}")
        names = ("num_statements", "covered_lines", "num_branches", "covered_branches")
        lines, lines_run, branches, taken = (sum(summary[name] for summary in inside[beginning]) for name in names)
        found.append(Covered(part, lines, lines_run, branches, taken))
    return tuple(found)


def table(found: Sequence[Covered]) -> str:
    """Give a row for each part."""
    rows = [f"| {' | '.join(_HEADS)} |", f"|{'---|' * len(_HEADS)}"]
    rows += [
        f"| {part.name} | {part.lines:,} | {part.lines_run:,} | {part.lines_run / part.lines:.1%} "
        f"| {part.branches:,} | {part.branches_taken:,} | {part.branches_taken / part.branches:.1%} |"
        for part in found
    ]
    return "\n".join(rows)


def main() -> int:
    """Write the table from the report that the command line names; 1 if a part is below the floor."""
    file, *options = sys.argv[1:]
    found = parts(json.loads(Path(file).read_text()), without_petals=WITHOUT_PETALS in options)
    PAGE.write_text(with_part(PAGE.read_text(), table(found), BEGIN, END))
    short = [part for part in found if part.least < FLOOR]
    for part in short:
        print(f"{part.name} is below {FLOOR:.0%}: {part.least:.1%}", file=sys.stderr)  # noqa: T201 - what make shows
    return int(bool(short))


if __name__ == "__main__":
    sys.exit(main())
