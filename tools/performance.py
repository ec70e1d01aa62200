"""Write docs/performance.md from the results of the benchmarks: `make performance`; see `benchmarks/README.md`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.result_file import FRESH, KEPT, ROOT, Picture, Table, Text, read_result

PAGE: Final = ROOT / "docs" / "performance.md"
PICTURES: Final = ROOT / "docs" / "images"

_HEAD: Final = """\
# Performance

What Swarmkeel costs, and how that grows. This page is written by `make performance` from what the benchmarks left in
`benchmarks/results/`; each section says what measures it anew, and on which machine it was measured. Times are those of
that machine; ratios carry over to others better than times do. Tests assert no times.
"""


def performance_page(folder: Path = KEPT) -> str:
    """Give the page that shows all results of a folder.

    Raises:
        ValueError: If a file there is no result, or a picture of one has not been kept.
    """
    results = sorted(map(read_result, folder.glob("*.json")), key=lambda result: (result.order, result.name))
    sections = [_HEAD]
    for result in results:
        where = "; ".join(f"{name} {value}" for name, value in result.machine.items())
        sections += [f"## {result.title}\n", f"Measured by `{result.command}` on: {where}.\n"]
        sections += map(_markdown, result.parts)
    return "\n".join(sections)


def _markdown(part: Text | Table | Picture) -> str:
    match part:
        case Text(text):
            return f"{text.strip()}\n"
        case Table(columns, rows):
            lines = [_row(columns), f"|---|{'--:|' * (len(columns) - 1)}", *map(_row, rows)]
            return "\n".join(lines) + "\n"
        case Picture(file, says):
            if not (PICTURES / file).is_file():
                raise ValueError(f"docs/images/{file} is missing: run make performance where it was measured")
            return f"![{says}](images/{file})\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def take_over(fresh: Path = FRESH, kept: Path = KEPT, pictures: Path = PICTURES) -> list[str]:
    """Copy what was measured last, with its pictures, to where it is kept.

    Returns:
        The names of the results that were copied.

    Raises:
        ValueError: If a file is no result, or one of its pictures is missing; nothing of it is copied then.
    """
    taken = []
    kept.mkdir(parents=True, exist_ok=True)
    for path in sorted(fresh.glob("*.json")):
        result = read_result(path)
        files = [part.file for part in result.parts if isinstance(part, Picture)]
        missing = [file for file in files if not (fresh / file).is_file()]
        if missing:
            raise ValueError(f"{path}: its picture {missing[0]} does not lie beside it")
        for old in pictures.glob(f"{result.name}-*"):
            if old.name in _pictures_of(kept / path.name):
                old.unlink()
        for file in files:
            shutil.copyfile(fresh / file, pictures / file)
        shutil.copyfile(path, kept / path.name)
        taken.append(result.name)
    return taken


def _pictures_of(path: Path) -> set[str]:
    """Name the pictures of a result that is kept, if there is one."""
    if not path.is_file():
        return set()
    return {part.file for part in read_result(path).parts if isinstance(part, Picture)}


def main() -> None:
    """Take over what was measured last, and write the page."""
    taken = take_over()
    PAGE.write_text(performance_page())
    print(f"taken over: {', '.join(taken) or 'nothing new'}; written: {PAGE.relative_to(ROOT)}")  # noqa: T201 -- a script


if __name__ == "__main__":
    main()
