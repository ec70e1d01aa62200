"""The rules and the dashboard as files: Prometheus' own checks and tests of them, and that nothing is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.prometheus import dashboard
from tests.deploy.monitoring import (
    FOLDER,
    RULE_FILES,
    TEST_FILES,
    alerts,
    metric_names,
    recordings,
    rule_tests,
)
from tests.support.prometheus import promtool

DOCUMENT = Path(__file__).parents[2] / "docs" / "alerts.md"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES),
        ("check", "config", FOLDER / "prometheus.yaml"),
        ("test", "rules", *TEST_FILES),
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:2])),
)
def test_promtool_is_content(arguments: tuple[str | Path, ...]) -> None:
    result = promtool(*arguments)
    assert result.returncode == 0, (result.stdout + result.stderr).decode()


@pytest.mark.parametrize("name", alerts())
def test_every_alert_is_tested_firing_and_silent(name: str) -> None:
    cases = [case for group in rule_tests() for case in group.get("alert_rule_test", []) if case["alertname"] == name]
    assert {bool(case.get("exp_alerts")) for case in cases} == {True, False}


def test_everything_recorded_is_tested() -> None:
    cases = [case for group in rule_tests() for case in group.get("promql_expr_test", []) if case["exp_samples"]]
    assert {name for case in cases for name in metric_names(case["expr"])} == recordings()


@pytest.mark.parametrize("name", alerts())
def test_every_alert_says_what_is_the_matter_and_what_to_do(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"
    assert re.fullmatch(r".+: [a-z].+", rule["annotations"]["summary"])


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    headings = re.findall(r"^## (Swarmkeel\w+)$", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(alerts())


def test_the_dashboard_is_what_its_code_makes() -> None:
    assert dashboard.PATH.read_text() == dashboard.render(), "run deploy/prometheus/dashboard.py"
