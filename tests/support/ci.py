"""A pytest plugin for tests that need something from outside: where to find it, and no skipping in CI."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

_DEBIAN_PROGRAMS = Path(__file__).parents[2] / ".venv" / "debian" / "usr" / "bin"


def pytest_configure() -> None:
    """Put what fetch_prometheus.sh fetched on the PATH, after what the machine has itself."""
    if _DEBIAN_PROGRAMS.is_dir():
        os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{_DEBIAN_PROGRAMS}"


def _is_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if _is_ci() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}: in CI every test has to run"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report


def pytest_sessionfinish() -> None:
    """Write down at once what `make coverage` measured here: a worker that takes long over its end is killed."""
    if "coverage" in sys.modules and (measured := sys.modules["coverage"].Coverage.current()) is not None:
        measured.save()
