"""Run a command under the system calls that a systemd unit allows: python confined.py UNIT COMMAND ...

For SystemCallFilter= and RestrictAddressFamilies=, which systemd turns into a seccomp filter as well.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pyseccomp


def _values(unit: Path, key: str) -> list[str]:
    return [line.removeprefix(f"{key}=") for line in unit.read_text().splitlines() if line.startswith(f"{key}=")]


def _members(name: str) -> set[str]:
    """Give the system calls of a group, as systemd knows it, or the one that this is the name of."""
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [line.strip() for line in lines[1:]]
    return set().union(*(_members(member) for member in found if member and not member.startswith("#")))


def _allowed(unit: Path) -> set[str]:
    allowed: set[str] = set()
    for value in _values(unit, "SystemCallFilter"):
        members = set().union(*(_members(name) for name in value.removeprefix("~").split()))
        allowed = allowed - members if value.startswith("~") else allowed | members
    return allowed | _members("@default")


def confine(unit: Path) -> None:
    """Refuse to this process, and to all that it starts, what the unit does not allow."""
    families = [getattr(socket, name) for value in _values(unit, "RestrictAddressFamilies") for name in value.split()]
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    for name in sorted(_allowed(unit) - {"socket"}):
        try:
            rules.add_rule(pyseccomp.ALLOW, name)
        except OSError:
            continue  # a call of other machines
    for family in families:
        rules.add_rule(pyseccomp.ALLOW, "socket", pyseccomp.Arg(0, pyseccomp.EQ, family))
    rules.load()


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the test names the command
