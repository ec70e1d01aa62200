from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmkeel.daemon.notify import ServiceNotifier


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    # Not tmp_path: a socket's path may have 107 bytes only.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(Path(folder) / "notify"))
        receiver.settimeout(10)
        yield receiver


def test_the_service_manager_is_told_everything(manager: socket.socket) -> None:
    notifier = ServiceNotifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000000"})
    notifier.ready()
    notifier.status("holding:\ncooldown")
    notifier.alive()
    notifier.reloading()
    notifier.stopping()
    assert manager.recv(1000) == b"READY=1"
    assert manager.recv(1000) == b"STATUS=holding: cooldown"
    assert manager.recv(1000) == b"WATCHDOG=1"
    reloading = manager.recv(1000).decode().splitlines()
    assert reloading[0] == "RELOADING=1"
    assert reloading[1].removeprefix("MONOTONIC_USEC=").isdigit()
    assert manager.recv(1000) == b"STOPPING=1"
    assert notifier.watchdog_seconds == 30


def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0swarmkeel-test-{os.getpid()}")
        receiver.settimeout(10)
        ServiceNotifier({"NOTIFY_SOCKET": f"@swarmkeel-test-{os.getpid()}"}).ready()
        assert receiver.recv(1000) == b"READY=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nonexistent/socket"}])
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    ServiceNotifier(environment).ready()


def test_a_watchdog_of_another_process_is_not_ours(manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    notifier = ServiceNotifier(environment)
    assert notifier.watchdog_seconds is None
    notifier.alive()
    notifier.ready()
    assert manager.recv(1000) == b"READY=1"
