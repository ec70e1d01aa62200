"""Fixtures for tests with real Petals servers."""

from __future__ import annotations

import pytest

from tests.petals.support import PETALS_PYTHON


def pytest_configure() -> None:
    if not PETALS_PYTHON.exists():
        raise pytest.UsageError(f"there is no Petals environment at {PETALS_PYTHON}: run make test-petals")
