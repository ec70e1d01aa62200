"""What every test runs with."""

import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

import swarmkeel.swarm.hivemind_dht  # noqa: F401 - before any test takes hivemind for itself, with all that it loads
import tests.support.examples  # noqa: F401 - its profiles

pytest_plugins = ["tests.support.ci", "tests.support.shared_peers"]

settings.load_profile("swarmkeel")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what a test's command or daemon set up for the whole process: the next test may look for warnings in the log."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
