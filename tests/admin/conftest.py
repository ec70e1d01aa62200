from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admin.commands import Commands
from tests.support.sidecars import short_folder


@pytest.fixture
def swarmkeel(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made
