"""The server's end against raw bytes, as any client or attacker may send them."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmkeel.control.protocol import (
    MAX_BODY_BYTES,
)
from swarmkeel.control.server import ControlServer
from tests.control.recording import (
    RecordingServer,
    ask,
    assert_unharmed,
    connect,
    exchange,
    parse_answers,
    read_to_end,
    request_bytes,
    restart_body,
    wait_until,
)

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


fuzzed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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
