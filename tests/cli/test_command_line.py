"""The command line: exit codes, failures in one plain line, and nothing loaded that is not needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from swarmkeel.cli import run_command_line
from swarmkeel.config import load_config
from swarmkeel.errors import SwarmkeelError

_EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


def swarmkeel(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "swarmkeel", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def the_line(text: str) -> str:
    """The one line that a failure prints."""
    assert text.startswith("swarmkeel: ")
    assert text.count("\n") == 1
    assert text[:-1].isprintable()
    return text.removeprefix("swarmkeel: ").rstrip()


def break_check_config(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `check-config` run into an error."""

    def fail(_: Path) -> NoReturn:
        raise error

    monkeypatch.setattr(import_module("swarmkeel.commands.check_config"), "load_config", fail)


def test_the_script_and_the_module_are_the_same() -> None:
    script = Path(sys.executable).with_name("swarmkeel")
    by_script = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert by_script.stdout == swarmkeel("--version").stdout
    assert by_script.stdout.startswith("swarmkeel 0.")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--help", "run"], ["--debug", "--help"]])
def test_help_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(arguments) == 0
    shown = capsys.readouterr().out
    for command in ("run", "demo", "check-config", "snapshot", "explain", "history", "simulate", "supervise"):
        assert f" {command} " in shown


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["snapsot"], "No such command"),
        (["snapshot"], "Missing option"),
        (["explain"], "'--config' / '--snapshot': give one of the two: swarmkeel explain --help"),
        (["explain", "-c", "a", "--snapshot", "b"], "'--config' / '--snapshot': give one of the two"),
        (["explain", "--snapshot", "b"], "--peer"),
        (["check-config", "--nope", "a"], "No such option"),
        (["history", "-c", "a", "-n", "0"], "-n"),
        (["explain", "--snapshot", "b", "--peer", "p", "--seed", "x"], "--seed"),
        (["snapshot", "-c", "/nowhere\x1b[31m"], "cannot be read: No such file or directory: mend the configuration"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(arguments) == 2
    shown = capsys.readouterr()
    assert what in the_line(shown.err)
    assert shown.out == ""


def test_a_failure_is_one_line_and_exit_code_1() -> None:
    run = swarmkeel("explain", "--snapshot", "/nowhere.json", "--peer", "x")
    assert run.returncode == 1
    assert the_line(run.stderr) == "/nowhere.json: No such file or directory: name a file that can be read"


def test_a_traceback_is_shown_on_demand_alone() -> None:
    run = swarmkeel("--debug", "explain", "--snapshot", "/nowhere.json", "--peer", "x")
    assert run.returncode == 1
    assert "Traceback" in run.stderr
    assert run.stderr.endswith("swarmkeel: /nowhere.json: No such file or directory: name a file that can be read\n")


def test_what_nobody_expected_is_one_harmless_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_check_config(monkeypatch, RuntimeError("bo\x1b[31mom\n" * 1000))
    assert run_command_line(["check-config", "x"]) == 1
    line = the_line(capsys.readouterr().err)
    assert line.startswith("unexpected RuntimeError: bo?[31mom?")
    assert len(line) <= 2000
    assert line.endswith("run it again with swarmkeel --debug ...")
    assert run_command_line(["--debug", "check-config", "x"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_error_out_of_a_task_group_is_named_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = ExceptionGroup("tasks", [SwarmkeelError("the sea is rough", "wait")])
    break_check_config(monkeypatch, ExceptionGroup("tasks", [ValueError("x"), inner]))
    assert run_command_line(["check-config", "x"]) == 1
    assert the_line(capsys.readouterr().err) == "the sea is rough: wait"


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    break_check_config(monkeypatch, KeyboardInterrupt())
    assert run_command_line(["check-config", "x"]) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "swarmkeel", "check-config", "--print", str(_EXAMPLE)]
    run = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert run.stderr == ""
    assert run.returncode == 1


def test_text_that_the_terminal_cannot_show_is_no_error() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "SWARMKEEL_SWARM__DHT_PREFIX": "模型"}
    run = swarmkeel("check-config", "--print", _EXAMPLE, env=environment)
    assert run.returncode == 0
    assert "dht_prefix: ??" in run.stdout


def test_a_good_configuration_is_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["check-config", str(_EXAMPLE)]) == 0
    assert capsys.readouterr().out == f"{_EXAMPLE}: OK\n"


def test_all_mistakes_of_a_configuration_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("swarm: {dht_prefix: a.b, total_blocks: 0}\nserver: {socket: /s}\nbalance: {qualty: 1}\n")
    run = swarmkeel("check-config", path)
    assert run.returncode == 2
    assert run.stdout == ""
    assert [line.partition(": ")[0] for line in run.stderr.splitlines()] == [
        "swarm.dht_prefix",
        "swarm.total_blocks",
        "swarm.initial_peers",
        "balance.qualty",
        "journal.path",
    ]


def test_what_is_wrong_and_what_is_in_force_come_as_json_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("server: {socket: /s}\njournal: {path: /j}\nswarm: {dht_prefix: a.b}\n")
    assert run_command_line(["check-config", "--json", str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.err == ""
    document = json.loads(shown.out)
    assert (document["file"], document["ok"]) == (str(path), False)
    assert [found["where"] for found in document["findings"]] == [
        "swarm.dht_prefix",
        "swarm.total_blocks",
        "swarm.initial_peers",
    ]
    assert run_command_line(["check-config", "--json", str(_EXAMPLE)]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(_EXAMPLE), "ok": True, "findings": []}
    assert run_command_line(["check-config", "--json", "--print", str(_EXAMPLE)]) == 0
    assert json.loads(capsys.readouterr().out) == load_config(_EXAMPLE).model_dump(mode="json")


def test_scenarios_are_listed_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["simulate", "--list", "--json"]) == 0
    assert "steady-churn" in [scenario["name"] for scenario in json.loads(capsys.readouterr().out)]


def test_the_effective_configuration_is_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWARMKEEL_GUARDS__COOLDOWN", "90m")
    assert run_command_line(["check-config", "--print", str(_EXAMPLE)]) == 0
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown)["guards"]["cooldown"] == "90m"
    assert yaml.safe_load(shown)["http"]["port"] == 9476
    effective = load_config(_EXAMPLE)
    monkeypatch.delenv("SWARMKEEL_GUARDS__COOLDOWN")
    path = tmp_path / "config.yaml"
    path.write_text(shown)
    assert load_config(path) == effective


def test_what_needs_no_dht_does_not_load_it(tmp_path: Path) -> None:
    code = (
        "import sys; from swarmkeel.cli import run_command_line\n"
        f"for arguments in (['--help'], ['check-config', {str(_EXAMPLE)!r}]): run_command_line(arguments)\n"
        "print(*{'hivemind', 'torch'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.endswith("OK\n\n")
