"""The reference of the metrics, from what a daemon exports that has everything to export."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from prometheus_client.metrics_core import Metric

import swarmkeel.daemon.metrics
from tests.daemon.test_metrics import full_state, metrics_of  # a state in which no metric is left out

_INTRODUCTION: Final = """\
# Metrics

`/metrics` on `http.host` and `http.port`, as Prometheus text or OpenMetrics. What is copied from the swarm vanishes when it
vanishes there: a metric that cannot be told is absent, not 0. Units are in the names: seconds, RPS (requests a second),
ratios from 0 to 1. Times are seconds since the epoch.

The first to look at: `swarmkeel_swarm_uncovered_blocks`, `swarmkeel_swarm_balance_ratio`, `swarmkeel_verdict`,
`swarmkeel_move_failures_total`, `swarmkeel_up` and `swarmkeel_server_up`.

This page is made from the code by `make docs-generate`.

| metric | type | labels | meaning |
|---|---|---|---|
"""

_OPEN_LABELS: Final = ("block", "model", "policy", "python", "version")
_REJECTED: Final = "swarmkeel_records_rejected"
"""Its reasons are those of whoever checks records."""

_SUFFIXES: Final = {"counter": "_total", "info": "_info"}


def metrics_page() -> str:
    """Write the page: one table of all metrics."""
    metrics = metrics_of(full_state())
    metrics.count_rejections({"shape": 1})  # shows its label only when something is counted
    rows = []
    for family in sorted(metrics.registry.collect(), key=lambda family: family.name):
        name = family.name + _SUFFIXES.get(family.type, "")
        labels = "; ".join(_labels(family)) or "none"
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    _check_complete(rows)
    return _INTRODUCTION + "\n".join(rows) + "\n"


def _labels(family: Metric) -> list[str]:
    """Name the labels, each with its values where these are always the same."""
    if not family.samples:
        raise ValueError(f"{family.name} has no sample: fill it before the page is written")
    values: dict[str, list[str]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            if label != "le" and value not in values.setdefault(label, []):
                values[label].append(value)
    return [
        f"`{label}`" if family.name == _REJECTED or label in _OPEN_LABELS else f"`{label}`: {', '.join(known)}"
        for label, known in sorted(values.items())
    ]


def _check_complete(rows: list[str]) -> None:
    """See that no metric of the code is missing because the state has nothing for it."""
    code = Path(swarmkeel.daemon.metrics.__file__).read_text()
    named = re.findall(r'(?:_gauge|counter)\(\s*"(\w+)"|"swarmkeel_(\w+)"', code)
    shown = "\n".join(rows)
    missing = [name for pair in named for name in pair if name and f"`swarmkeel_{name}" not in shown]
    if missing:
        raise ValueError(f"the state of the tests leaves metrics out: {', '.join(missing)}")
