"""The two protocols over Unix sockets, drawn from their descriptions and from raw bytes: both ends of each."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from swarmkeel.config import load_config
from swarmkeel.control.server import ControlServer
from swarmkeel.daemon.admin_client import AdminClient, SidecarRefused, SidecarUnreachable
from swarmkeel.daemon.status import DaemonStatus
from tests.control.recording import RecordingServer, ask, exchange, request_bytes
from tests.hostile.besieged import Besieged
from tests.support.examples import examples
from tests.support.sidecars import short_folder

PROTOCOL: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "docs" / "protocol-openapi.yaml").read_text())
OPERATIONS = [(path, method) for path, methods in PROTOCOL["paths"].items() for method in methods]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\x1b[2J"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def drawn_from(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Draw what a schema allows, in every part of it now and then something else."""
    if "$ref" in schema:
        return drawn_from(PROTOCOL["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of([drawn_from(option) for option in schema["anyOf"]])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    options: list[st.SearchStrategy[Any]] = []
    for kind in kinds:
        if kind == "object":
            required = {name: drawn_from(schema["properties"][name]) for name in schema["required"]}
            optional = {name: drawn_from(part) for name, part in schema["properties"].items() if name not in required}
            whole = st.fixed_dictionaries(required, optional=optional)
            options += [whole, whole, whole, st.fixed_dictionaries({}, optional={**required, **optional, "more": JUNK})]
        elif kind == "integer":
            options.append(st.integers(schema.get("minimum", 0) - 1, 30) | st.integers())
        elif kind == "number":
            options.append(st.floats())
        elif kind == "string":
            options.append(st.text(max_size=schema.get("maxLength", 300) + 1))
        else:
            options.append(st.none())
    return st.one_of(*options, *options, *options, JUNK)


BODIES = {
    (path, method): drawn_from(PROTOCOL["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"])
    if method == "post"
    else st.none()
    for path, method in OPERATIONS
}


def fits(schema: dict[str, Any], value: object) -> bool:
    return bool(Draft202012Validator({**schema, "components": PROTOCOL["components"]}).is_valid(value))


@pytest.fixture(scope="module")
def control() -> Iterator[Path]:
    with short_folder() as folder, ControlServer(folder / "s", RecordingServer(), request_seconds=5.0):
        yield folder / "s"


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
@given(data=st.data())
def test_the_control_server_answers_as_described_and_takes_only_what_is_described(
    control: Path, path: str, method: str, data: st.DataObject
) -> None:
    operation = PROTOCOL["paths"][path][method]
    body = data.draw(BODIES[path, method])
    answer = ask(control, method.upper(), path, None if method == "get" else json.dumps(body).encode())
    described = operation["responses"].get(str(answer.status), operation["responses"]["default"])
    if "$ref" in described:
        described = PROTOCOL["components"]["responses"][described["$ref"].rpartition("/")[2]]
    assert answer.status < 500 or answer.status in (501, 503)
    assert fits(described["content"][answer.headers["content-type"]]["schema"], answer.json), answer
    if answer.status == 202:
        assert fits(operation["requestBody"]["content"]["application/json"]["schema"], body)


PIECES = st.sampled_from(
    [b"GET ", b"POST ", b"/v1/status", b"/v1/pause", b"/v1/resume", b"/v1/nope", b" HTTP/1.1", b"\r\n", b"\r\n\r\n",
     b"Content-Length: 9", b"Content-Length: -1", b"Transfer-Encoding: chunked", b'{"reason"', b'{"for_seconds":1e999}', b"\x00"]
)  # fmt: skip
ADMIN_BODIES = st.fixed_dictionaries({}, optional={"for_seconds": JUNK, "reason": JUNK}) | JUNK
fuzzed = settings(examples(0.3), suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.xdist_group("hostile")
@fuzzed
@given(
    raw=st.binary(max_size=200) | st.lists(PIECES, max_size=12).map(b"".join),
    path=st.sampled_from(["/v1/pause", "/v1/resume"]),
    body=ADMIN_BODIES,
)
async def test_nothing_at_the_admin_socket_ends_the_sidecar(
    running: Besieged, raw: bytes, path: str, body: object
) -> None:
    socket_path = load_config(running.daemon.process.log_path.parent / "c.yaml").admin_socket

    def attack() -> None:
        for answer in exchange(socket_path, raw):
            assert answer.status in (100, 200) or answer.is_problem
        answer = ask(socket_path, "POST", path, json.dumps(body).encode())
        assert answer.status == 200 or (answer.is_problem and answer.status in (400, 422))
        assert ask(socket_path, "POST", "/v1/resume", b"{}").status == 200

    await asyncio.to_thread(attack)
    running.assert_unharmed()


@contextmanager
def answering(path: Path, raw: bytes) -> Iterator[None]:
    """Be a sidecar that answers one question with these bytes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(raw)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


ANSWERS = st.sampled_from(
    [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 403 No\r\n", b"Content-Type: application/problem+json\r\n", b"Content-Length: 5\r\n",
     b"\r\n", b"{}", b'{"type":"t","title":"t","status":403,"detail":"\x1b[2J"}', b"[[[[", b"Transfer-Encoding: chunked\r\n", b"ff\r\n"]
)  # fmt: skip


@given(raw=st.binary(max_size=200) | st.lists(ANSWERS, max_size=8).map(b"".join))
def test_any_answer_to_an_operators_command_is_one_harmless_line(raw: bytes) -> None:
    with short_folder() as folder, answering(folder / "s", raw):
        client = AdminClient(folder / "s", timeout=30)
        with pytest.raises((SidecarUnreachable, SidecarRefused)) as refused:
            client.get("/v1/status", DaemonStatus)
        assert str(refused.value).isprintable()


def test_a_request_that_is_well_formed_is_still_taken(control: Path) -> None:
    (answer,) = exchange(control, request_bytes("GET", "/v1/status", headers="Connection: close\r\n"))
    assert answer.status == 200
