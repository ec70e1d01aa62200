"""What processes take of the machine, and what they leave behind when they are gone; from /proc."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SOCKETS = re.compile(rb"/tmp/hivemind-[A-Za-z0-9_.-]+\.sock")


@dataclass(frozen=True)
class Usage:
    """What one process takes.

    Attributes:
        rss_bytes: Memory that it occupies.
        descriptors: Open file descriptors.
        threads: Threads.
    """

    rss_bytes: int
    descriptors: int
    threads: int


def usage(pid: int) -> Usage | None:
    """Measure a process; None if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = dict(line.partition(":")[::2] for line in status.splitlines())
    if "VmRSS" not in fields:  # a zombie has none
        return None
    return Usage(int(fields["VmRSS"].split()[0]) * 1024, descriptors, int(fields["Threads"]))


def children(pid: int) -> list[int]:
    """Give the ids of a process's children."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (task / "children").read_text().split())
    return found


def p2pd_of(pid: int) -> int | None:
    """Give the id of the p2pd that a process has started; None without one."""
    for child in children(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{child}/comm").read_text().startswith("p2pd"):
                return child
    return None


def processes_with(variable: str) -> list[int]:
    """Give the ids of all processes that were started with a variable, `NAME=value`, in their environment; no zombies."""
    sought = variable.encode()
    found = []
    for entry in _processes():
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if sought in (entry / "environ").read_bytes().split(b"\0"):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    found.append(int(entry.name))
    return sorted(found)


def hivemind_sockets(pids: Iterable[int]) -> set[Path]:
    """Give the Unix sockets that these processes, p2pd among them, were told to talk through."""
    found: set[Path] = set()
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            for name in _SOCKETS.findall(command):
                path = Path(os.fsdecode(name))
                found |= {path, path.with_name(path.name.replace("-p2pd-", "-p2pclient-"))}
    return found


def _processes() -> Iterator[Path]:
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
