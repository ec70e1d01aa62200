"""What `deploy/prometheus` holds, read for tests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "prometheus"
RULE_FILES: Final = tuple(sorted((FOLDER / "rules").glob("*.yaml")))
TEST_FILES: Final = tuple(sorted((FOLDER / "tests").glob("*.yaml")))


@cache
def rules() -> list[dict[str, Any]]:
    """Give every rule, as it is written."""
    groups = (group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"])
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Give the alerts by their names."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recordings() -> set[str]:
    """Give the names of what is recorded."""
    return {rule["record"] for rule in rules() if "record" in rule}


@cache
def rule_tests() -> list[dict[str, Any]]:
    """Give every group of tests, as it is written."""
    return [group for path in TEST_FILES for group in yaml.safe_load(path.read_text())["tests"]]


def dashboard() -> dict[str, Any]:
    """Give the dashboard that is shipped."""
    content: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
    return content


def dashboard_queries(model: str) -> dict[str, str]:
    """Give what Grafana asks of Prometheus, by where it stands, with a model and all sidecars chosen."""
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    }
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
            assert asked is not None, variable["query"]
            found[f"variable {variable['name']}"] = f"count by ({asked[2]}) ({asked[1]})"
    values = {"$model": model, "$job": ".*", "$instance": ".*", "$__rate_interval": "1m"}
    for place, expression in found.items():
        for name, value in values.items():
            expression = expression.replace(name, value)  # noqa: PLW2901 - one after the other
        assert "$_" not in expression, (place, expression)
        found[place] = expression
    return found


def metric_names(expression: str) -> Iterator[str]:
    """Find the metrics of Swarmkeel, and what is recorded of them, that an expression names."""
    without_strings = re.sub(r'"[^"]*"', '""', expression)
    yield from (name for name in re.findall(r"[a-zA-Z_:][\w:]*", without_strings) if "swarmkeel_" in name)
