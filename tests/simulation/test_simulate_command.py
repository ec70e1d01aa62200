from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from swarmkeel.cli import run_command_line
from swarmkeel.simulation.scenario import load_scenario

_TINY = "name: tiny\nsizes: [16/6]\nduration: 30m\nwarm_up: 15m\nchurn: {mean_life: 1h}\n"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(_TINY)
    return path


def test_a_comparison_ends_in_a_table_curves_and_a_page(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["simulate", str(tiny), "--policies", "petals,none", "--seeds", "2", "--processes", "1"]
    assert run_command_line([*arguments, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "tiny, 16 blocks / 6 servers, 2 seeds" in shown
    assert re.search(r"better on \d of 2", shown)
    assert (out / "tiny-16-6.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "index.html").read_text()
    assert "data:image/png;base64," in page
    assert not re.search(r'(?:src|href)="https?:', page), "the page needs nothing from elsewhere"
    document = json.loads((out / "results.json").read_text())
    assert [run["policy"] for run in document[0]["runs"]] == ["petals", "petals", "none", "none"]


def test_json_is_for_machines_and_the_same_every_time(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "simulate",
        str(tiny),
        "--policies",
        "petals,coordinated",
        "--seeds",
        "1",
        "--processes",
        "1",
        "--json",
    ]
    assert run_command_line(arguments) == 0
    first = capsys.readouterr().out
    assert run_command_line(arguments) == 0
    assert capsys.readouterr().out == first
    (comparison,) = json.loads(first)
    assert comparison["size"] == "16/6"
    assert comparison["seeds"] == [0]
    assert set(comparison["summaries"]) == {"petals", "coordinated"}


def test_a_recorded_swarm_is_the_starting_point(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = load_scenario("recorded").recorded
    assert recorded is not None
    arguments = ["simulate", "--from-snapshot", str(recorded.snapshot), "--hours", "0.5", "--seeds", "1", "--json"]
    assert run_command_line([*arguments, "--policies", "petals,none", "--processes", "1"]) == 0
    (comparison,) = json.loads(capsys.readouterr().out)
    assert comparison["size"] == "80/7"
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    assert run_command_line(["simulate", "--from-snapshot", str(bad)]) == 1
    assert str(bad) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "steady-churn"),
        ([], "--list"),
        (["steady-churn", "--policies", "petalz"], "petalz"),
        (["steady-churn", "--sizes", "80"], "80/30"),
        (["recorded", "--sizes", "80/30"], "its own size"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["simulate", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_without_the_extra_the_command_names_it(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmkeel.commands.simulate.find_spec", lambda name: None if name == "matplotlib" else name)
    assert run_command_line(["simulate", str(tiny), "--out", str(tmp_path / "out")]) == 1
    assert "pip install 'swarmkeel[simulate]'" in capsys.readouterr().err


def test_the_scenarios_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["simulate", "--list"]) == 0
    assert "mass-failure" in capsys.readouterr().out
