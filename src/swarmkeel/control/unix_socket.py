"""Private Unix sockets on Linux: their place in the file system, and who sits at the other end.

Standard library only, as all that the server's side of the control protocol needs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import socket
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

MAX_PATH_BYTES: Final = 107
"""The kernel's limit for a Unix socket's path, without the closing zero byte."""
SOCKET_MODE: Final = 0o660
DIRECTORY_MODE: Final = 0o700

_BACKLOG: Final = 32
_LOCK_SECONDS: Final = 5.0
_PEER_CREDENTIALS: Final = struct.Struct("3i")


class SocketPathError(OSError):
    """A control socket cannot be where it should be; the text says why and what to do."""


class _HasSocketOptions(Protocol):
    def getsockopt(self, level: int, option: int, length: int, /) -> bytes: ...


def own_and_root_uids() -> frozenset[int]:
    """Give the user ids that are trusted where none are configured."""
    return frozenset({os.geteuid(), 0})


def uid_of(user: str) -> int:
    """Give the user id of a user, who is named or numbered; ValueError if nobody has that name."""
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {user!r} on this machine") from None


def peer_uid(connection: _HasSocketOptions) -> int:
    """Ask the kernel which user is at the other end of a connected Unix socket (`SO_PEERCRED`).

    For the connecting end that is who called listen, for the listening end who called connect.
    """
    answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _pid, uid, _gid = _PEER_CREDENTIALS.unpack(answer)
    return int(uid)


def check_socket_path(path: str | os.PathLike[str]) -> Path:
    """Give the path if a Unix socket can have it.

    Raises:
        SocketPathError: If the kernel would not take it.
    """
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        raise SocketPathError(
            f"the path of a Unix socket has at most {MAX_PATH_BYTES} bytes, {os.fspath(path)!r} has {size}: "
            "choose a shorter one, such as /run/swarmkeel/server.sock"
        )
    if size == 0 or "\0" in os.fspath(path):
        raise SocketPathError(f"{os.fspath(path)!r} is no path of a file: name the file of the socket")
    return Path(path)


@dataclass(frozen=True)
class PrivateListener:
    """A listening Unix socket and the file that it answers at.

    Attributes:
        socket: The listening socket.
        path: Its file.
        file_id: Device and inode of that file, by which a later file at the same path is told apart.
    """

    socket: socket.socket
    path: Path
    file_id: tuple[int, int]

    @classmethod
    def open(cls, socket_path: str | os.PathLike[str]) -> PrivateListener:
        """Listen at `socket_path`; a socket file that nobody listens at any more is taken over.

        The directory is made, for this user alone, if it is missing.

        Raises:
            SocketPathError: If the path is too long, is no socket, is listened at, or its directory is open to everyone.
            OSError: If the system refuses for another reason.
        """
        path = check_socket_path(socket_path)
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _locked_directory(path.parent):
                _remove_if_stale(path)
                # Linux gives the file the mode of the unbound socket, less the umask. So the file is private from its
                # first instant, without a change of the umask, which is shared with every thread of the process.
                os.fchmod(listener.fileno(), SOCKET_MODE)
                listener.bind(str(path))
                path.chmod(SOCKET_MODE)
                listener.listen(_BACKLOG)
                return cls(listener, path, _file_id(path))
        except BaseException:
            listener.close()
            raise

    def close(self) -> None:
        """Stop listening and remove the file, unless somebody else has put another one there."""
        # The file goes first: whoever finds it can still connect.
        with contextlib.suppress(FileNotFoundError):
            if _file_id(self.path) == self.file_id:
                self.path.unlink()
        self.socket.close()


def _file_id(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _locked_directory(directory: Path) -> Iterator[None]:
    """Keep others that start here at the same instant from both taking the same stale file for theirs."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mode = os.fstat(descriptor).st_mode
        if mode & stat.S_IWOTH:
            raise SocketPathError(
                f"everyone may write to {str(directory)!r} (mode {stat.S_IMODE(mode):04o}), so anyone could put a socket "
                "in the server's place: put the control socket into a directory of its own"
            )
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)  # which also gives up the lock


def _lock(descriptor: int, directory: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SocketPathError(
                    f"another process has kept the lock on {str(directory)!r} for {_LOCK_SECONDS:g} s: "
                    "see who it is with `fuser -v` and end it"
                ) from None
            time.sleep(0.02)


def _remove_if_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketPathError(f"{str(path)!r} is there and is no socket: remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)  # a full queue of connections also means that somebody listens
        answer = probe.connect_ex(str(path))
    if answer in (0, errno.EAGAIN, errno.EINPROGRESS):
        raise SocketPathError(f"another process listens at {str(path)!r}: stop it or choose another path")
    if answer != errno.ECONNREFUSED:
        raise SocketPathError(
            f"whether somebody listens at {str(path)!r} cannot be found out ({os.strerror(answer)}): "
            "run as the user who owns it, or remove it"
        )
    path.unlink()
