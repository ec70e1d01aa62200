"""The OpenAPI file of the control protocol against the real control server and the project's own readers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from swarmkeel.control.protocol import (
    PrefetchPhase,
    PrefetchRequest,
    PrefetchStatus,
    RestartPhase,
    RestartRequest,
    RestartStatus,
    ServerPhase,
    ServerStatus,
)
from swarmkeel.control.server import ControlServer
from swarmkeel.swarm.span import Span
from tests.control.recording import IDLE, ONLINE, Answer, RecordingServer, ask, restart_body
from tests.support.sidecars import short_folder

_DOCUMENT: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "docs" / "protocol-openapi.yaml").read_text())
_REGISTRY: Registry[Any] = Registry().with_resource("urn:protocol", DRAFT202012.create_resource(_DOCUMENT))
_FULL = replace(
    ONLINE,
    sessions=3,
    restart=RestartStatus("r", Span(0, 18), RestartPhase.FAILED, 0.5, "no memory"),
    min_blocks=4,
    max_blocks=20,
    compute_rps=90.0,
    network_rps=100.0,
    prefetch=PrefetchStatus("p", Span(3, 4), PrefetchPhase.DONE),
)


def _follow(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    found: Any = _DOCUMENT
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    assert isinstance(found, dict)
    return found


def _fits(name: str, value: object) -> bool:
    schema = {"$ref": f"urn:protocol#/components/schemas/{name}"}
    return bool(Draft202012Validator(schema, registry=_REGISTRY).is_valid(value))


def _check(method: str, path: str, answer: Answer) -> None:
    """Hold an answer against what the file says of this request."""
    responses = _DOCUMENT["paths"][path][method.lower()]["responses"]
    content = _follow(responses.get(str(answer.status), responses["default"]))["content"]
    schema = content[answer.headers["content-type"]]["schema"]
    assert _fits(schema["$ref"].rpartition("/")[2], answer.json), answer


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    with short_folder() as folder, ControlServer(folder / "server.sock", RecordingServer(_FULL)):
        yield folder / "server.sock"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/status", None, 200),
        ("POST", "/v1/restart", restart_body("new"), 202),
        ("POST", "/v1/restart", restart_body("wrong", if_span={"start": 7, "end": 25}), 409),
        ("POST", "/v1/restart", restart_body("outside", span={"start": 70, "end": 88}), 422),
        ("POST", "/v1/restart", b"{", 400),
        ("POST", "/v1/prefetch", {"id": "p2", "span": {"start": 0, "end": 18}}, 202),
        ("POST", "/v1/prefetch", {"id": "p2"}, 422),
    ],
)
def test_real_answers_are_as_the_file_says(socket: Path, method: str, path: str, body: object, status: int) -> None:
    answer = ask(socket, method, path, body)
    assert answer.status == status
    assert str(status) in _DOCUMENT["paths"][path][method.lower()]["responses"] or answer.is_problem
    _check(method, path, answer)


def test_a_server_that_cannot_fetch_refuses_as_the_file_says() -> None:
    with short_folder() as folder, ControlServer(folder / "s", RecordingServer(replace(IDLE, capabilities=()))):
        answer = ask(folder / "s", "POST", "/v1/prefetch", {"id": "p", "span": {"start": 0, "end": 18}})
    assert answer.status == 501
    _check("POST", "/v1/prefetch", answer)


def test_the_file_names_what_the_server_answers_and_every_field_and_word(socket: Path) -> None:
    for path, methods in _DOCUMENT["paths"].items():
        allowed = set(ask(socket, "PUT", path).headers["allow"].lower().split(", "))
        assert allowed - {"head"} == set(methods)
    schemas = _DOCUMENT["components"]["schemas"]
    assert set(schemas["Status"]["properties"]) == set(_FULL.to_json())
    for name, value in (
        ("Restart", _FULL.restart),
        ("Prefetch", _FULL.prefetch),
        ("RestartRequest", RestartRequest("r", Span(0, 1), None, "why")),
        ("PrefetchRequest", PrefetchRequest("p", Span(0, 1))),
    ):
        assert value is not None
        assert set(schemas[name]["properties"]) == set(value.to_json())
        assert _fits(name, value.to_json())
    for words, schema in (
        (ServerPhase, schemas["Status"]["properties"]["state"]),
        (RestartPhase, schemas["Restart"]["properties"]["phase"]),
        (PrefetchPhase, schemas["Prefetch"]["properties"]["phase"]),
    ):
        assert schema["enum"] == [str(word) for word in words]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"peer_id": None, "span": None, "restart": None},
        {"unknown": 1},
        {"protocol": 2},
        {"throughput": -1},
        {"throughput": "41"},
        {"state": "asleep"},
        {"span": {"start": -1, "end": 3}},
        {"span": {"start": 0}},
        {"sessions": 1.5},
        {"capabilities": [""]},
        {"dht_prefix": "x" * 257},
        {"implementation": None},
        {"total_blocks": 0},
        {"restart": {"id": "r", "span": {"start": 0, "end": 1}, "phase": "online", "progress": 2}},
        {"prefetch": {"id": "p", "span": {"start": 0, "end": 1}}},
    ],
)
def test_the_file_and_the_readers_agree_on_what_a_status_is(change: dict[str, object]) -> None:
    document = _FULL.to_json() | change
    try:
        ServerStatus.from_json(document)
    except ValueError:
        assert not _fits("Status", document)
    else:
        assert _fits("Status", document)
