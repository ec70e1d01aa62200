"""Fixtures for tests with real Petals servers, and the figures that they measure in the summary."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.petals.support import PETALS_PYTHON

_FIGURES: dict[str, str] = {}
_LONGEST_SECONDS = 900
"""For one test: it starts a dozen processes that import torch, and others may be busy on the same machine."""


def pytest_configure() -> None:
    if not PETALS_PYTHON.exists():
        raise pytest.UsageError(f"there is no Petals environment at {PETALS_PYTHON}: run make test-petals")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(_LONGEST_SECONDS))


@pytest.fixture(autouse=True, scope="session")
def _no_dead_sockets() -> Iterator[None]:
    """Remove what killed servers leave: hivemind's sockets have their place in /tmp, wherever else files are to be."""
    before = set(Path("/tmp").glob("hivemind-p2p*.sock"))
    yield
    for path in set(Path("/tmp").glob("hivemind-p2p*.sock")) - before:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
            except ConnectionRefusedError:
                with suppress(FileNotFoundError):
                    path.unlink()
            except OSError:
                continue


@pytest.fixture
def figures() -> dict[str, str]:
    """What a test measures, by name: printed when all tests are done."""
    return _FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _FIGURES:
        terminalreporter.section("measured with real Petals servers")
        for name, value in _FIGURES.items():
            terminalreporter.write_line(f"{name}: {value}")
