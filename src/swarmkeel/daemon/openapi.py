"""The description of `/api/v1/`, made from the models that the answers are made from."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import yaml
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from swarmkeel.control.protocol import PROBLEM_CONTENT_TYPE
from swarmkeel.daemon.queries import ChecksQuery, MovesQuery, Query, TimelineQuery
from swarmkeel.daemon.status import Checks, DaemonStatus, Moves, SwarmStatus, Timeline

_SCHEMAS: Final = "#/components/schemas/"
_PROBLEM: Final = {
    "type": "object",
    "description": "An error as RFC 9457 writes it.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong with this request and what would be right."},
    },
    "required": ["type", "title", "status", "detail"],
}
_PATHS: Final[tuple[tuple[str, str, type[BaseModel], type[Query] | None], ...]] = (
    ("status", "What the sidecar knows and does: verdict, guards, claims, moves, the own server.", DaemonStatus, None),
    ("swarm", "Every server and every block of the newest snapshot; 503 until the first.", SwarmStatus, None),
    ("moves", "The last moves of the own server, the newest first.", Moves, MovesQuery),
    ("checks", "The last checks of the balance, the newest first.", Checks, ChecksQuery),
    ("timeline", "Bottleneck, bound and holes over time since the sidecar was started.", Timeline, TimelineQuery),
)


def openapi(version: str) -> dict[str, Any]:
    """Describe the API as OpenAPI 3.1.

    Args:
        version: Version of Swarmkeel.
    """
    models = [(model, "serialization") for _, _, model, _ in _PATHS]
    _, definitions = models_json_schema(models, ref_template=f"{_SCHEMAS}{{model}}")  # type: ignore[arg-type]  # a literal
    paths: dict[str, Any] = {f"/api/v1/{name}": _path(name, text, model, query) for name, text, model, query in _PATHS}
    paths["/api/v1/events"] = {
        "get": {
            "operationId": "events",
            "summary": "The status now, and again after every change, as server-sent events.",
            "description": "Events are named status, and their data is what /api/v1/status answers; or, while nothing "
            "changes, alive.",
            "responses": {
                "200": {"description": "A stream of events.", "content": {"text/event-stream": {}}},
                "503": _problem("Too many follow the events already."),
            },
        }
    }
    paths["/api/v1/openapi.json"] = {
        "get": {
            "operationId": "openapi",
            "summary": "This description.",
            "responses": {"200": {"description": "OpenAPI 3.1.", "content": {"application/json": {}}}},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Swarmkeel",
            "version": version,
            "description": "What one sidecar tells; read only. Times are seconds since the epoch, durations seconds, "
            "throughputs requests a second. Names and other texts of the swarm come from its servers: hostile text.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "http://127.0.0.1:9476"}],
        "paths": paths,
        "components": {"schemas": {**definitions["$defs"], "Problem": _PROBLEM}},
    }


def openapi_json(version: str) -> str:
    """Give the description as JSON."""
    return json.dumps(openapi(version), indent=1)


def openapi_yaml() -> str:
    """Give the description as the file `docs/api.yaml`: that of no version, which would make it differ at each release."""
    text = yaml.safe_dump(openapi("1"), sort_keys=False, width=100, allow_unicode=True)
    return f"# Made from the code: python -m swarmkeel.daemon.openapi > docs/api.yaml\n{text}"


def _path(name: str, text: str, model: type[BaseModel], query: type[Query] | None) -> dict[str, Any]:
    answers = {
        "200": {
            "description": (model.__doc__ or "").strip().splitlines()[0],
            "content": {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{model.__name__}"}}},
        },
        "503": _problem("What is asked for is not known, or the journal cannot be read."),
    }
    operation: dict[str, Any] = {"operationId": name, "summary": text, "responses": answers}
    if query is not None:
        answers["400"] = _problem("The query is wrong.")
        operation["parameters"] = _parameters(query)
    return {"get": operation}


def _parameters(query: type[Query]) -> list[dict[str, Any]]:
    schema = query.model_json_schema()
    definitions = schema.get("$defs", {})
    parameters = []
    for name, field in schema["properties"].items():
        description = field.pop("description")
        options = [option for option in field.pop("anyOf", ()) if option.get("type") != "null"]
        known = field | (options[0] if options else {})
        if "$ref" in known:
            known = known | definitions[known.pop("$ref").rpartition("/")[2]]
        if known.get("default", ...) is None:
            del known["default"]
        parameters.append({"name": name, "in": "query", "description": description, "schema": known})
    return parameters


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": f"{_SCHEMAS}Problem"}
    return {"description": text, "content": {PROBLEM_CONTENT_TYPE: {"schema": schema}}}


if __name__ == "__main__":
    sys.stdout.write(openapi_yaml())
