"""The server's end from start to close: callbacks that fail or hang, forks, and sockets of others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from swarmkeel.control import handler
from swarmkeel.control import private_server as server_module
from swarmkeel.control.protocol import (
    RestartRequest,
    ServerStatus,
)
from swarmkeel.control.server import ControlServer, Refused
from swarmkeel.control.unix_socket import SocketPathError
from swarmkeel.swarm.span import Span
from tests.control.recording import (
    ONLINE,
    RecordingServer,
    ask,
    assert_unharmed,
    connect,
    exchange,
    read_to_end,
    request_bytes,
    restart,
    wait_until,
)
from tests.support.dht import process_runs


def test_a_callback_that_raises_is_logged_and_not_told(
    served: Path, recording: RecordingServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA at 0xdeadbeef")

    with monkeypatch.context() as patch:
        patch.setattr(recording, "restart", fail)
        answer = restart(served)
        assert (answer.status, answer.is_problem) == (500, True)
        assert b"deadbeef" not in answer.body
        assert b"Traceback" not in answer.body
        patch.setattr(recording, "status", fail)
        assert ask(served, "GET", "/v1/status").status == 500
    assert "RuntimeError: CUDA at 0xdeadbeef" in caplog.text
    # The id of what was not begun is not used up.
    assert restart(served).status == 202


@pytest.mark.parametrize(
    "nonsense",
    [replace(ONLINE, throughput=float("nan")), replace(ONLINE, dht_prefix=""), replace(ONLINE, span=Span(70, 90))],
)
def test_nonsense_from_a_callback_is_logged_and_not_passed_on(
    served: Path, recording: RecordingServer, nonsense: ServerStatus, caplog: pytest.LogCaptureFixture
) -> None:
    recording.present = nonsense
    answer = ask(served, "GET", "/v1/status")
    assert (answer.status, answer.is_problem) == (500, True)
    assert "ValueError: status: " in caplog.text


def test_a_callback_may_refuse(served: Path, recording: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_request: RestartRequest) -> None:
        raise Refused(409, "pinned by its operator")

    with monkeypatch.context() as patch:
        patch.setattr(recording, "restart", refuse)
        answer = restart(served)
    assert (answer.status, answer.is_problem) == (409, True)
    assert answer.json["detail"] == "pinned by its operator"
    assert restart(served).status == 202


def test_a_callback_that_hangs_does_not_hang_the_others(
    socket_path: Path, recording: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "_LOCK_SECONDS", 0.1)
    entered, go_on = threading.Event(), threading.Event()

    def hang(_request: RestartRequest) -> None:
        entered.set()
        go_on.wait()

    monkeypatch.setattr(recording, "restart", hang)
    with ControlServer(socket_path, recording), ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(restart, socket_path)
        entered.wait()
        answer = ask(socket_path, "GET", "/v1/status")
        assert (answer.status, answer.is_problem) == (503, True)
        go_on.set()
        assert hanging.result().status == 202


def test_close_ends_connections_and_threads_and_start_works_again(
    socket_path: Path, recording: RecordingServer
) -> None:
    before = set(threading.enumerate())
    control = ControlServer(socket_path, recording)
    for _ in range(2):
        control.start()
        with pytest.raises(RuntimeError, match="started already"):
            control.start()
        with connect(socket_path) as waiting:
            waiting.sendall(request_bytes("GET", "/v1/status"))
            assert waiting.recv(100).startswith(b"HTTP/1.1 200")
            control.close()
            assert set(threading.enumerate()) <= before
            assert not socket_path.exists()
            read_to_end(waiting)
        control.close()


def test_a_request_under_way_is_answered_before_the_end(
    socket_path: Path, recording: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> ServerStatus:
        entered.set()
        go_on.wait()
        return ONLINE

    monkeypatch.setattr(recording, "status", slow)
    control = ControlServer(socket_path, recording)
    control.start()
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(exchange, socket_path, request_bytes("GET", "/v1/status"))
        entered.wait()
        closed = pool.submit(control.close)
        wait_until(lambda: not socket_path.exists())
        go_on.set()
        (answer,) = asked.result()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        closed.result()


def test_a_callback_may_close_the_server(
    socket_path: Path, recording: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = ControlServer(socket_path, recording)
    monkeypatch.setattr(recording, "restart", lambda _request: control.close())
    control.start()
    assert restart(socket_path).status == 202
    assert not socket_path.exists()


def test_end_with_a_callback_that_never_returns(
    socket_path: Path, recording: RecordingServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "_CLOSE_SECONDS", 0.1)
    entered, go_on = threading.Event(), threading.Event()

    def hang() -> ServerStatus:
        entered.set()
        go_on.wait()
        return ONLINE

    monkeypatch.setattr(recording, "status", hang)
    control = ControlServer(socket_path, recording)
    control.start()
    with connect(socket_path) as asking:
        asking.sendall(request_bytes("GET", "/v1/status"))
        entered.wait()
        control.close()
        assert "a callback did not return" in caplog.text
        go_on.set()
        read_to_end(asking)


def test_the_socket_of_another_is_not_taken(socket_path: Path, recording: RecordingServer) -> None:
    with ControlServer(socket_path, recording):
        with pytest.raises(SocketPathError, match="another process listens"):
            ControlServer(socket_path, RecordingServer()).start()
        assert_unharmed(socket_path, recording)


FORKING = """
import os, sys, time
from swarmkeel.control.server import ControlServer
from tests.control.recording import RecordingServer, connect, request_bytes
control = ControlServer(sys.argv[1], RecordingServer())
control.start()
client = connect(sys.argv[1])  # so that the child also has a connection to let go of
client.sendall(request_bytes("GET", "/v1/status"))
client.recv(1)
there, back = os.pipe()
child = os.fork()
if child == 0:
    control.close()  # as a with block does on its way out: it must not take the parent's socket with it
    os.write(back, b"closed")
    sys.stdin.read()
    sys.exit()
os.read(there, 100)
print(child, "socket left" if os.path.exists(sys.argv[1]) else "socket removed", flush=True)
time.sleep(600)
"""


def test_a_forked_child_does_not_hold_the_socket_of_a_killed_parent(
    socket_path: Path, recording: RecordingServer
) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKING, str(socket_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    with parent:
        try:
            assert parent.stdout is not None
            child, socket_file = parent.stdout.readline().strip().split(" ", 1)
            assert socket_file == "socket left"
            assert ask(socket_path, "GET", "/v1/status").status == 200
            parent.kill()
            parent.wait()
            os.kill(int(child), 0)  # still there
            with ControlServer(socket_path, recording):
                assert_unharmed(socket_path, recording)
            assert parent.stdin is not None
            parent.stdin.close()
            wait_until(lambda: not process_runs(int(child)))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)


def test_a_server_is_started_once(socket_path: Path, recording: RecordingServer) -> None:
    with ControlServer(socket_path, recording) as control:
        with pytest.raises(RuntimeError, match="the control server has been started already"):
            control.start()
        assert_unharmed(socket_path, recording)


def test_a_status_too_long_to_be_sent_is_logged_and_not_sent(
    served: Path, recording: RecordingServer, caplog: pytest.LogCaptureFixture
) -> None:
    # Each of these characters takes twelve bytes on the way.
    recording.present = replace(recording.present, capabilities=tuple("\U0001f980" * 250 + str(n) for n in range(64)))
    answer = ask(served, "GET", "/v1/status")
    assert (answer.status, answer.is_problem) == (500, True)
    assert "at most 65536 may be sent: shorten its texts" in caplog.text
