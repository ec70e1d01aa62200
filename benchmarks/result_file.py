"""What a benchmark leaves behind: one JSON file of text, tables and pictures, see `benchmarks/README.md`."""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
FRESH: Final = ROOT / "build" / "bench"
"""Where benchmarks write what they have just found, with their pictures; git ignores it."""
KEPT: Final = ROOT / "benchmarks" / "results"
"""The results that docs/performance.md shows; `make performance` takes the fresh ones over."""

_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PACKAGES: Final = ("numpy", "hivemind", "torch", "pydantic")


@dataclass(frozen=True)
class Text:
    """Paragraphs, in Markdown; headings inside start at `###`."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table whose cells are text as it is to be shown; all columns but the first are aligned to the right.

    Raises:
        ValueError: If a row has another number of cells than there are columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns) or not all(isinstance(cell, str) for cell in row):
                raise ValueError(f"a row has {len(self.columns)} cells of text here, not {row!r}")


@dataclass(frozen=True)
class Picture:
    """A picture that lies beside the JSON file.

    Attributes:
        file: Its name, which starts with that of the result: `selection-growth.svg`.
        says: What is to be seen in it, for those who do not see it.
    """

    file: str
    says: str


Part = Text | Table | Picture


@dataclass(frozen=True)
class Result:
    """One section of docs/performance.md.

    Attributes:
        name: Name of the file, in lower case with hyphens.
        title: Heading of the section.
        order: Sections with smaller numbers come first; two with the same by their names.
        command: What measures it anew.
        machine: Where it was measured, from `machine`.
        parts: What the section shows, in this order.
        figures: The bare numbers behind it, for programs; may hold anything that JSON can.

    Raises:
        ValueError: If the name is not of that form, or a picture is not named after the result.
    """

    name: str
    title: str
    order: int
    command: str
    machine: Mapping[str, str]
    parts: Sequence[Part]
    figures: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a result's name is in lower case with hyphens, not {self.name!r}")
        for part in self.parts:
            if isinstance(part, Picture) and not re.fullmatch(
                re.escape(self.name) + r"-[a-z0-9-]+\.(svg|png)", part.file
            ):
                raise ValueError(f"a picture of it is named {self.name}-SOMETHING.svg or .png, not {part.file!r}")


def machine(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Describe this machine, how busy it is and what is installed, without a word that tells which machine it is."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    described = {
        "processor": f"{cpu}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.0f} when it was measured",
    }
    for package in packages:
        try:
            described[package] = version(package)
        except PackageNotFoundError:
            continue
    return described


def three_digits(value: float) -> str:
    """Give a number as it is to be read: three digits that count, and whole numbers whole."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{digits}f}"


def write_result(result: Result, folder: Path = FRESH) -> Path:
    """Write a result as `NAME.json` and give the file's path. Its pictures have to lie in the same folder."""
    parts: list[dict[str, Any]] = []
    for part in result.parts:
        match part:
            case Text(text):
                parts.append({"text": text})
            case Table(columns, rows):
                parts.append({"columns": list(columns), "rows": [list(row) for row in rows]})
            case Picture(file, says):
                parts.append({"picture": file, "says": says})
    document = {
        "title": result.title,
        "order": result.order,
        "command": result.command,
        "machine": dict(result.machine),
        "parts": parts,
        "figures": result.figures or {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.name}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path


def read_result(path: Path) -> Result:
    """Read what `write_result` wrote, or what somebody wrote by hand in that form.

    Raises:
        ValueError: If it is not of that form; says what is missing.
    """
    try:
        document = json.loads(path.read_text())
        return Result(
            name=path.stem,
            title=str(document["title"]),
            order=int(document["order"]),
            command=str(document["command"]),
            machine={str(name): str(value) for name, value in document["machine"].items()},
            parts=[_read_part(part) for part in document["parts"]],
            figures=document.get("figures", {}),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not a result as benchmarks/README.md describes it: {error!r}") from error


def _read_part(part: Mapping[str, Any]) -> Part:
    if "text" in part:
        return Text(str(part["text"]))
    if "columns" in part:
        return Table(part["columns"], part["rows"])
    return Picture(str(part["picture"]), str(part["says"]))
