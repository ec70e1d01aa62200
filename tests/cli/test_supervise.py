"""`swarmkeel supervise` as a real process: its options, its signals, its exit code, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarmkeel.cli import run_command_line
from swarmkeel.control.client import ControlClient, ServerUnreachable
from swarmkeel.control.protocol import RestartRequest, ServerPhase, ServerStatus
from swarmkeel.swarm.identity import create_identity
from swarmkeel.swarm.peer_id import peer_id_of_key
from swarmkeel.swarm.reader import SwarmReader
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.span import Span
from tests.support.dht import DhtPeers, process_runs, wait_until
from tests.support.sidecars import short_folder

_REQUIRED = ("--dht-prefix", "m", "--total-blocks", "8", "--num-blocks", "4", "--throughput", "12.5")
_SERVER = """
import os, signal, sys, time
print("span", sys.argv[1], os.getpid(), flush=True)
def note(number, _):
    print("got", signal.Signals(number).name, flush=True)
def leave(number, _):
    note(number, _)
    sys.exit(7)
for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, note)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, leave)
print("Started", flush=True)
while True:
    time.sleep(600)
"""
_COMMAND = (sys.executable, "-c", _SERVER, "{start}:{end}")


class Running:
    """A supervise process, what it writes, and a client of its socket."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, client: ControlClient) -> None:
        self.process = process
        self.folder = folder
        self.client = client

    @property
    def output(self) -> str:
        return (self.folder / "out").read_text()

    async def says(self, text: str) -> None:
        await wait_until(lambda: text in self.output)

    async def until(self, state: ServerPhase) -> ServerStatus:
        async with asyncio.timeout(60):
            while True:
                try:
                    status = await self.client.status()
                except ServerUnreachable:
                    assert self.process.returncode is None, (self.folder / "err").read_text()
                else:
                    if status.state is state:
                        return status
                await asyncio.sleep(0.05)

    def server_pid(self) -> int:
        return int(self.output.split()[2])

    async def ended(self) -> int:
        async with asyncio.timeout(60):
            return await self.process.wait()


@asynccontextmanager
async def supervise(*options: str, command: tuple[str, ...] = _COMMAND) -> AsyncIterator[Running]:
    with short_folder() as folder:
        arguments = ["supervise", "--socket", str(folder / "s"), *_REQUIRED, *options, "--", *command]
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "swarmkeel", *arguments, stdout=out, stderr=err
            )
        try:
            async with ControlClient(folder / "s", request_timeout=1) as client:
                yield Running(process, folder, client)
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(60):
                await process.wait()


_READY = ("--ready-pattern", "^Started$")


async def test_a_server_is_started_moved_and_ended() -> None:
    async with supervise(*_READY, "--start", "0:4") as running:
        status = await running.until(ServerPhase.ONLINE)
        assert (status.span, status.throughput, status.peer_id) == (Span(0, 4), 12.5, None)
        await running.client.restart(RestartRequest("r", Span(4, 8), if_span=Span(0, 4), reason="test"))
        await running.says("span 4:8")
        assert (await running.until(ServerPhase.ONLINE)).span == Span(4, 8)
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 7
        assert running.output.count("got SIGTERM") == 2
        assert not (running.folder / "s").exists()
        # What supervise says itself is told apart by its logger, on standard error.
        events = [json.loads(line) for line in (running.folder / "err").read_text().splitlines()]
        assert {"starting", "ready", "stopped"} <= {event["event"] for event in events}
        assert all(event["logger"].startswith("swarmkeel.") for event in events)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as somebody else")
async def test_another_user_is_let_in_where_he_is_allowed() -> None:
    nobody = pwd.getpwnam("nobody")
    for options, status in (((), 403), (("--allow-user", "nobody"), 200)):
        async with supervise(*_READY, "--start", "0:4", *options) as running:
            await running.until(ServerPhase.ONLINE)
            running.folder.chmod(0o711)
            (running.folder / "s").chmod(0o666)
            script = (
                "import os, socket, sys; os.setuid(int(sys.argv[2])); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
                "s.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: s\\r\\n\\r\\n'); print(s.recv(64).split()[1].decode())"
            )
            asks = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-c", script, str(running.folder / "s"), str(nobody.pw_uid)),
                stdout=asyncio.subprocess.PIPE,
            )
            assert (await asks.communicate())[0].split() == [str(status).encode()]


async def test_signals_reach_the_server() -> None:
    async with supervise(*_READY, "--start", "0:4") as running:
        await running.until(ServerPhase.ONLINE)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            running.process.send_signal(number)
            await running.says(f"got {number.name}")
        assert await running.ended() == 7


async def test_a_server_that_a_signal_ends_gives_the_exit_code_that_a_shell_gives() -> None:
    command = ("sh", "-c", "echo Started; exec sleep 600 # {start}")
    async with supervise(*_READY, "--start", "0:4", command=command) as running:
        await running.until(ServerPhase.ONLINE)
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 128 + signal.SIGTERM


async def test_while_nothing_runs_its_end_is_a_success() -> None:
    async with supervise(*_READY) as running:
        await running.until(ServerPhase.IDLE)
        running.process.send_signal(signal.SIGUSR1)
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0


async def test_a_second_signal_cuts_the_grace_short() -> None:
    command = ("sh", "-c", "trap 'echo asked' TERM; echo Started; while :; do sleep 600 & wait; done # {start}")
    async with supervise(*_READY, "--start", "0:4", "--stop-grace", "1h", command=command) as running:
        await running.until(ServerPhase.ONLINE)
        running.process.send_signal(signal.SIGTERM)
        await running.says("asked")
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 128 + signal.SIGKILL


async def test_output_passes_through_byte_for_byte() -> None:
    server = """
import os, time  # {start}
os.write(1, bytes(range(256)) * 64 + b"\\n")
os.write(2, b"\\xff\\x00err\\n")
os.write(1, b"y" * 300_000)
os.write(1, b"\\nStarted")
time.sleep(600)
"""
    async with supervise(*_READY, "--start", "0:4", command=(sys.executable, "-c", server)) as running:
        await running.until(ServerPhase.ONLINE)
        out, err = ((running.folder / name).read_bytes() for name in ("out", "err"))
    assert out == bytes(range(256)) * 64 + b"\n" + b"y" * 300_000 + b"\nStarted"
    assert b"\xff\x00err\n" in err


async def test_when_it_is_killed_its_server_dies_too() -> None:
    async with supervise(*_READY, "--start", "0:4") as running:
        await running.until(ServerPhase.ONLINE)
        server = running.server_pid()
        assert process_runs(server)
        running.process.kill()
        await wait_until(lambda: not process_runs(server))


async def test_when_it_is_killed_what_its_server_started_dies_too() -> None:
    command = ("sh", "-c", "trap '' TERM; sleep 600 & echo span $! $!; echo Started; wait # {start}")
    async with supervise(*_READY, "--start", "0:4", command=command) as running:
        await running.until(ServerPhase.ONLINE)
        grandchild = running.server_pid()
        assert process_runs(grandchild)
        running.process.kill()
        await wait_until(lambda: not process_runs(grandchild))


async def test_after_it_was_killed_the_next_one_takes_the_socket_over(tmp_path: Path) -> None:
    with short_folder() as folder:
        arguments = ["supervise", "--socket", str(folder / "s"), *_REQUIRED, *_READY, "--", *_COMMAND]
        for _ in range(2):
            with (tmp_path / "err").open("wb") as err:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "swarmkeel", *arguments, stderr=err
                )
            async with ControlClient(folder / "s", request_timeout=60) as client:
                assert (await client.status()).state is ServerPhase.IDLE
            process.kill()
            await process.wait()


async def test_the_peer_id_follows_from_the_key_file_once_there_is_one(tmp_path: Path) -> None:
    key = tmp_path / "identity"
    async with supervise(*_READY, "--identity", str(key)) as running:
        assert (await running.until(ServerPhase.IDLE)).peer_id is None
        key.write_bytes(b"not a key yet")
        assert (await running.until(ServerPhase.IDLE)).peer_id is None
        key.unlink()
        create_identity(key)
        assert (await running.until(ServerPhase.IDLE)).peer_id == peer_id_of_key(key.read_bytes())


async def test_ready_by_the_dht(tmp_path: Path) -> None:
    key = tmp_path / "identity"
    async with DhtPeers(1) as dht:
        with short_folder() as folder:
            server = (
                *(sys.executable, "-m", "swarmkeel.demo.stand_in", "--socket", str(folder / "own")),
                *("--dht-prefix=m", "--total-blocks=8", "--num-blocks=4", "--throughput=12.5"),
                *(f"--identity={key}", "--first-block={start}", "--load-seconds=0.5", "--update-period=1"),
                f"--initial-peers={dht.initial_peers[0]}",
            )
            ready = ("--ready-dht", dht.initial_peers[0], "--identity", str(key))
            async with supervise(*ready, "--start", "0:4", command=server) as running:
                await running.until(ServerPhase.JOINING)
                await running.until(ServerPhase.ONLINE)
                await running.client.restart(RestartRequest("r", Span(4, 8), if_span=Span(0, 4), reason="test"))
                status = await running.until(ServerPhase.ONLINE)
                assert status.span == Span(4, 8)
                reader = SwarmReader(dht.initial_peers, "m", 8)
                try:
                    spans = (await reader.read()).spans(ServerState.ONLINE)
                finally:
                    await reader.close()
    assert {peer: (span.start, span.end) for peer, span in spans.items()} == {status.peer_id: (4, 8)}


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "s"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ((), "nothing tells when the server is ready"),
        ((*_READY, "--start", "0:5"), "--start 0:5 has 5 blocks"),
        ((*_READY, "--start", "6:10"), "--start 6:10 is beyond the model"),
        ((*_READY, "--start", "4"), "FIRST:END"),
        ((*_READY, "--idle-limit", "5m"), "--idle-limit and --fallback need each other"),
        ((*_READY, "--idle-limit", "soon"), "must be a duration"),
        ((*_READY, "--identity", "x", "--peer-id", "y"), "--identity and --peer-id exclude each other"),
        (("--ready-pattern", "("), "no regular expression"),
        (("--ready-port", "localhost"), "must be HOST:PORT"),
        ((*_READY, "--stop-signal", "KILL"), "must be TERM, INT"),
        ((*_READY, "--allow-user", "no-such-user"), "there is no user 'no-such-user'"),
        (("--ready-dht", "/ip4/127.0.0.1/tcp/1/p2p/Qm"), "--ready-dht has to know the server's peer id"),
        ((*_READY, "--num-blocks", "9"), "--num-blocks is 9: the model has 8"),
        ((*_READY, "--throughput", "nan"), "throughput"),
        ((*_READY, "--peer-id", ""), "peer_id"),
    ],
)
def test_bad_usage_is_one_line(
    socket_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], what: str
) -> None:
    arguments = ["supervise", "--socket", str(socket_path), *_REQUIRED, *options, "--", *_COMMAND]
    assert run_command_line(arguments) == 2
    line = capsys.readouterr().err
    assert what in line
    assert line.count("\n") == 1


def test_a_command_without_blocks_and_a_socket_that_cannot_be_are_bad_usage(
    socket_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["supervise", *_REQUIRED, *_READY, "--socket"]
    assert run_command_line([*start, str(socket_path), "--", "serve"]) == 2
    assert "does not say which blocks" in capsys.readouterr().err
    socket_path.write_text("no socket")
    run = subprocess.run(
        [sys.executable, "-m", "swarmkeel", *start, str(socket_path), "--", *_COMMAND],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "is there and is no socket" in run.stderr
