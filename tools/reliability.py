"""Write the table of docs/reliability.md from what the tests of faults found: see `make reliability`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support.ledger import FAULTS, Finding, findings

PAGE: Final = Path(__file__).parents[1] / "docs" / "reliability.md"
BEGIN: Final = "<!-- the table: written by make reliability -->"
END: Final = "<!-- the end of the table -->"
_HEADS: Final = ("Fault", "Injected", "Must end in", "Ended in", "Moves", "Restarts")


def table(found: Sequence[Finding]) -> str:
    """Give a row for each fault, in the order of `FAULTS`.

    Raises:
        ValueError: If one of them was never injected.
    """
    rows = [f"| {' | '.join(_HEADS)} |", f"|{'---|' * len(_HEADS)}"]
    for fault, expected in FAULTS.items():
        of_it = [finding for finding in found if finding.fault == fault]
        injected = sum(finding.injected for finding in of_it)
        if not injected:
            raise ValueError(f"nobody has injected: {fault}")
        ends = Counter(finding.happened for finding in of_it)
        ended = "; ".join(
            end if len(ends) == 1 else f"{end} ({count} of {len(of_it)})" for end, count in sorted(ends.items())
        )
        moves, restarts = (sum(getattr(finding, name) for finding in of_it) for name in ("moves", "restarts"))
        rows.append(f"| {fault} | {injected:,} | {expected} | {ended} | {moves:,} | {restarts:,} |")
    return "\n".join(rows)


def with_part(page: str, written: str, begin: str, end: str) -> str:
    """Give the page with something else between two marks.

    Raises:
        ValueError: If it does not have the marks.
    """
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"the page has no part from {begin} to {end}")
    return f"{before}{begin}\n\n{written}\n\n{end}{after}"


def main() -> None:
    """Write the table from the findings in the folder that the command line names."""
    PAGE.write_text(with_part(PAGE.read_text(), table(findings(Path(sys.argv[1]))), BEGIN, END))


if __name__ == "__main__":
    main()
