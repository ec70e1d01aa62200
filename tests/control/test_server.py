"""The server's end against raw bytes, as any client or attacker may send them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmkeel.control import handler
from swarmkeel.control import server as server_module
from swarmkeel.control.protocol import (
    MAX_BODY_BYTES,
    RestartPhase,
    RestartRequest,
    RestartStatus,
    ServerStatus,
)
from swarmkeel.control.server import Callbacks, ControlServer, Refused
from swarmkeel.control.unix_socket import SocketPathError
from swarmkeel.swarm.span import Span
from tests.control.recording import (
    IDLE,
    ONLINE,
    Answer,
    RecordingServer,
    ask,
    connect,
    exchange,
    parse_answers,
    read_to_end,
    request_bytes,
    restart_body,
    wait_until,
)


@pytest.fixture
def recording() -> RecordingServer:
    return RecordingServer()


@pytest.fixture
def served(socket_path: Path, recording: RecordingServer) -> Iterator[Path]:
    """The path of a socket at which `recording` answers, quick to lose patience."""
    with ControlServer(socket_path, recording, request_seconds=2.0):
        yield socket_path
    assert not socket_path.exists()


def restart(path: Path, number: object = 1, **changes: object) -> Answer:
    return ask(path, "POST", "/v1/restart", restart_body(number, **changes))


def shown_restart(answer: Answer) -> dict[str, Any]:
    assert answer.status == 202, answer
    shown = answer.json["restart"]
    assert isinstance(shown, dict)
    return shown


def assert_unharmed(path: Path, recording: RecordingServer) -> None:
    """Nothing has been begun, and the next good request works."""
    assert recording.restarts == []
    assert recording.prefetches == []
    assert ServerStatus.from_json(ask(path, "GET", "/v1/status").json) == recording.present


def test_status(served: Path, recording: RecordingServer) -> None:
    answer = ask(served, "GET", "/v1/status")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert ServerStatus.from_json(answer.json) == recording.present
    assert ask(served, "GET", "/v1/status?pretty").status == 200


def test_head_gives_the_headers_alone(served: Path) -> None:
    (answer,) = exchange(served, request_bytes("HEAD", "/v1/status"))
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 100


def test_requests_on_one_connection(served: Path) -> None:
    answers = exchange(served, request_bytes("GET", "/v1/status") * 3 + request_bytes("GET", "/none"))
    assert [answer.status for answer in answers] == [200, 200, 200, 404]


def test_restart_is_begun_and_shown(served: Path, recording: RecordingServer) -> None:
    answer = restart(served, if_span={"start": 0, "end": 18})
    assert shown_restart(answer)["phase"] == "loading"
    assert recording.restarts == [
        RestartRequest("restart-1", Span(10, 28), if_span=Span(0, 18), reason="test", drain_seconds=1.0)
    ]


def test_the_same_id_again_answers_with_the_state_of_that_restart(served: Path, recording: RecordingServer) -> None:
    first = {"number": "first", "span": {"start": 10, "end": 28}, "if_span": {"start": 0, "end": 18}}
    second = {"number": "second", "span": {"start": 20, "end": 38}, "if_span": {"start": 10, "end": 28}}
    assert shown_restart(restart(served, **first))["phase"] == "loading"
    assert shown_restart(restart(served, **first))["phase"] == "loading"
    recording.finish()
    assert shown_restart(restart(served, **first))["phase"] == "online"
    assert shown_restart(restart(served, **second))["phase"] == "loading"
    # A later restart does not make the first one forgotten, and it is not begun anew.
    again = restart(served, **first)
    assert shown_restart(again) == {
        "id": "restart-first",
        "span": {"start": 10, "end": 28},
        "phase": "online",
        "progress": None,
        "error": None,
    }
    assert [request.id for request in recording.restarts] == ["restart-first", "restart-second"]


def test_the_same_id_for_other_blocks_is_a_conflict(served: Path, recording: RecordingServer) -> None:
    restart(served)
    recording.finish()
    answer = restart(served, span={"start": 20, "end": 38})
    assert (answer.status, answer.is_problem) == (409, True)
    assert "restart-1 was for blocks 10:28" in str(answer.json["detail"])
    assert len(recording.restarts) == 1


def test_an_id_that_the_server_itself_remembers_is_not_begun_again(served: Path, recording: RecordingServer) -> None:
    """The embedding server may keep its last restart over a restart of the whole process."""
    recording.show(RestartStatus("restart-1", Span(10, 28), RestartPhase.ONLINE))
    assert shown_restart(restart(served))["phase"] == "online"
    assert recording.restarts == []


def test_remembered_ids_are_bounded(served: Path, recording: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "MAX_REMEMBERED_IDS", 3)
    for number in range(5):
        assert restart(served, number).status == 202
        recording.finish()
    assert restart(served, 3).status == 202
    assert len(recording.restarts) == 5
    assert restart(served, 0).status == 202
    assert len(recording.restarts) == 6


def test_another_restart_under_way_is_a_conflict(served: Path, recording: RecordingServer) -> None:
    restart(served, 1)
    answer = restart(served, 2)
    assert (answer.status, answer.is_problem) == (409, True)
    assert answer.json["detail"] == "restart restart-1 on blocks 10:28 is under way (loading)"
    recording.show(RestartStatus("restart-1", Span(10, 28), RestartPhase.FAILED, error="no memory"))
    assert restart(served, 2).status == 202


def test_a_restart_is_under_way_even_before_the_server_shows_it(socket_path: Path) -> None:
    recording = RecordingServer(shows_restarts=False)
    recording.show(RestartStatus("older", Span(0, 18), RestartPhase.ONLINE))
    with ControlServer(socket_path, recording):
        assert shown_restart(restart(socket_path, 1))["phase"] == "accepted"
        status = ServerStatus.from_json(ask(socket_path, "GET", "/v1/status").json)
        assert status.restart == RestartStatus("restart-1", Span(10, 28), RestartPhase.ACCEPTED)
        assert restart(socket_path, 2).status == 409
        recording.show(RestartStatus("restart-1", Span(10, 28), RestartPhase.FAILED, error="no memory"))
        assert shown_restart(restart(socket_path, 1))["error"] == "no memory"
        assert restart(socket_path, 2).status == 202


@pytest.mark.parametrize(
    ("present", "condition", "status"),
    [
        (ONLINE, {"if_span": {"start": 0, "end": 18}}, 202),
        (ONLINE, {"if_span": {"start": 0, "end": 17}}, 409),
        (ONLINE, {"if_span": None}, 409),
        (ONLINE, {}, 202),
        (IDLE, {"if_span": {"start": 0, "end": 18}}, 409),
        (IDLE, {"if_span": None}, 202),
        (IDLE, {}, 202),
    ],
)
def test_if_span(socket_path: Path, present: ServerStatus, condition: dict[str, object], status: int) -> None:
    recording = RecordingServer(present)
    with ControlServer(socket_path, recording):
        answer = restart(socket_path, **condition)
    assert answer.status == status
    assert len(recording.restarts) == (status == 202)
    if status == 409:
        assert answer.is_problem
        assert "the server serves blocks" in str(answer.json["detail"])


@pytest.mark.parametrize(
    ("limits", "span", "status"),
    [
        ({}, (62, 80), 202),
        ({}, (63, 81), 422),
        ({}, (0, 17), 422),
        ({}, (0, 19), 422),
        ({"min_blocks": 10}, (0, 10), 202),
        ({"min_blocks": 10}, (0, 9), 422),
        ({"min_blocks": 10}, (0, 19), 422),
        ({"max_blocks": 20}, (0, 20), 202),
        ({"max_blocks": 20}, (0, 17), 422),
        ({"min_blocks": 1, "max_blocks": 80}, (0, 80), 202),
    ],
)
@pytest.mark.parametrize("request_for", ["restart", "prefetch"])
def test_spans_that_the_server_can_hold(
    socket_path: Path, request_for: str, limits: dict[str, int], span: tuple[int, int], status: int
) -> None:
    recording = RecordingServer(replace(ONLINE, **limits))  # type: ignore[arg-type] # mypy takes each for any field
    body = restart_body(span={"start": span[0], "end": span[1]})
    with ControlServer(socket_path, recording):
        answer = ask(socket_path, "POST", f"/v1/{request_for}", body)
    assert answer.status == status
    assert len(recording.restarts) + len(recording.prefetches) == (status == 202)
    assert status == 202 or answer.is_problem


def test_of_many_restarts_at_once_exactly_one_is_begun(socket_path: Path) -> None:
    class SlowServer(RecordingServer):
        """Leaves others time to come in between the look at its status and the beginning."""

        def status(self) -> ServerStatus:
            present = super().status()
            threading.Event().wait(0.005)
            return present

    recording = SlowServer()
    start = threading.Barrier(20)

    def post(number: int) -> int:
        start.wait()
        return restart(socket_path, number).status

    with ControlServer(socket_path, recording), ThreadPoolExecutor(20) as pool:
        statuses = sorted(pool.map(post, range(20)))
    assert statuses == [202] + [409] * 19
    assert len(recording.restarts) == 1


def test_the_same_restart_many_times_at_once_is_begun_once(served: Path, recording: RecordingServer) -> None:
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: restart(served).status, range(20)))
    assert statuses == [202] * 20
    assert len(recording.restarts) == 1


def test_prefetch(served: Path, recording: RecordingServer) -> None:
    body = {"id": "p", "span": {"start": 10, "end": 28}}
    assert [ask(served, "POST", "/v1/prefetch", body).status for _ in range(2)] == [202, 202]
    assert [(request.id, request.span) for request in recording.prefetches] == [("p", Span(10, 28))]
    other = ask(served, "POST", "/v1/prefetch", {**body, "span": {"start": 0, "end": 18}})
    assert (other.status, other.is_problem) == (409, True)


class WithoutPrefetch:
    """The least that a server can embed, though it claims more."""

    def __init__(self) -> None:
        self._recording = RecordingServer()
        self.status = self._recording.status
        self.restart = self._recording.restart


@pytest.mark.parametrize("callbacks", [WithoutPrefetch(), RecordingServer(replace(ONLINE, capabilities=("drain",)))])
def test_prefetch_is_501_where_it_is_no_capability(socket_path: Path, callbacks: Callbacks) -> None:
    with ControlServer(socket_path, callbacks):
        answer = ask(socket_path, "POST", "/v1/prefetch", {"id": "p", "span": {"start": 0, "end": 18}})
        assert (answer.status, answer.is_problem) == (501, True)
        assert ask(socket_path, "GET", "/v1/status").status == 200


BIG = b'{"id": "' + b"x" * MAX_BODY_BYTES + b'"}'
BAD_REQUESTS: dict[str, tuple[bytes, int]] = {
    "not JSON": (request_bytes("POST", "/v1/restart", b"span=1"), 400),
    "not UTF-8": (request_bytes("POST", "/v1/restart", b'{"id": "\xff"}'), 400),
    "nested too deep": (request_bytes("POST", "/v1/restart", b"[" * 60000), 400),
    "half of JSON": (request_bytes("POST", "/v1/restart", b'{"id": "1", "span'), 400),
    "empty body": (request_bytes("POST", "/v1/restart", b""), 400),
    "no object": (request_bytes("POST", "/v1/restart", [1]), 422),
    "no id": (request_bytes("POST", "/v1/restart", {"span": {"start": 0, "end": 18}}), 422),
    "no span": (request_bytes("POST", "/v1/restart", {"id": "1"}), 422),
    "unknown span": (request_bytes("POST", "/v1/restart", restart_body(span={"start": 70, "end": 88})), 422),
    "negative span": (request_bytes("POST", "/v1/restart", restart_body(span={"start": -1, "end": 17})), 422),
    "huge span": (request_bytes("POST", "/v1/restart", restart_body(span={"start": 0, "end": 10**25})), 422),
    "too large": (request_bytes("POST", "/v1/restart", BIG), 413),
    "too large and not sent": (b"POST /v1/restart HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n", 413),
    "chunked": (b"POST /v1/restart HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 501),
    "no length": (b"POST /v1/restart HTTP/1.1\r\n\r\n", 411),
    "two lengths": (b"POST /v1/restart HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "half a body": (b"POST /v1/restart HTTP/1.1\r\nContent-Length: 200\r\n\r\n{", 400),
    "half a head": (b"GET /v1/status HTTP/1.1\r\nHost:", 400),
    "headers too large": (b"GET /v1/status HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 431),
    "endless headers": (b"GET /v1/status HTTP/1.1\r\n" + b"X: x\r\n" * 50000, 431),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", 400),
    "other HTTP": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "unknown path": (request_bytes("GET", "/v2/status"), 404),
    "path that climbs": (request_bytes("GET", "/v1/status/../../etc/passwd"), 404),
    "get of restart": (request_bytes("GET", "/v1/restart"), 405),
    "post of status": (request_bytes("POST", "/v1/status", {}), 405),
    "delete": (request_bytes("DELETE", "/v1/status"), 405),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_requests_get_a_problem_and_change_nothing(served: Path, recording: RecordingServer, name: str) -> None:
    raw, status = BAD_REQUESTS[name]
    (answer,) = exchange(served, raw)
    assert answer.status == status
    assert answer.is_problem
    assert_unharmed(served, recording)


def test_a_client_may_finish_sending_before_it_reads_that_it_was_refused(served: Path) -> None:
    with connect(served) as client:
        client.sendall(b"POST /v1/restart HTTP/1.1\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000)
        (answer,) = parse_answers(read_to_end(client))
    assert answer.status == 413


def test_a_wrong_method_is_told_the_right_ones(served: Path) -> None:
    assert ask(served, "PUT", "/v1/status").headers["allow"] == "GET, HEAD"
    assert ask(served, "GET", "/v1/restart").headers["allow"] == "POST"


@pytest.mark.parametrize("content_type", ["", "Content-Type: text/plain\r\n", "Content-Type: ???\r\n"])
def test_the_content_type_of_a_request_does_not_matter(served: Path, content_type: str) -> None:
    assert ask(served, "POST", "/v1/restart", restart_body(), content_type).status == 202


fuzzed = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pieces = st.sampled_from(
    [
        b"GET ",
        b"POST ",
        b"/v1/status",
        b"/v1/restart",
        b" HTTP/1.1",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Length: 2",
        b"Content-Length: 99999999",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"{}",
        b"\x00",
        b" ",
    ]
)


@fuzzed
@given(raw=st.binary(max_size=400) | st.lists(pieces, max_size=20).map(b"".join))
def test_any_bytes_end_in_an_answer_or_a_closed_connection(
    served: Path, recording: RecordingServer, raw: bytes
) -> None:
    for answer in exchange(served, raw):
        assert answer.status in (100, 200) or answer.is_problem
    assert_unharmed(served, recording)


@fuzzed
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["id", "span", "start", "end", "if_span"]) | st.text(), inner, max_size=4)
        ),
        max_leaves=10,
    )
)
def test_any_json_ends_in_a_problem(served: Path, recording: RecordingServer, body: object) -> None:
    for path in ("/v1/restart", "/v1/prefetch"):
        answer = ask(served, "POST", path, json.dumps(body).encode())
        # A request for 18 blocks from 0 to 80 cannot be found by chance: it needs an id beside two fitting numbers.
        assert answer.status in (400, 422)
        assert answer.is_problem
    assert_unharmed(served, recording)


def test_half_open_and_slow_clients_are_cut_off(served: Path, recording: RecordingServer) -> None:
    with connect(served) as silent, connect(served) as half, connect(served) as slow:
        half.sendall(b"GET /v1/status HTT")
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.05):
                try:
                    slow.sendall(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert read_to_end(silent) == b""
        for connection in (half, slow):
            (answer,) = parse_answers(read_to_end(connection))
            assert (answer.status, answer.is_problem) == (408, True)
        stop.set()
        dripping.join()
    assert_unharmed(served, recording)


def test_a_client_that_does_not_read_is_cut_off(served: Path, recording: RecordingServer) -> None:
    recording.present = replace(recording.present, capabilities=tuple(f"{'x' * 250}{i}" for i in range(64)))
    with connect(served) as deaf:
        deaf.settimeout(0.5)
        many_requests = request_bytes("GET", "/v1/status") * 20_000  # more than the buffers on the way can hold
        with pytest.raises(OSError, match=r"timed out|Broken pipe|reset"):
            deaf.sendall(many_requests)
        wait_until(lambda: not any(t.name == "swarmkeel-control-connection" for t in threading.enumerate()))
    assert_unharmed(served, recording)


def test_connections_are_bounded(socket_path: Path, recording: RecordingServer) -> None:
    with ControlServer(socket_path, recording, max_connections=2):
        with connect(socket_path) as first, connect(socket_path) as second:
            for connection in (first, second):
                connection.sendall(request_bytes("GET", "/v1/status"))
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
            (answer,) = exchange(socket_path, b"")
            assert (answer.status, answer.is_problem) == (503, True)
            assert answer.headers["retry-after"] == "1"
        wait_until(lambda: exchange(socket_path, request_bytes("GET", "/v1/status"))[0].status == 200)


def test_who_is_not_allowed_is_told_so_and_nothing_else(
    socket_path: Path, recording: RecordingServer, caplog: pytest.LogCaptureFixture
) -> None:
    with ControlServer(socket_path, recording, allowed_uids={12345}):
        for raw in (request_bytes("POST", "/v1/restart", restart_body()), request_bytes("GET", "/v1/status"), b""):
            (answer,) = exchange(socket_path, raw)
            assert (answer.status, answer.is_problem) == (403, True)
            assert b"model" not in answer.body
    assert recording.restarts == []
    assert f"user {os.geteuid()} may not use the control socket" in caplog.text


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


ORPHAN = """
import os, signal, sys, time
from swarmkeel.control.server import ControlServer
from tests.control.recording import RecordingServer, connect, request_bytes
control = ControlServer(sys.argv[1], RecordingServer())
control.start()
client = connect(sys.argv[1])  # so that the child also has a connection to let go of
client.sendall(request_bytes("GET", "/v1/status"))
client.recv(1)
child = os.fork()
if child == 0:
    control.close()  # as a with block does on its way out: it must not take the parent's socket with it
    print(os.path.exists(sys.argv[1]), flush=True)
    time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""


def test_a_forked_child_does_not_hold_the_socket_of_a_killed_parent(
    socket_path: Path, recording: RecordingServer
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(socket_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as parent:
        assert parent.stdout is not None
        lines = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        assert "True" in lines
        (child,) = (int(line) for line in lines - {"True"})
        try:
            assert ask(socket_path, "GET", "/v1/status").status == 200
            parent.kill()
            parent.wait()
            os.kill(child, 0)
            with ControlServer(socket_path, recording):
                assert_unharmed(socket_path, recording)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(served: Path, recording: RecordingServer, tmp_path: Path) -> None:
    def curl(*arguments: str) -> tuple[str, int]:
        command = ["curl", "-sS", "--unix-socket", str(served), "-w", "\n%{http_code}", *arguments]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        body, _, code = run.stdout.rpartition("\n")
        return body, int(code)

    body, code = curl("http://server/v1/status")
    assert code == 200
    assert ServerStatus.from_json(json.loads(body)) == recording.present
    assert curl("http://server/v1/restart", "-d", "nonsense")[1] == 400
    for size in (MAX_BODY_BYTES + 1, 3 * 1024 * 1024):  # curl asks before it sends the second one
        (tmp_path / "big").write_bytes(b"x" * size)
        assert curl("http://server/v1/restart", "--data-binary", f"@{tmp_path / 'big'}")[1] == 413
    assert curl("http://server/v1/restart", "-d", json.dumps(restart_body()))[1] == 202
    assert len(recording.restarts) == 1


def test_what_is_logged_of_a_restart(served: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="swarmkeel.control")
    restart(served, reason="thin\nFAKE LOG LINE")
    assert "restart restart-1 on blocks 10:28 begun: thin?FAKE LOG LINE" in caplog.messages
