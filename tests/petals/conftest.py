"""Fixtures for tests with real Petals servers, and the figures that they measure in the summary."""

from __future__ import annotations

import pytest

from tests.petals.support import PETALS_PYTHON

_FIGURES: dict[str, str] = {}


def pytest_configure() -> None:
    if not PETALS_PYTHON.exists():
        raise pytest.UsageError(f"there is no Petals environment at {PETALS_PYTHON}: run make test-petals")


@pytest.fixture
def figures() -> dict[str, str]:
    """What a test measures, by name: printed when all tests are done."""
    return _FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _FIGURES:
        terminalreporter.section("measured with real Petals servers")
        for name, value in _FIGURES.items():
            terminalreporter.write_line(f"{name}: {value}")
