"""HTTP as far as it is spoken here: heads parsed without a socket, requests read from a real one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swarmkeel.control.http1 import MAX_HEAD_BYTES, HttpConnection, HttpError, RequestHead, body_length, parse_head

MAX_BODY = 1000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, HttpConnection]]:
    """A client's socket, and the server's end of it that waits half a second for a request."""
    client, server = socket.socketpair()
    with client, server:
        yield client, HttpConnection(server, request_seconds=0.5, max_body_bytes=MAX_BODY)


def refusal(http: HttpConnection) -> HTTPStatus:
    with pytest.raises(HttpError) as error:
        http.read_request()
    return error.value.status


def test_a_head_is_read() -> None:
    head = parse_head(b"POST /v1/restart?x=1 HTTP/1.1\r\nHost: a\r\nX-Twice: 1\r\nx-twice:\t 2 \r\nContent-Length: 7")
    assert (head.method, head.path, head.keep_alive) == ("POST", "/v1/restart", True)
    assert head.headers == {"host": "a", "x-twice": "1, 2", "content-length": "7"}
    assert body_length(head, MAX_BODY) == 7


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: close", False),
        ("1.1", "Connection: x, Close", False),
        ("1.0", "", False),
        ("1.0", "Connection: Keep-Alive", True),
    ],
)
def test_when_a_connection_is_kept(version: str, connection: str, keep_alive: bool) -> None:  # noqa: FBT001 - a column
    assert parse_head(f"GET / HTTP/{version}\r\n{connection}".rstrip().encode()).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"", 400),
        (b"GET /", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"G\x00T / HTTP/1.1", 400),
        (b"GET /\xff HTTP/1.1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/0.9", 505),
        (b"GET / HTTP/1.1\r\nno colon", 400),
        (b"GET / HTTP/1.1\r\nName : value", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded", 400),
        (b"GET / HTTP/1.1\r\nA: b\nC: d", 400),
        (b"GET / HTTP/1.1\r\n: value", 400),
    ],
)
def test_a_bad_head_is_refused(block: bytes, status: int) -> None:
    with pytest.raises(HttpError) as error:
        parse_head(block)
    assert error.value.status == status


@pytest.mark.parametrize(
    ("method", "headers", "outcome"),
    [
        ("GET", {}, 0),
        ("POST", {}, 411),
        ("POST", {"content-length": "1000"}, 1000),
        ("POST", {"content-length": "1001"}, 413),
        ("POST", {"content-length": "9" * 5000}, 400),
        ("POST", {"content-length": "-1"}, 400),
        ("POST", {"content-length": "+1"}, 400),
        ("POST", {"content-length": "5, 5"}, 400),
        ("POST", {"content-length": "\u0665"}, 400),
        ("POST", {"transfer-encoding": "chunked"}, 501),
        ("GET", {"transfer-encoding": "identity", "content-length": "1"}, 501),
    ],
)
def test_how_long_a_body_may_be(method: str, headers: dict[str, str], outcome: int) -> None:
    head = RequestHead(method, "/", headers, keep_alive=True)
    try:
        length: int = body_length(head, MAX_BODY)
    except HttpError as error:
        length = error.status
    assert length == outcome


@given(st.binary(max_size=300) | st.text(alphabet="GET /:HTP1.0\r\n\tax", max_size=80).map(str.encode))
@example(b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2")
def test_any_bytes_are_a_head_or_refused(block: bytes) -> None:
    try:
        head = parse_head(block)
        length = body_length(head, MAX_BODY)
    except HttpError as error:
        refused: HttpError | None = error
    else:
        refused = None
        assert 0 <= length <= MAX_BODY
        assert head.target.isprintable()
    assert refused is None or (400 <= refused.status <= 599 and refused.detail.isprintable())


def test_requests_come_in_pieces_and_several_at_once(ends: tuple[socket.socket, HttpConnection]) -> None:
    client, http = ends
    raw = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\n"

    def send_in_pieces() -> None:
        for start in range(0, len(raw), 5):
            client.sendall(raw[start : start + 5])

    sender = threading.Thread(target=send_in_pieces)
    sender.start()
    first, second = http.read_request(), http.read_request()
    sender.join()
    assert first is not None
    assert second is not None
    assert (first.head.target, first.body, second.head.target, second.body) == ("/a", b"abc", "/b", b"")
    client.sendall(b"\r\n")
    third = http.read_request()
    assert third is not None
    assert third.head.target == "/c"


def test_nothing_sent_is_no_request(ends: tuple[socket.socket, HttpConnection]) -> None:
    client, http = ends
    assert http.read_request() is None
    client.shutdown(socket.SHUT_WR)
    assert http.read_request() is None


@pytest.mark.parametrize(
    "half", [b"G", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", b"\r\n"]
)
def test_half_a_request_is_refused_at_the_end_of_the_stream_or_of_the_time(half: bytes) -> None:
    for ends_stream, status in ((True, HTTPStatus.BAD_REQUEST), (False, HTTPStatus.REQUEST_TIMEOUT)):
        client, server = socket.socketpair()
        with client, server:
            client.sendall(half)
            if ends_stream:
                client.shutdown(socket.SHUT_WR)
            http = HttpConnection(server, request_seconds=0.2, max_body_bytes=MAX_BODY)
            assert refusal(http) is status


def test_whoever_sends_byte_by_byte_gains_no_time(ends: tuple[socket.socket, HttpConnection]) -> None:
    client, http = ends
    done = threading.Event()

    def drip() -> None:
        while not done.wait(0.02):
            client.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    assert refusal(http) is HTTPStatus.REQUEST_TIMEOUT
    done.set()
    dripping.join()


def test_a_head_without_end_is_refused_before_it_is_all_read(ends: tuple[socket.socket, HttpConnection]) -> None:
    client, http = ends
    client.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 3 * MAX_HEAD_BYTES)
    assert refusal(http) is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    assert len(http._buffer) <= 2 * MAX_HEAD_BYTES


def test_a_long_head_that_ends_is_refused_too(ends: tuple[socket.socket, HttpConnection]) -> None:
    client, http = ends
    client.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n")
    assert refusal(http) is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


def test_a_body_is_asked_for_only_when_it_would_be_taken(ends: tuple[socket.socket, HttpConnection]) -> None:
    client, http = ends
    head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: "

    def send_when_told() -> None:
        client.sendall(head + b"3\r\n\r\n")
        if client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n":
            client.sendall(b"abc")

    sender = threading.Thread(target=send_when_told)
    sender.start()
    request = http.read_request()
    sender.join()
    assert request is not None
    assert request.body == b"abc"
    client.sendall(head + b"1001\r\n\r\n")
    assert refusal(http) is HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    client.settimeout(0)
    with pytest.raises(BlockingIOError):
        client.recv(1)
