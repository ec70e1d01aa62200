"""A child process with its whole process group: started, watched, signalled and ended. Linux only.

The child is reaped only after its group is gone, so that neither its process id nor its group's can meanwhile become
somebody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

from swarmkeel.control.supervisor_guard import GroupGuard
from swarmkeel.control.supervisor_output import OutputRelay
from swarmkeel.printable import printable

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)
_STDOUT, _STDERR = 1, 2
_POLL_SECONDS: Final = 0.05
_KILL_SECONDS: Final = 10.0
_OUTPUT_SECONDS: Final = 2.0
_LAST_WORDS_SECONDS: Final = 0.5
_SHOWN_CHARACTERS: Final = 300


class CommandNotStartedError(Exception):
    """The command could not be started; the text says why."""


class ChildProcess:
    """One run of a command, in a session and process group of its own; made by `start`, ended by `stop`.

    Attributes:
        pid: Its process id, which is also that of its process group.
    """

    def __init__(self, process: subprocess.Popen[bytes], on_text: Callable[[bytes], None]) -> None:
        self.pid = process.pid
        self._process = process
        self._on_text = on_text
        self._last_line = b""
        self._ended = asyncio.Event()
        self._guard: GroupGuard | None = None
        with contextlib.suppress(OSError):  # without a shell, what the kernel does by itself has to do
            self._guard = GroupGuard(process.pid)
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._notice_end)
        assert process.stdout is not None  # noqa: S101 - it was started with pipes
        assert process.stderr is not None  # noqa: S101 - as above
        self._relays = [
            OutputRelay(os.dup(stream.fileno()), target, self._look_at)
            for stream, target in ((process.stdout, _STDOUT), (process.stderr, _STDERR))
        ]
        process.stdout.close()
        process.stderr.close()

    @classmethod
    def start(cls, command: Sequence[str], on_text: Callable[[bytes], None]) -> Self:
        """Run a command whose output goes to ours.

        It is killed with its group when this process dies, however that dies. Call it from the main thread: the kernel
        takes the death of the thread that started a process for that of its parent.

        Args:
            command: Program and arguments.
            on_text: Called, in other threads, with every line that it writes; see `LineScanner`.

        Raises:
            CommandNotStartedError: If the system refuses.
        """
        parent = os.getpid()

        def die_with_parent() -> None:
            # Shells have what they start with & ignore these, and that is inherited: --stop-signal INT would do nothing.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the kernel knew
                os._exit(1)

        try:
            process = subprocess.Popen(  # noqa: S603 - running the operator's command is what this is for
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - a few system calls that take no lock; nothing else can do it
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise CommandNotStartedError(printable(f"{command[0]}: {reason}", _SHOWN_CHARACTERS)) from error
        return cls(process, on_text)

    async def wait(self) -> None:
        """Wait until the process has ended and its last words have been read; others of its group may go on."""
        await self._ended.wait()
        # Others that hold its output open keep it from ending, so it is not waited for long.
        await asyncio.gather(*(asyncio.to_thread(relay.wait, _LAST_WORDS_SECONDS) for relay in self._relays))

    @property
    def returncode(self) -> int | None:
        """How it ended: its exit code, or less than 0 the signal that ended it; None while it runs."""
        if self._process.returncode is not None:
            return self._process.returncode
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def failure(self) -> str:
        """Say how it ended, with the last line that it wrote."""
        last = printable(self._last_line.decode(errors="replace").strip(), _SHOWN_CHARACTERS)
        return f"the command {describe_end(self.returncode)}" + (f": {last}" if last else "")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone; too late does no harm."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    async def stop(self, number: signal.Signals, grace: float, hurry: asyncio.Event) -> int:
        """End the whole process group, and reap the process.

        Args:
            number: The signal that asks it politely.
            grace: Seconds until SIGKILL.
            hurry: Ends the grace at once.

        Returns:
            How the process ended, see `returncode`.
        """
        self._signal_group(number)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    while self._group() and not hurry.is_set():  # noqa: ASYNC110 - the kernel tells nobody when a group is empty
                        await asyncio.sleep(_POLL_SECONDS)
        finally:
            returncode = await asyncio.shield(asyncio.ensure_future(self._kill()))
        return returncode

    async def _kill(self) -> int:
        """End what is left for certain; processes that the kernel cannot end (stuck in a device) are given up."""
        self._signal_group(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_SECONDS):
                while self._group():  # noqa: ASYNC110 - as above
                    await asyncio.sleep(_POLL_SECONDS)
        asyncio.get_running_loop().remove_reader(self._pidfd)
        await asyncio.gather(*(asyncio.to_thread(relay.finish, _OUTPUT_SECONDS) for relay in self._relays))
        if self._guard is not None:
            self._guard.release()
        code = self.returncode
        if code is not None:
            self._process.wait()
        os.close(self._pidfd)
        return -signal.SIGKILL if code is None else code

    def _notice_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._ended.set()

    def _look_at(self, text: bytes) -> None:
        if text.strip():
            self._last_line = text
        self._on_text(text)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _group(self) -> list[int]:
        """Give the processes of the group that live.

        The child itself does until it can be reaped: one whose threads are still ending looks like a zombie before.
        """
        others = [pid for pid in _process_ids() if pid != self.pid and _group_of_living(pid) == self.pid]
        return others if self.returncode is not None else [self.pid, *others]


def describe_end(returncode: int | None) -> str:
    """Say how a process ended, given its exit code, or less than 0 the signal that ended it."""
    if returncode is None:
        return "runs"
    if returncode >= 0:
        return f"ended with code {returncode}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"was ended by signal {-returncode}"


def _process_ids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _group_of_living(pid: int) -> int | None:
    """Give the process group of a process; None if it is gone or a zombie. See proc_pid_stat(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    state, _parent, group = stat.rpartition(b")")[2].split()[:3]
    return None if state in b"ZX" else int(group)
