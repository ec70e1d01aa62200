"""The server's end: what each request is answered with."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from swarmkeel.control import handler
from swarmkeel.control.protocol import (
    MAX_BODY_BYTES,
    RestartPhase,
    RestartRequest,
    RestartStatus,
    ServerStatus,
)
from swarmkeel.control.server import Callbacks, ControlServer
from swarmkeel.swarm.span import Span
from tests.control.recording import (
    IDLE,
    ONLINE,
    RecordingServer,
    ask,
    exchange,
    request_bytes,
    restart,
    restart_body,
    shown_restart,
)


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


def test_a_server_that_never_shows_its_restart_is_told_so_once_it_serves(
    served: Path, recording: RecordingServer, caplog: pytest.LogCaptureFixture
) -> None:
    recording.shows_restarts = False
    with caplog.at_level(logging.WARNING, logger="swarmkeel.control.handler"):
        assert shown_restart(restart(served))["phase"] == "accepted"
        assert caplog.messages == []
        recording.present = replace(ONLINE, span=Span(10, 28))
        for _ in range(3):
            ask(served, "GET", "/v1/status")
    (message,) = caplog.messages
    assert "restart restart-1: the server is online on blocks 10:28" in message
    assert "give it as ServerStatus.restart" in message


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
