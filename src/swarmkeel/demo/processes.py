"""The processes of a swarm on this machine: stand-in servers and sidecars, each ended with all that it started."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from swarmkeel.demo.stand_in import StandInSettings
from swarmkeel.errors import SwarmkeelError
from swarmkeel.printable import printable

END_SECONDS: Final = 8.0
"""How long a process may take to end by itself after SIGTERM."""
_GROUP_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.05


def _environment() -> dict[str, str]:
    """Give our environment without what would change a sidecar's configuration, or speak to our service manager."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("SWARMKEEL_") and name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    }
    # So many processes with a thread for every core, each, would only get into each other's way.
    return {**inherited, "OMP_NUM_THREADS": "1"}


class ProcessFailedError(SwarmkeelError):
    """A process of the swarm did not come up, or ended by itself."""


class ChildProcess:
    """A process in a session of its own, so that a Ctrl-C at the terminal is for its parent alone to handle.

    Attributes:
        name: What it is called in messages.
        log_path: File that takes its standard error.
    """

    def __init__(self, name: str, log_path: Path, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.log_path = log_path
        self._process = process

    @classmethod
    async def start(cls, name: str, command: Sequence[str], log_path: Path, *, has_output: bool = False) -> Self:
        """Start a command.

        Args:
            name: What to call it.
            command: Program and arguments.
            log_path: File that its standard error is added to.
            has_output: Its standard output is for `read_line`; it goes to the log as well where left out.
        """
        with log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if has_output else log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        return cls(name, log_path, process)

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its process group."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def read_line(self, seconds: float) -> str:
        """Read a line from its standard output.

        Raises:
            ProcessFailedError: If it ends, or writes no line in time.
        """
        assert self._process.stdout is not None  # noqa: S101 - it was started with a pipe
        try:
            async with asyncio.timeout(seconds):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            raise self.failure(f"was not ready within {seconds:.0f} s") from error
        if not line:
            raise self.failure("ended before it was ready")
        return line.decode()

    async def wait_for_log(self, text: str, seconds: float = 60.0) -> None:
        """Wait until its log holds some text.

        Raises:
            ProcessFailedError: If it ends before, or the text does not come in time.
        """
        deadline = time.monotonic() + seconds
        while text not in self.log_path.read_text(errors="replace"):
            if not self.is_running:
                raise self.failure("ended before it was ready")
            if time.monotonic() > deadline:
                raise self.failure(f"was not ready within {seconds:.0f} s")
            await asyncio.sleep(_POLL_SECONDS)

    def failure(self, what: str) -> ProcessFailedError:
        """Make the error that says what went wrong with it, with the last line of its log."""
        lines = self.log_path.read_text(errors="replace").split("\n") if self.log_path.exists() else []
        last = next((line for line in reversed(lines) if line.strip()), "nothing")
        return ProcessFailedError(f"{self.name} {what}", f"it last logged: {printable(last, 300)}")

    def kill(self) -> None:
        """End it at once, without a goodbye (SIGKILL); what it started ends by itself as after a crash."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal if it still runs."""
        # Not by asyncio: Popen looks for the end before it signals, and then the watcher of children never learns the code.
        if self.is_running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait for its end and give its return code, negative after a signal."""
        return await self._process.wait()

    async def crash(self) -> int:
        """Kill it, wait until all that it started is gone too, and give its return code."""
        self.kill()
        return await self._wait_for_group(_GROUP_SECONDS)

    async def end(self, seconds: float = END_SECONDS) -> int:
        """End it politely, for certain in the end, with all that it started; give its return code."""
        self.signal(signal.SIGTERM)
        try:
            return await self._wait_for_group(seconds)
        except asyncio.CancelledError:
            self._signal_group(signal.SIGKILL)
            raise

    async def _wait_for_group(self, seconds: float) -> int:
        """Wait until it and all that it started is gone; end what is still there after this time.

        p2pd sees by itself that its parent is gone, unless that was killed before the two had connected. It removes its
        socket on SIGTERM, which it could not if it were killed.
        """
        await self._group_ends(seconds)
        self._signal_group(signal.SIGTERM)
        await self._group_ends(_GROUP_SECONDS)
        self._signal_group(signal.SIGKILL)
        code = await self._process.wait()
        if self._process.stdout is not None:
            await self._process.stdout.read()  # to the end, which closes our side of the pipe
        return code

    async def _group_ends(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._group_exists() and time.monotonic() < deadline:  # noqa: ASYNC110 - other processes set no events
            await asyncio.sleep(_POLL_SECONDS)

    def _group_exists(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


@dataclass(frozen=True)
class RunningStandIn:
    """A stand-in that is ready.

    Attributes:
        settings: What it was started with.
        peer_id: Its peer id.
        maddr: Its address in the DHT, ending in /p2p/PEER_ID.
        process: Its process.
    """

    settings: StandInSettings
    peer_id: str
    maddr: str
    process: ChildProcess


def stand_in_command(settings: StandInSettings) -> list[str]:
    """Give the command that starts a stand-in."""
    gpu = settings.gpu
    options: dict[str, object] = {
        "--socket": settings.socket,
        "--dht-prefix": settings.dht_prefix,
        "--total-blocks": settings.total_blocks,
        "--num-blocks": settings.num_blocks,
        "--throughput": settings.throughput,
        "--first-block": settings.first_block,
        "--idle-limit": settings.idle_limit,
        "--identity": settings.identity,
        "--port": settings.port,
        "--public-name": settings.public_name,
        "--update-period": settings.update_period,
        "--lifetime": settings.lifetime,
        "--load-seconds": gpu.load_seconds,
        "--download-seconds": gpu.download_seconds,
        "--fail-blocks": ",".join(map(str, sorted(gpu.failing_blocks))),
        "--hang-in-joining": ",".join(map(str, sorted(gpu.hanging_blocks))),
        "--sessions": gpu.sessions,
        "--session-seconds": gpu.session_seconds,
    }
    # Joined by "=", a value may begin with a dash.
    given = [f"{option}={value}" for option, value in options.items() if value is not None]
    peers = [f"--initial-peers={peer}" for peer in settings.initial_peers]
    return [sys.executable, "-m", "swarmkeel.demo.stand_in", *given, *peers]


async def start_stand_in(settings: StandInSettings, log_path: Path, *, ready_seconds: float = 60.0) -> RunningStandIn:
    """Start a stand-in and wait until it is in the DHT and its control socket is open.

    Raises:
        ProcessFailedError: If it does not come so far; nothing is left of it then.
    """
    name = settings.public_name or "stand-in"
    process = await ChildProcess.start(name, stand_in_command(settings), log_path, has_output=True)
    try:
        line = await process.read_line(ready_seconds)
        ready = json.loads(line)
        return RunningStandIn(settings, str(ready["peer_id"]), str(ready["maddr"]), process)
    except BaseException:
        # A p2pd that is just starting leaves its socket behind if it is cut off; the stand-in waits for it and ends it.
        await process.end()
        raise
