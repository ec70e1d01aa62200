"""Every command in the documentation exists, and all that can be run here are run.

The convention: commands stand in blocks marked `sh`, one a line, or in blocks marked `console` behind a `$`. What cannot be
run here is named below, with the reason. Scripts over many machines stand in blocks marked `bash`; of these it is checked that
our commands in them exist.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from swarmkeel import cli
from swarmkeel.commands import init
from swarmkeel.control.client import ControlClient
from swarmkeel.control.protocol import ServerPhase
from tests.support.servers import stand_in
from tests.support.sidecars import SidecarProcess, short_folder, sidecar_process, write_config

_ROOT: Final = Path(__file__).parents[2]
_PAGES: Final = [
    *(page for page in _ROOT.glob("*.md")),
    *(page for folder in ("docs", "deploy") for page in (_ROOT / folder).rglob("*.md")),
]
_WRITTEN_BY_TYPER: Final = _ROOT / "docs" / "reference" / "commands.md"

_NOT_RUN: Final = {
    r"make ": "the goals are looked up in the Makefile, and most are CI's own",
    r"(/opt/\S+/|sudo )?(pip3?|python3?(\.\d+)?) -?": "installs, or takes minutes",
    r"swarmkeel demo\b": "tests/demo runs it",
    r"swarmkeel simulate (?!--list)": "tests/simulation runs it",
    r"swarmkeel supervise\b": "tests/cli/test_supervise.py runs it",
    r"swarmkeel run -c \S+$": "this is the sidecar that runs beside all others here",
    r"(\S+/pip|useradd|install|systemctl|docker|kubectl|git|cp|tar|sha256sum|journalctl|mkdir|chown|podman) ": (
        "changes the machine, or needs one of its own"
    ),
    r"curl -sN ": "goes on until Ctrl-C; tests/page reads it",
    r"sqlite3 ": "needs a program that the tests do not install; SQLite's own copy is SQLite's business",
}
"""What is not run, as regular expressions of how it begins, and why."""

_BLOCK: Final = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```\s*$", re.MULTILINE | re.DOTALL
)
_UNMARKED: Final = re.compile(r"^ {4,}(swarmkeel|make|curl|pip|python3?|systemctl|docker|kubectl) .*$", re.MULTILINE)
_INLINE: Final = re.compile(r"`swarmkeel ([^`]+)`")
_IN_A_SCRIPT: Final = re.compile(r"(?<![\w/.-])swarmkeel ([a-z][^|&;$'\"\n]*)")


@dataclass(frozen=True)
class DocumentedCommand:
    """One command line of a page."""

    page: Path
    line: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(_ROOT)}: {self.line}"


def _blocks(page: Path) -> Iterator[tuple[str, str]]:
    for match in _BLOCK.finditer(page.read_text()):
        text = "\n".join(line.removeprefix(match["indent"]) for line in match["text"].splitlines())
        yield match["language"], text.replace("\\\n", " ")


def _commands_of(page: Path) -> Iterator[DocumentedCommand]:
    for language, text in _blocks(page):
        for line in text.splitlines():
            if language == "console" and line.startswith("$ "):
                yield DocumentedCommand(page, line.removeprefix("$ ").strip())
            elif language == "sh" and line.strip() and not line.lstrip().startswith("#"):
                yield DocumentedCommand(page, " ".join(line.split()))


_COMMANDS: Final = [command for page in sorted(_PAGES) if page != _WRITTEN_BY_TYPER for command in _commands_of(page)]


def _words(line: str) -> list[str]:
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        del words[0]
    return words


def _is_ours(words: list[str]) -> bool:
    return bool(words) and Path(words[0]).name == "swarmkeel"


@pytest.fixture(scope="module")
def program() -> Any:
    return typer.main.get_command(cli._make_app([]))


def _options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def test_the_pages_have_commands_and_all_are_marked() -> None:
    assert len(_COMMANDS) > 30
    unmarked = [
        f"{page.relative_to(_ROOT)}: {found.group().strip()}"
        for page in _PAGES
        for found in _UNMARKED.finditer(_BLOCK.sub("", page.read_text()))
    ]
    assert unmarked == [], "put them into a block marked sh"


def test_every_swarmkeel_command_of_a_block_is_good_usage(program: Any) -> None:
    context = typer.Context(program)
    for command in _COMMANDS:
        for part in command.line.split("&&"):
            words = _words(part)
            if not _is_ours(words):
                continue
            arguments = [word for word in words[1:] if word != "--debug"]
            if arguments[0].startswith("-"):
                assert arguments[0] in _options_of(program), command
                continue
            found = program.get_command(context, arguments[0])
            assert found is not None, command
            try:
                found.make_context(arguments[0], arguments[1:], parent=context)
            except typer.TyperException as error:
                pytest.fail(f"{command}: {error.format_message()}")


def _in_sentences_and_scripts(page: Path) -> Iterator[str]:
    yield from _INLINE.findall(_BLOCK.sub("", page.read_text()))
    for language, text in _blocks(page):
        if language == "bash":
            yield from _IN_A_SCRIPT.findall(text)


def test_every_swarmkeel_command_in_a_sentence_or_script_is_there_with_its_options(program: Any) -> None:
    context = typer.Context(program)
    seen = 0
    for page in _PAGES:
        for text in _in_sentences_and_scripts(page):
            command = program
            for word in text.partition(" -- ")[0].split():
                if word.startswith("-"):
                    assert word.partition("=")[0] in _options_of(command), f"{page}: swarmkeel {text}"
                elif command is program and word != "...":
                    command = program.get_command(context, word)
                    assert command is not None, f"{page}: swarmkeel {text}"
                    seen += 1
    assert seen > 20


def test_every_goal_of_make_is_there() -> None:
    goals = set(re.findall(r"^([a-z-]+):", (_ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {goal for page in _PAGES for goal in re.findall(r"`make ([a-z-]+)", page.read_text())}
    named |= {words[1] for command in _COMMANDS if (words := _words(command.line))[0] == "make"}
    assert named - goals == set()
    assert "demo" in named


def _reason_not_to_run(line: str) -> str | None:
    return next((pattern for pattern in _NOT_RUN if re.match(pattern, line)), None)


def test_what_is_not_run_is_there_and_the_rest_is_known() -> None:
    reasons = {_reason_not_to_run(" ".join(_words(command.line))) for command in _COMMANDS}
    assert set(_NOT_RUN) - reasons == set(), "these name nothing any more"
    strangers = [
        str(command)
        for command in _COMMANDS
        if _reason_not_to_run(" ".join(words := _words(command.line))) is None
        and not (_is_ours(words) or words[0] == "curl")
    ]
    assert strangers == [], "let the test run them, or say in _NOT_RUN why not"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which the files are that the pages name; made the working directory."""
    with short_folder() as made:
        (made / "deploy").symlink_to(_ROOT / "deploy")
        monkeypatch.chdir(made)
        monkeypatch.setattr(init, "_SYSTEM_STATE", made / "state")
        yield made


async def test_all_that_can_be_run_ends_well(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with stand_in([], lifetime=600) as server:
        async with asyncio.timeout(60), ControlClient(server.settings.socket, request_timeout=10) as client:
            while (await client.status()).state is not ServerPhase.ONLINE:
                await asyncio.sleep(0.05)
        slow = {"balance": {"policy": "coordinated", "check_period": 5, "dry_run": True}}
        config = write_config(folder / "swarmkeel.yaml", server.settings.socket, [server.maddr], **slow)
        once = write_config(folder / "once.yaml", server.settings.socket, [server.maddr], **slow)
        once.write_text(once.read_text().replace("journal.sqlite", "once.sqlite"))
        async with sidecar_process(config) as running:
            await running.wait_for("check")
            places = await _places(folder, running, server.settings.socket, server.maddr)
            run = 0
            failed = []
            for line in dict.fromkeys(command.line for command in _COMMANDS):
                words = _words(line)
                if _reason_not_to_run(" ".join(words)) is not None or (words[0] == "curl" and not shutil.which("curl")):
                    continue
                code, said = await _run([_placed(word, places, words) for word in words], capsys)
                run += 1
                if code != 0:
                    failed.append(f"{line}: exit code {code}: {said}")
    assert failed == []
    assert run > 8
    if not shutil.which("curl"):
        pytest.skip("there is no curl here, so the commands with it were not run")


async def _places(folder: Path, running: SidecarProcess, socket: Path, maddr: str) -> dict[str, str]:
    """Say what stands here for the paths and addresses of the pages."""
    return {
        "/run/petals/control.sock": str(socket),
        "/run/swarmkeel/server.sock": str(socket),
        "/ip4/10.0.0.7/tcp/31337/p2p/QmPeerIdOfAnyServerOfTheSwarm": maddr,
        "http://127.0.0.1:9476": await running.url(),
        "/etc/swarmkeel/config.yaml": "swarmkeel.yaml",
        "/var/lib/swarmkeel/journal.sqlite3": str(folder / "journal.sqlite"),
    }


def _placed(word: str, places: dict[str, str], words: list[str]) -> str:
    for there, here in places.items():
        word = word.replace(there, here)
    if words[1] == "init":
        return word.replace("swarmkeel.yaml", "written.yaml")
    # One check is made by a sidecar of its own, with a journal of its own.
    return word.replace("swarmkeel.yaml", "once.yaml") if "--once" in words else word


async def _run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run one command; gives its exit code and what it said. In this process if it is ours, for starting costs a second."""
    if _is_ours(words) and words[1] != "run":
        try:
            code = await asyncio.to_thread(cli.run_command_line, words[1:])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.err + captured.out
    command = (
        [sys.executable, "-m", "swarmkeel", *words[1:]] if _is_ours(words) else ["curl", "--fail-early", *words[1:]]
    )
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()
