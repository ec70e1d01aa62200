"""Supervised servers as real child processes, steered over a real control socket."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from swarmkeel.control.client import ControlClient, ServerRefused
from swarmkeel.control.protocol import RestartPhase, RestartRequest, ServerPhase, ServerStatus
from swarmkeel.control.server import ControlServer
from swarmkeel.control.supervisor import Supervisor, SupervisorSettings
from swarmkeel.control.supervisor_command import CommandTemplate
from swarmkeel.control.supervisor_readiness import AllOf, PatternProbe, PortProbe, Probe, ProbeFactory
from swarmkeel.swarm.span import Span
from tests.support.dht import process_runs, wait_until
from tests.support.sockets import free_port

ORIGIN, TARGET = Span(0, 4), Span(4, 8)

_PRELUDE = """
import os, signal, subprocess, sys, time
start, end, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with open(f"{folder}/runs", "a") as runs:
    runs.write(f"{os.getpid()} {start}:{end}\\n")
def ready():
    print(f"serving {start}:{end}", flush=True)
"""
SERVE = "ready()\ntime.sleep(600)"


class Supervised:
    """A supervisor under test, with its socket's client and what its children left in their folder."""

    def __init__(self, supervisor: Supervisor, client: ControlClient, folder: Path) -> None:
        self.supervisor = supervisor
        self.client = client
        self.folder = folder

    def runs(self) -> list[tuple[int, str]]:
        """Process ids and spans of all runs so far."""
        path = self.folder / "runs"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), span) for pid, span in map(str.split, lines)]

    async def until(self, condition: Callable[[ServerStatus], object]) -> ServerStatus:
        async with asyncio.timeout(60):
            while True:
                status = await self.client.status()
                if condition(status):
                    return status
                await asyncio.sleep(0.02)

    async def online(self, span: Span) -> ServerStatus:
        return await self.until(lambda status: status.state is ServerPhase.ONLINE and status.span == span)

    async def restart(self, span: Span, number: int = 1, if_span: Span | None = ORIGIN) -> ServerStatus:
        """Restart on other blocks, and give the first status in which that is over."""
        request = RestartRequest(f"r{number}", span, if_span=if_span, reason="test", drain_seconds=30)
        await self.client.restart(request)
        return await self.until(lambda status: status.restart is not None and status.restart.phase.is_final)


def own_children() -> set[int]:
    children: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            children.update(map(int, (task / "children").read_text().split()))
    return children


def _by_pattern(_: Span) -> Probe:
    return PatternProbe(re.compile(rb"^serving \d+:\d+$"))


@asynccontextmanager
async def supervised(
    socket_path: Path,
    tmp_path: Path,
    script: str,
    *,
    probe: ProbeFactory = _by_pattern,
    command: tuple[str, ...] | None = None,
    **changes: object,
) -> AsyncIterator[Supervised]:
    """Supervise a Python script; in the end nothing of it may be left."""
    settings = SupervisorSettings(
        command=CommandTemplate(
            command or (sys.executable, "-c", _PRELUDE + script, "{start}", "{end}", str(tmp_path))
        ),
        dht_prefix="m",
        total_blocks=8,
        num_blocks=4,
        throughput=10.0,
        start=ORIGIN,
        stop_grace=30.0,
        ready_timeout=60.0,
        first_pause=0.05,
        longest_pause=0.2,
        steady_after=600.0,
    )
    before = own_children()
    supervisor = Supervisor(replace(settings, **changes), probe, lambda: "12D3KooWx")  # type: ignore[arg-type] # named by the tests
    with ControlServer(socket_path, supervisor):
        running = asyncio.create_task(supervisor.run())
        async with ControlClient(socket_path, request_timeout=20) as client:
            under_test = Supervised(supervisor, client, tmp_path)
            try:
                yield under_test
            finally:
                supervisor.end(signal.SIGTERM)
                async with asyncio.timeout(60):
                    await running
    assert not [pid for pid, _ in under_test.runs() if process_runs(pid)]
    assert supervisor._child is None
    assert own_children() <= before


async def test_it_tells_of_itself(socket_path: Path, tmp_path: Path) -> None:
    async with supervised(socket_path, tmp_path, SERVE, pinned=True) as server:
        status = await server.online(ORIGIN)
    assert status == ServerStatus(
        implementation=f"supervised/{Path(sys.executable).name}",
        peer_id="12D3KooWx",
        dht_prefix="m",
        total_blocks=8,
        num_blocks=4,
        throughput=10.0,
        state=ServerPhase.ONLINE,
        span=ORIGIN,
        pinned=True,
        sessions=None,
        capabilities=(),
    )


async def test_it_is_idle_until_it_is_told_its_blocks(socket_path: Path, tmp_path: Path) -> None:
    async with supervised(socket_path, tmp_path, SERVE, start=None) as server:
        status = await server.client.status()
        assert (status.state, status.span) == (ServerPhase.IDLE, None)
        done = await server.restart(TARGET, if_span=None)
        assert (done.state, done.span, done.restart and done.restart.phase) == (
            ServerPhase.ONLINE,
            TARGET,
            RestartPhase.ONLINE,
        )
        assert [span for _, span in server.runs()] == ["4:8"]


async def test_without_a_sidecar_it_starts_on_the_fallback(socket_path: Path, tmp_path: Path) -> None:
    async with supervised(socket_path, tmp_path, SERVE, start=None, idle_limit=0.05, fallback=Span(2, 6)) as server:
        await server.online(Span(2, 6))


async def test_a_restart_ends_the_old_run_and_starts_the_new_one(socket_path: Path, tmp_path: Path) -> None:
    async with supervised(socket_path, tmp_path, SERVE) as server:
        await server.online(ORIGIN)
        done = await server.restart(TARGET)
        assert (done.state, done.span) == (ServerPhase.ONLINE, TARGET)
        (former, _), (present, span) = server.runs()
        assert not process_runs(former)
        assert process_runs(present)
        assert span == "4:8"
        with pytest.raises(ServerRefused, match=r"409"):
            await server.restart(TARGET, number=2, if_span=ORIGIN)


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        (
            'print("out of \\x1b[31mmemory", file=sys.stderr); sys.exit(3)',
            "the command ended with code 3: out of ?[31mmemory",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the command was ended by SIGSEGV"),
        (
            'print("loading", flush=True); time.sleep(600)',
            "the server was not ready within 4 s; the command runs: loading",
        ),
    ],
)
async def test_a_restart_that_fails_names_the_reason_and_the_former_blocks_come_back(
    socket_path: Path, tmp_path: Path, failing: str, reason: str
) -> None:
    script = f"if start == 4:\n    {failing}\n{SERVE}"
    # Slow enough for Python to start on a busy machine where the time is not what fails.
    patience = 4.0 if "within" in reason else 60.0
    async with supervised(socket_path, tmp_path, script, ready_timeout=patience) as server:
        await server.online(ORIGIN)
        failed = await server.restart(TARGET)
        assert failed.restart is not None
        assert failed.restart.phase is RestartPhase.FAILED
        assert failed.restart.error == reason
        back = await server.online(ORIGIN)
        assert back.restart == failed.restart
        assert [span for _, span in server.runs()][:3] == ["0:4", "4:8", "0:4"]


async def test_a_program_that_is_not_there_is_a_reason_too(socket_path: Path, tmp_path: Path) -> None:
    command = (str(tmp_path / "missing"), "{start}:{end}")
    async with supervised(socket_path, tmp_path, "", command=command, start=None) as server:
        failed = await server.restart(TARGET, if_span=None)
        assert failed.restart is not None
        assert failed.restart.error == f"the command could not be started: {command[0]}: No such file or directory"
        assert (await server.client.status()).state is ServerPhase.IDLE


async def test_a_child_that_ignores_the_signal_is_killed_after_the_grace(socket_path: Path, tmp_path: Path) -> None:
    script = f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SERVE}"
    async with supervised(socket_path, tmp_path, script, stop_grace=0.3) as server:
        await server.online(ORIGIN)
        assert (await server.restart(TARGET)).state is ServerPhase.ONLINE


async def test_a_child_may_take_its_time_within_the_grace(socket_path: Path, tmp_path: Path) -> None:
    script = f"""
def leave(*_):
    time.sleep(0.5)
    with open(f"{{folder}}/left", "w") as left:
        left.write(f"{{start}}:{{end}}")
    sys.exit(0)
signal.signal(signal.SIGINT, leave)
{SERVE}"""
    async with supervised(socket_path, tmp_path, script, stop_signal=signal.SIGINT) as server:
        await server.online(ORIGIN)
        await server.restart(TARGET)
        assert (tmp_path / "left").read_text() == "0:4"


async def test_a_child_does_not_inherit_that_its_signal_is_ignored(socket_path: Path, tmp_path: Path) -> None:
    script = f"assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n{SERVE}"
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell's `supervise ... &`
    try:
        async with supervised(socket_path, tmp_path, script, stop_signal=signal.SIGINT) as server:
            await server.online(ORIGIN)
    finally:
        signal.signal(signal.SIGINT, former)


_GRANDCHILD = """
child = subprocess.Popen([sys.executable, "-c", {code!r}, folder])
while not os.path.exists(f"{{folder}}/grandchild"):
    time.sleep(0.01)
"""
_STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(f"{sys.argv[1]}/new", "w") as file: file.write(str(os.getpid()))
os.rename(f"{sys.argv[1]}/new", f"{sys.argv[1]}/grandchild")
time.sleep(600)
"""


async def test_grandchildren_end_with_their_group(socket_path: Path, tmp_path: Path) -> None:
    script = _GRANDCHILD.format(code=_STUBBORN) + SERVE
    async with supervised(socket_path, tmp_path, script, stop_grace=0.3) as server:
        await server.online(ORIGIN)
        grandchild = int((tmp_path / "grandchild").read_text())
        assert process_runs(grandchild)
        await server.restart(TARGET)
        assert not process_runs(grandchild)


async def test_grandchildren_of_a_crash_end_before_the_next_run(socket_path: Path, tmp_path: Path) -> None:
    script = f"if os.path.exists(f'{{folder}}/grandchild'): {SERVE.replace(chr(10), '; ')}\n"
    script += _GRANDCHILD.format(code=_STUBBORN) + "ready()\nsys.exit(1)"
    async with supervised(socket_path, tmp_path, script, stop_grace=0.3) as server:
        await server.until(lambda status: status.state is ServerPhase.ONLINE and len(server.runs()) == 2)
        assert not process_runs(int((tmp_path / "grandchild").read_text()))


async def test_the_grace_is_also_the_grandchildrens(socket_path: Path, tmp_path: Path) -> None:
    polite = _STUBBORN.replace(
        "signal.SIG_IGN", "lambda *_: (time.sleep(0.5), open(sys.argv[1] + '/left', 'w'), os._exit(0))"
    )
    script = _GRANDCHILD.format(code=polite) + SERVE
    async with supervised(socket_path, tmp_path, script) as server:
        await server.online(ORIGIN)
    assert (tmp_path / "left").exists()


async def test_a_child_whose_main_thread_is_gone_may_still_leave_by_itself(socket_path: Path, tmp_path: Path) -> None:
    script = f"""
import ctypes, threading
def leave(*_):
    threading.Thread(target=lambda: (time.sleep(0.5), os._exit(5))).start()
    ctypes.CDLL(None).pthread_exit(None)  # it looks like a zombie from now on
signal.signal(signal.SIGTERM, leave)
{SERVE}"""
    async with supervised(socket_path, tmp_path, script) as server:
        await server.online(ORIGIN)
    assert server.supervisor._returncode == 5


async def test_a_crashing_child_is_run_again_with_pauses(socket_path: Path, tmp_path: Path) -> None:
    script = f"if os.path.exists(f'{{folder}}/mended'): {SERVE.replace(chr(10), '; ')}\nprint('boom')\nsys.exit(1)"
    async with supervised(socket_path, tmp_path, script) as server:
        status = await server.until(lambda status: status.state is ServerPhase.FAILED and len(server.runs()) > 2)
        assert (status.span, status.restart) == (ORIGIN, None)
        (tmp_path / "mended").touch()
        await server.online(ORIGIN)
        assert server.supervisor._server.failures >= 3


async def test_former_crashes_are_forgotten_once_it_is_steady(socket_path: Path, tmp_path: Path) -> None:
    script = f"if len(open(f'{{folder}}/runs').readlines()) > 2: {SERVE.replace(chr(10), '; ')}\nsys.exit(1)"
    async with supervised(socket_path, tmp_path, script, steady_after=0.1) as server:
        await server.online(ORIGIN)
        await wait_until(lambda: server.supervisor._server.failures == 0)


async def test_a_crash_while_it_serves_is_seen(socket_path: Path, tmp_path: Path) -> None:
    async with supervised(socket_path, tmp_path, SERVE) as server:
        await server.online(ORIGIN)
        os.kill(server.runs()[0][0], signal.SIGKILL)
        await server.until(lambda status: status.state is ServerPhase.ONLINE and len(server.runs()) == 2)


async def test_a_restart_is_taken_while_the_first_start_is_under_way(socket_path: Path, tmp_path: Path) -> None:
    script = f"if start == 0: time.sleep(600)\n{SERVE}"
    async with supervised(socket_path, tmp_path, script) as server:
        await wait_until(server.runs)
        assert (await server.restart(TARGET)).state is ServerPhase.ONLINE


async def test_ready_by_a_port(socket_path: Path, tmp_path: Path) -> None:
    port = free_port()
    script = f"""
import socket
while not os.path.exists(f"{{folder}}/open"): time.sleep(0.01)
listener = socket.create_server(("127.0.0.1", {port}))
time.sleep(600)"""
    async with supervised(socket_path, tmp_path, script, probe=lambda _: PortProbe("127.0.0.1", port)) as server:
        await wait_until(server.runs)
        assert (await server.client.status()).state is ServerPhase.JOINING
        (tmp_path / "open").touch()
        await server.online(ORIGIN)


async def test_several_probes_must_all_hold(socket_path: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        script = f"while not os.path.exists(f'{{folder}}/open'): time.sleep(0.01)\n{SERVE}"

        def probe(span: Span) -> Probe:
            return AllOf([PortProbe("127.0.0.1", port), _by_pattern(span)])

        async with supervised(socket_path, tmp_path, script, probe=probe) as server:
            connection, _ = await asyncio.to_thread(listener.accept)
            connection.close()
            assert (await server.client.status()).state is ServerPhase.JOINING
            (tmp_path / "open").touch()
            await server.online(ORIGIN)


async def test_ten_restarts_leave_nothing_behind(socket_path: Path, tmp_path: Path) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async with supervised(socket_path, tmp_path, SERVE) as server:
        await server.online(ORIGIN)
        await server.restart(TARGET, number=0)
        before = open_files()
        for number in range(1, 11):
            span, former = (ORIGIN, TARGET) if number % 2 else (TARGET, ORIGIN)
            assert (await server.restart(span, number, if_span=former)).span == span
        await wait_until(lambda: open_files() <= before)
        assert len([pid for pid, _ in server.runs() if process_runs(pid)]) == 1
