"""Child processes of the demo: started apart from us, and ended with all that they started."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from swarmkeel.demo.processes import ChildProcess, ProcessFailedError
from tests.support.dht import process_runs, wait_until

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
WITH_CHILD = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)\n"
)


async def start(program: str, tmp_path: Path) -> ChildProcess:
    return await ChildProcess.start("it", [sys.executable, "-c", program], tmp_path / "log", has_output=True)


async def test_it_runs_in_a_session_of_its_own(tmp_path: Path) -> None:
    process = await start("import time; print('up', flush=True); time.sleep(600)", tmp_path)
    assert await process.read_line(60) == "up\n"
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert process.is_running
    assert await process.end() == -signal.SIGTERM
    assert not process.is_running


async def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    process = await start(STUBBORN, tmp_path)
    await process.read_line(60)
    assert await process.end(seconds=0.2) == -signal.SIGKILL


async def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    process = await start(WITH_CHILD, tmp_path)
    child = int(await process.read_line(60))
    assert process_runs(child)
    await process.end(seconds=0.2)
    await wait_until(lambda: not process_runs(child))


async def test_ending_it_for_certain_even_when_nobody_waits_for_it(tmp_path: Path) -> None:
    process = await start(STUBBORN, tmp_path)
    await process.read_line(60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await process.end()
    assert await process.end() == -signal.SIGKILL


async def test_a_failure_tells_the_last_line_of_its_log(tmp_path: Path) -> None:
    process = await start("import sys; sys.exit('first\\nout of \\x1b[31mmemory\\n\\n')", tmp_path)
    with pytest.raises(
        ProcessFailedError, match=r"^it ended before it was ready: it last logged: out of \?\[31mmemory$"
    ):
        await process.read_line(60)
    assert await process.end() == 1
    with pytest.raises(ProcessFailedError, match="ended before it was ready"):
        await process.wait_for_log("never")


async def test_what_is_not_ready_in_time_is_a_failure(tmp_path: Path) -> None:
    process = await start("import time; time.sleep(600)", tmp_path)
    for wait in (process.read_line(0.05), process.wait_for_log("never", seconds=0.05)):
        with pytest.raises(ProcessFailedError, match="it was not ready within 0 s: it last logged: nothing"):
            await wait
    await process.crash()


async def test_our_environment_does_not_configure_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMKEEL_BALANCE__DRY_RUN", "true")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("OTHERS", "stay")
    process = await start("import json, os; print(json.dumps(dict(os.environ)))", tmp_path)
    environment = json.loads(await process.read_line(60))
    await process.end()
    assert environment["OTHERS"] == "stay"
    assert not {"SWARMKEEL_BALANCE__DRY_RUN", "NOTIFY_SOCKET"} & environment.keys()
