"""Write the files that follow from the code: `make docs-generate`. A test fails when one of them is stale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tools.commands_page import commands_page
from tools.configuration_page import configuration_page, example_config
from tools.metrics_page import metrics_page
from tools.performance import performance_page

ROOT: Final = Path(__file__).parents[1]

DOCUMENTS: Final[Mapping[str, Callable[[], str]]] = {
    "config.example.yaml": example_config,
    "docs/reference/configuration.md": configuration_page,
    "docs/reference/metrics.md": metrics_page,
    "docs/reference/commands.md": commands_page,
    "docs/performance.md": performance_page,
}
"""What makes each generated file, by its path in the project."""


def stale_documents() -> list[str]:
    """Name the generated files that are not what they should be."""
    stale = []
    for name, make in DOCUMENTS.items():
        path = ROOT / name
        if not path.is_file() or path.read_text() != make():
            stale.append(name)
    return stale


def main() -> None:
    """Write all of them anew."""
    for name, make in DOCUMENTS.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make())


if __name__ == "__main__":
    main()
