"""Small worlds that tests simulate in a second or so."""

from __future__ import annotations

from typing import Any

from swarmkeel.simulation.policies import parse_policy
from swarmkeel.simulation.population import draw_population
from swarmkeel.simulation.scenario import Scenario, Size
from swarmkeel.simulation.world import World

SMALL = Size(20, 6)


def small_scenario(**changes: Any) -> Scenario:
    values: dict[str, Any] = {
        "name": "small",
        "sizes": ["20/6"],
        "duration": "150m",
        "warm_up": "30m",
        "churn": {"mean_life": "2h"},
        "population": {"coverage": 2.5},
        "failures": [{"at": "1h", "share": 0.3}],
    }
    return Scenario.model_validate(values | changes)


def small_world(policy: str, *, seed: int = 1, size: Size = SMALL, **changes: Any) -> World:
    scenario = small_scenario(**changes)
    return World(scenario, draw_population(scenario, size, seed), parse_policy(policy), seed)
