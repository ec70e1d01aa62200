"""The configurations in deploy/petals/: one for each way to run a Petals server, each of them valid as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmkeel.cli import run_command_line

_FOLDER = Path(__file__).parents[2] / "deploy" / "petals"


def test_there_is_one_for_each_way() -> None:
    assert {path.name for path in _FOLDER.iterdir()} == {"adapter.yaml", "supervise.yaml"}


@pytest.mark.parametrize("way", ["adapter", "supervise"])
def test_check_config_passes(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["check-config", str(_FOLDER / f"{way}.yaml")]) == 0
    assert capsys.readouterr().err == ""
