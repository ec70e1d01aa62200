"""Whatever a command is given, what is wrong is one plain line with a remedy, and never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from swarmkeel import cli
from swarmkeel.cli import run_command_line
from tests.support.sidecars import short_folder, write_config

_PEER: Final = "/ip4/127.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"

_BAD_FILES: Final = {
    "nowhere": None,
    "folder": None,
    "/proc/self/mem": None,  # cannot be read, not even by root
    "n" * 300: None,  # no file can have such a name
    "empty": b"",
    "junk": bytes(range(256)) * 40,
    "list": b"[1, 2]",
    "mapping": b'{"format": 1, "journal": {}}',
}
_READERS: Final = {
    "a configuration": ("run", "status", "pause", "resume", "check-now", "snapshot", "explain", "history"),
    "a snapshot": (("explain", "--peer", "x", "--snapshot"), ("simulate", "--from-snapshot")),
    "a journal": (("replay",), ("report",)),
    "a scenario": (("simulate",),),
}
_READING: Final = [
    *(((command, "--config"), file) for command, file in product(_READERS["a configuration"], _BAD_FILES)),
    *(
        (words, file)
        for kind in ("a snapshot", "a journal", "a scenario")
        for words, file in product(_READERS[kind], _BAD_FILES)
    ),
]
_NOBODY_THERE: Final = [
    ("status", "-c", "good.yaml"),
    ("pause", "-c", "good.yaml"),
    ("resume", "-c", "good.yaml"),
    ("check-now", "-c", "good.yaml"),
    ("history", "-c", "good.yaml"),
    ("explain", "-c", "good.yaml"),
    ("init", "--socket", "nobody.sock", "--initial-peers", _PEER),
    ("init", "--socket", "junk", "--initial-peers", _PEER),
    ("init", "--socket", "nobody.sock", "--initial-peers", _PEER, "--output", "n" * 300),
    ("report", "http://127.0.0.1:1"),
]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with short_folder() as made:
        (made / "folder").mkdir()
        for name, content in _BAD_FILES.items():
            if content is not None:
                (made / name).write_bytes(content)
        nobody = {"socket": str(made / "nobody.sock"), "request_timeout": 0.2}
        write_config(made / "good.yaml", made / "nobody.sock", [_PEER], server=nobody)
        yield made


@pytest.fixture(autouse=True)
def _in_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def _complaint(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Run a command that fails; gives the line that it says, without its beginning."""
    code = run_command_line(arguments)
    shown = capsys.readouterr()
    assert code in (1, 2), (arguments, shown)
    assert shown.out == "", arguments
    assert shown.err.startswith("swarmkeel: "), (arguments, shown.err)
    assert shown.err.count("\n") == 1, (arguments, shown.err)
    line = shown.err[len("swarmkeel: ") : -1]
    assert line.isprintable(), arguments
    assert not line.startswith("unexpected"), (arguments, line)
    problem, _, remedy = line.rpartition(": ")
    assert problem, (arguments, line)
    assert len(remedy) > 8, (arguments, line)
    return line


@pytest.mark.parametrize("words", dict.fromkeys(words for words, _ in _READING), ids=" ".join)
def test_a_file_that_cannot_be_used_is_named_with_what_to_do(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for reader, file in _READING:
        if reader == words:
            assert file[:50] in _complaint(capsys, [*words, file]), file


@pytest.mark.parametrize("arguments", _NOBODY_THERE, ids=" ".join)
def test_where_nobody_answers_it_is_said_who_should(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    line = _complaint(capsys, list(arguments))
    assert "Errno" not in line
    assert run_command_line(["--debug", *arguments]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.splitlines()[-1].startswith("swarmkeel: ")


def _commands() -> dict[str, Any]:
    program: Any = typer.main.get_command(cli._make_app([]))
    return dict(program.commands)


@pytest.mark.parametrize("name", _commands())
def test_no_option_takes_nonsense(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    # Any text is a path or a name; what else is asked for can be something else.
    asked = [
        parameter.opts[-1]
        for parameter in _commands()[name].params
        if parameter.opts[0].startswith("-") and parameter.type_descriptor.annotation not in (str, Path, bool)
    ]
    tried = [["--nonsense"], ["--nonsense=\x1b[31m"], *([option, "nonsense\x1b"] for option in asked)]
    for options in tried:
        assert f"swarmkeel {name} --help" in _complaint(capsys, [name, *options])
