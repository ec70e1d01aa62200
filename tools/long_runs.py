"""Write what long runs found into docs/reliability.md: see `make soak` and `make chaos-figures`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tools.reliability import PAGE

_COURSES: Final = ("", "1st quarter", "2nd", "3rd", "last", "largest", "a thousand checks more", "last at most")
_RUNS: Final = (
    "Seed",
    "Faults",
    "Checks",
    "Moves (most of one server)",
    "Ways back",
    "Moves that uncovered blocks",
    "At rest after",
    "Of the best possible",
    "Memory before, after",
    "Left behind",
    "Rules broken",
)


def soak_section(report: dict[str, Any]) -> str:
    """Give the figures of a soak as a sentence and a table.

    Raises:
        ValueError: If something grew: that is nothing to publish. A soak that was cut short says so.
    """
    grown = [course["measure"] for course in report["courses"] if not course["bounded"]]
    if grown:
        raise ValueError(f"this soak did not pass, growing: {', '.join(grown)}")
    failures = sum(report["failures"].values())
    said = (
        f"{report['checks']:,} checks by {report['sidecars']} sidecars in {report['seconds'] / 60:.0f} minutes, with "
        f"{report['moves']:,} moves and {failures} failures; in a day at the usual period a sidecar makes 1,440. Means of "
        "all sidecars:"
    )
    if report["broken"]:
        said = f"**This soak was cut short: {report['broken']}.** {said}"
    rows = [_row(_COURSES), f"|---|{'---:|' * (len(_COURSES) - 1)}"]
    for course in report["courses"]:
        unit = f" {course['unit']}" if course["unit"] else ""
        quarters = [f"{mean:.1f}" for mean in course["quarters"]]
        slope = f"{course['per_thousand_checks']:+.2f}"
        rows.append(
            _row(
                (
                    f"{course['measure']},{unit}".rstrip(","),
                    *quarters,
                    f"{course['largest']:.1f}",
                    slope,
                    f"{course['allowed']:.1f}",
                )
            )
        )
    return "\n".join([said, "", *rows])


def chaos_section(reports: Sequence[dict[str, Any]]) -> str:
    """Give the figures of some chaos runs, one row each, and what explained the moves that uncovered blocks."""
    rows = [_row(_RUNS), f"|{'---:|' * len(_RUNS)}"]
    explained: dict[str, int] = {}
    kinds: set[str] = set()
    for report in sorted(reports, key=lambda one: int(one["seed"])):
        judgement, end, left = report["judgement"], report["end"], report["leftovers"]
        moves = judgement["moves"].values()
        kinds |= set(report["faults"])
        rows.append(
            _row(
                (
                    report["seed"],
                    sum(report["faults"].values()),
                    f"{report['checks']:,}",
                    f"{sum(moves)} ({max(moves)})",
                    judgement["fallbacks"],
                    len(judgement["uncoverings"]),
                    f"{end['seconds']:.0f} s",
                    f"{end['share']:.0%}",
                    f"{report['before']['rss_mb']:.0f}, {report['after']['rss_mb']:.0f} MB",
                    f"{left['processes']} processes, {len(left['files'])} files",
                    len(report["violations"]),
                )
            )
        )
        for why, count in report["uncovered_because"].items():
            explained[why] = explained.get(why, 0) + count
    lines = [*rows, "", f"Faults of {len(kinds)} kinds: {'; '.join(sorted(kinds))}."]
    if explained:
        lines += ["", "What explained the moves that uncovered blocks:", ""]
        lines += [f"- {count}: {why}" for why, count in sorted(explained.items())]
    return "\n".join(lines)


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def with_section(page: str, name: str, text: str) -> str:
    """Give the page with another text between the two marks of this name.

    Raises:
        ValueError: If the page has no such marks.
    """
    begin, end = f"<!-- {name}: written by tools/long_runs.py -->", f"<!-- the end of {name} -->"
    if begin not in page or end not in page:
        raise ValueError(f"the page has no place for {name}")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"


def main(arguments: Sequence[str]) -> None:
    """Write one section; the arguments are its name, and the reports."""
    name, *paths = arguments
    reports = [json.loads(Path(path).read_text()) for path in paths]
    text = soak_section(reports[0]) if name == "soak" else chaos_section(reports)
    PAGE.write_text(with_section(PAGE.read_text(), name, text))


if __name__ == "__main__":
    main(sys.argv[1:])
