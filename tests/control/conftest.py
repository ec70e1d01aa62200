"""What the tests of the control protocol share: a short path for a socket, and a server that answers there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmkeel.control.server import ControlServer
from tests.control.recording import RecordingServer


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path for a socket, short enough for the kernel however deep pytest's own directories are."""
    directory = Path(tempfile.mkdtemp(prefix="sk-"))
    yield directory / "server.sock"
    shutil.rmtree(directory)


@pytest.fixture
def recording() -> RecordingServer:
    return RecordingServer()


@pytest.fixture
def served(socket_path: Path, recording: RecordingServer) -> Iterator[Path]:
    """The path of a socket at which `recording` answers, quick to lose patience."""
    with ControlServer(socket_path, recording, request_seconds=2.0):
        yield socket_path
    assert not socket_path.exists()
