"""What the tests of the control protocol share: a short directory for sockets."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path for a socket, short enough for the kernel however deep pytest's own directories are."""
    directory = Path(tempfile.mkdtemp(prefix="sk-"))
    yield directory / "server.sock"
    shutil.rmtree(directory)
