"""Where a control socket may be, with which rights, and who takes it over from whom."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from swarmkeel.control import unix_socket
from swarmkeel.control.unix_socket import (
    MAX_PATH_BYTES,
    PrivateListener,
    SocketPathError,
    check_socket_path,
    peer_uid,
    uid_of,
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def leave_stale(path: Path) -> None:
    """Leave a socket file behind as a killed process does."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("umask", [0, 0o22, 0o77])
def test_directory_and_socket_have_their_modes_whatever_the_umask(socket_path: Path, umask: int) -> None:
    path = socket_path.parent / "run" / "server.sock"
    script = f"""
import os
from pathlib import Path
from swarmkeel.control.unix_socket import PrivateListener
os.umask({umask})
PrivateListener.open({str(path)!r})
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (mode_of(path.parent), mode_of(path)) == (0o700, 0o660)


def test_the_socket_file_is_private_from_its_first_instant(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class WatchedSocket(socket.socket):
        def bind(self, address: object) -> None:
            super().bind(str(address))
            seen.append(mode_of(socket_path))

    monkeypatch.setattr(socket, "socket", WatchedSocket)
    PrivateListener.open(socket_path).close()
    assert len(seen) == 1
    assert seen[0] & ~0o660 == 0


def test_closing_removes_the_file_once(socket_path: Path) -> None:
    listener = PrivateListener.open(socket_path)
    listener.close()
    assert not socket_path.exists()
    listener.close()


def test_closing_leaves_a_file_that_another_has_put_there(socket_path: Path) -> None:
    first = PrivateListener.open(socket_path)
    socket_path.unlink()
    second = PrivateListener.open(socket_path)
    first.close()
    assert socket_path.exists()
    second.close()


def test_a_stale_socket_is_taken_over(socket_path: Path) -> None:
    leave_stale(socket_path)
    listener = PrivateListener.open(socket_path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(socket_path))
        assert peer_uid(client) == os.geteuid()
    listener.close()


def test_a_socket_that_somebody_listens_at_is_left_alone(socket_path: Path) -> None:
    first = PrivateListener.open(socket_path)
    with pytest.raises(SocketPathError, match="another process listens at"):
        PrivateListener.open(socket_path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(socket_path))
    first.close()


def test_a_socket_whose_queue_is_full_is_listened_at(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(socket_path))
            with pytest.raises(SocketPathError, match="another process listens at"):
                PrivateListener.open(socket_path)


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling link", "link to a socket"])
def test_what_is_no_socket_is_refused_and_kept(socket_path: Path, kind: str) -> None:
    target = socket_path.with_name("target")
    if kind == "file":
        socket_path.write_text("keep me")
    elif kind == "directory":
        socket_path.mkdir()
    else:
        if kind == "link":
            target.write_text("keep me")
        elif kind == "link to a socket":
            leave_stale(target)
        socket_path.symlink_to(target)
    before = socket_path.lstat()
    with pytest.raises(SocketPathError, match="is there and is no socket: remove it or choose another path"):
        PrivateListener.open(socket_path)
    assert socket_path.lstat() == before


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_directory_open_to_everyone_is_refused(socket_path: Path, mode: int) -> None:
    socket_path.parent.chmod(mode)
    with pytest.raises(SocketPathError, match="put the control socket into a directory of its own"):
        PrivateListener.open(socket_path)
    assert not socket_path.exists()


def test_of_many_that_start_at_once_on_a_stale_socket_one_wins(socket_path: Path) -> None:
    leave_stale(socket_path)
    start = threading.Barrier(8)
    won: list[PrivateListener] = []
    lost: list[SocketPathError] = []

    def take_over() -> None:
        start.wait()
        try:
            won.append(PrivateListener.open(socket_path))
        except SocketPathError as error:
            lost.append(error)

    threads = [threading.Thread(target=take_over) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert won[0].file_id == (socket_path.stat().st_dev, socket_path.stat().st_ino)
    won[0].close()


def test_a_lock_that_another_keeps_is_not_waited_for_for_ever(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_socket, "_LOCK_SECONDS", 0.1)
    with (
        unix_socket._locked_directory(socket_path.parent),
        pytest.raises(SocketPathError, match="has kept the lock"),
    ):
        PrivateListener.open(socket_path)
    PrivateListener.open(socket_path).close()


def test_which_paths_a_socket_can_have(socket_path: Path) -> None:
    room = MAX_PATH_BYTES - len(str(socket_path.parent)) - 1
    longest = socket_path.parent / ("é" * (room // 2) + "e" * (room % 2))
    assert len(os.fsencode(longest)) == MAX_PATH_BYTES
    PrivateListener.open(longest).close()
    with pytest.raises(SocketPathError, match=r"at most 107 bytes, .* has 108: choose a shorter one"):
        check_socket_path(f"{longest}x")
    for path in ("", "a\0b"):
        with pytest.raises(SocketPathError, match="is no path of a file"):
            check_socket_path(path)


def test_a_user_is_named_or_numbered() -> None:
    assert (uid_of("root"), uid_of("12345")) == (0, 12345)
    for nobody in ("nobody has this name", "-1", ""):
        with pytest.raises(ValueError, match="no user"):
            uid_of(nobody)
