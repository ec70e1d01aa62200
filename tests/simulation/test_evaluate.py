"""The script that writes the tables of docs/policy.md."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from swarmkeel.simulation.compare import Job, compare, run_jobs
from swarmkeel.simulation.policies import parse_policy
from tests.simulation.swarms import SMALL, small_scenario

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "evaluate.py"


@pytest.fixture(scope="module")
def evaluate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


def test_every_part_is_of_a_scenario_and_size_that_ship(evaluate: ModuleType) -> None:
    parts = evaluate.parts()
    assert {part.purpose for part in parts} == {"sizes", "scenarios", "adoption", "hostile", "pareto"}
    for part in parts:
        for policy in part.policies:
            parse_policy(policy)


def test_tables_hold_the_runs_numbers_and_replace_the_former_ones(evaluate: ModuleType, tmp_path: Path) -> None:
    scenario = small_scenario(duration="20m", warm_up="10m")
    policies = tuple(map(parse_policy, ("petals", "coordinated", "none")))
    jobs = [Job(scenario, SMALL, seed, policies) for seed in (1, 2)]
    results = run_jobs(jobs, processes=1)
    document = compare("small", SMALL, results).to_json()
    groups = {name: [document] for name in ("sizes", "scenarios", "adoption", "hostile", "pareto")}
    text = evaluate.generated(groups)
    better = sum(row[1].ratio > row[0].ratio for row in results)
    assert f"| {better} of 2 |" in text
    assert "Seeds 1 to 2" in text
    page = tmp_path / "policy.md"
    page.write_text(f"# Mine\n\n{evaluate.BEGIN}\nold\n{evaluate.END}\n\nAfter.\n")
    evaluate.write_page(page, text)
    once = page.read_text()
    assert once.startswith("# Mine\n")
    assert once.endswith("After.\n")
    assert "old" not in once
    evaluate.write_page(page, text)
    assert page.read_text() == once
