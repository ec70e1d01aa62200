"""`swarmkeel init`: from a server's socket to a configuration that works."""

from __future__ import annotations

import asyncio
import os
import socket as sockets
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarmkeel.cli import run_command_line
from swarmkeel.config import JournalSection, ServerSection, SwarmSection, load_config
from swarmkeel.config_text import render_config
from swarmkeel.swarm.span import Span
from tests.cli.test_reading_commands import is_online, swarmkeel
from tests.support.servers import MODEL, TOTAL_BLOCKS, stand_in
from tests.support.sidecars import ObedientServer, short_folder

_PEER = "/ip4/127.0.0.1/tcp/31337/p2p/QmPeer"


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def obedient(folder: Path) -> Iterator[ObedientServer]:
    server = ObedientServer(folder / "s.sock", "QmServer", Span(0, 4))
    with server.listening():
        yield server


@pytest.fixture
def init(
    folder: Path, obedient: ObedientServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run `init` for the obedient server, in its folder; gives the exit code and what stands on standard error."""
    del obedient
    monkeypatch.chdir(folder)

    def run(*options: str) -> tuple[int, str]:
        socket = () if "--socket" in options else ("--socket", "s.sock")
        state = () if "--state" in options else ("--state", "state")
        code = run_command_line(["init", *socket, *state, *options])
        return code, capsys.readouterr().err

    return run


async def test_what_it_writes_for_a_real_server_works_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with stand_in([], lifetime=600) as server:
        await is_online(server)
        path = folder / "gpu 1.yaml"
        options = {
            "--socket": server.settings.socket,
            "--initial-peers": server.maddr,
            "--state": folder / "state",
            "-o": path,
        }
        words = ["init", *(str(word) for pair in options.items() for word in pair)]
        assert await asyncio.to_thread(run_command_line, words) == 0
        out = capsys.readouterr().out
        assert f"online, blocks 0:4 of {MODEL} ({TOTAL_BLOCKS} blocks), run by user {os.geteuid()}" in out
        assert f"written: {path}" in out

        config = load_config(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (config.swarm.dht_prefix, config.swarm.total_blocks) == (MODEL, TOTAL_BLOCKS)
        assert config.swarm.initial_peers == (server.maddr,)
        assert config.server.socket == server.settings.socket
        assert config.balance.dry_run
        assert config.journal.path == folder / "state" / "gpu 1.sqlite3"
        text = path.read_text()
        assert "  # How long the present span must have been served.\n  #minimum_uptime: 10m\n" in text
        assert f"  #peer_id: {server.peer_id}\n" in text

        assert run_command_line(["check-config", str(path)]) == 0
        assert capsys.readouterr().out == f"{path}: OK\n"
        code, out, err = await swarmkeel("run", "-c", path, "--once", "--dry-run")
        assert code == 0, err
        assert out.startswith("balanced: "), out
    assert config.journal.path.is_file()


def test_a_file_that_is_there_is_overwritten_on_demand_alone(
    folder: Path, init: Callable[..., tuple[int, str]]
) -> None:
    path = folder / "swarmkeel.yaml"
    path.write_text("mine")
    assert init("--initial-peers", _PEER) == (
        2,
        "swarmkeel: swarmkeel.yaml is there already: choose another by --output, or overwrite it by --force\n",
    )
    assert path.read_text() == "mine"
    assert init("--initial-peers", _PEER, "--force") == (0, "")
    assert load_config(path).swarm.initial_peers == (_PEER,)
    assert sorted(entry.name for entry in folder.iterdir()) == ["s.sock", "state", "swarmkeel.yaml"]


def test_on_a_terminal_it_asks_for_the_peers(folder: Path, obedient: ObedientServer) -> None:
    del obedient
    command = [sys.executable, "-m", "swarmkeel", "init", "--socket", "s.sock", "--state", "state"]
    ours, theirs = os.openpty()
    os.write(ours, f"{_PEER}1, {_PEER}2\n".encode())
    run = subprocess.run(command, stdin=theirs, capture_output=True, text=True, check=False, cwd=folder)
    os.close(ours)
    os.close(theirs)
    assert run.returncode == 0, run.stderr
    assert load_config(folder / "swarmkeel.yaml").swarm.initial_peers == (f"{_PEER}1", f"{_PEER}2")


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (
            [],
            2,
            "no DHT peer to join through is named: give --initial-peers /ip4/.../tcp/.../p2p/..., as the server was",
        ),
        (["--initial-peers", "10.0.0.7:31337"], 2, "no configuration comes of this: swarm.initial_peers.0 must be a"),
        (
            ["--initial-peers", _PEER, "--state", "s.sock/x"],
            1,
            "s.sock/x: Not a directory: name another folder by --state",
        ),
        (
            ["--initial-peers", _PEER, "-o", "no/where"],
            1,
            "no/where: No such file or directory: name a file that can be",
        ),
        (["--socket", "none.sock"], 1, "/none.sock: No such file or directory: see that the server runs, and name its"),
    ],
)
def test_what_it_cannot_do_is_one_line_and_leaves_no_file(
    folder: Path, init: Callable[..., tuple[int, str]], options: list[str], code: int, line: str
) -> None:
    ended, error = init(*options)
    assert ended == code
    assert line in error
    assert error.count("\n") == 1
    assert not list(folder.glob("*.yaml*")) + list(folder.glob(".*"))


def test_a_server_that_says_nothing_is_given_up_on(folder: Path, init: Callable[..., tuple[int, str]]) -> None:
    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(folder / "mute"))
        listener.listen()
        code, error = init("--socket", "mute", "--initial-peers", _PEER, "--timeout", "0.3")
    assert code == 1
    assert error.endswith(": see that the server runs, and name its control socket by --socket\n")
    assert error.count("\n") == 1


def test_a_written_configuration_reads_back_whatever_its_text(folder: Path) -> None:
    swarm = SwarmSection(dht_prefix="404", total_blocks=1, initial_peers=(f"{_PEER}#: \u202e模",))
    server = ServerSection(socket=folder / "a #b: 'c'\n.sock", uids=(1, 2))
    journal = JournalSection(path=folder / "null")
    path = folder / "c.yaml"
    path.write_text(render_config({"swarm": swarm, "server": server, "journal": journal}, heading="a\n\nb"))
    config = load_config(path)
    assert (config.swarm, config.server, config.journal) == (swarm, server, journal)
    assert path.read_text().isascii()
