from __future__ import annotations

from pathlib import Path

import pytest

from swarmkeel.errors import UsageError
from swarmkeel.simulation.policies import parse_policy, with_adoptions
from swarmkeel.simulation.population import draw_population
from swarmkeel.simulation.scenario import ScenarioError, Size, load_scenario, named_scenarios, parse_size

_EXPECTED = {
    "steady-churn",
    "mass-failure",
    "thin-coverage",
    "flash-crowd",
    "well-covered",
    "mixed",
    "hostile",
    "slow-loads",
    "recorded",
    "growth",
    "lossy-dht",
    "flexible",
}


def test_every_scenario_that_ships_can_be_read_and_drawn() -> None:
    assert set(named_scenarios()) == _EXPECTED
    for name in named_scenarios():
        scenario = load_scenario(name)
        assert scenario.name == name
        assert scenario.about.endswith((".", "?"))
        for size in scenario.sizes:
            population = draw_population(scenario, size, 1)
            assert population.total_blocks == size.blocks
            assert population.fates


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("name: x\nsizes: [80]\n", "sizes.0", "80/30"),
        ("name: x\nchurn: {mean_life: soon}\n", "churn.mean_life", "duration"),
        ("name: x\nchurn: {crash_share: 1.5}\n", "churn.crash_share", "less than or equal to 1"),
        ("name: x\ndht: {colour: red}\n", "dht.colour", "unknown key"),
        ("name: x\nname: y\n", "line 2", "stands on line 1 already"),
        ("name: x\nloads: {cold_seconds: {low: 10, high: 5}}\n", "loads.cold_seconds", "at least low"),
        ("- x\n", "(whole file)", "must be a mapping"),
        ("name: [\n", "line 2", "not YAML"),
        ("about: nobody\n", "name", "Field required"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str, place: str, what: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as raised:
        load_scenario(str(path))
    message = str(raised.value)
    assert place in message
    assert what in message
    assert "\n" not in message
    assert str(path) in message


def test_an_unknown_scenario_is_answered_with_those_there_are() -> None:
    with pytest.raises(ScenarioError, match="steady-churn"):
        load_scenario("stead-churn")


def test_a_snapshot_is_looked_for_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("name: one\nrecorded: {snapshot: swarm.json}\n")
    recorded = load_scenario(str(tmp_path / "one.yaml")).recorded
    assert recorded is not None
    assert recorded.snapshot == tmp_path / "swarm.json"


@pytest.mark.parametrize("text", ["80", "80/", "/30", "0/3", "80/30/1", "a/b", "80 / 30"])
def test_sizes_are_blocks_and_servers(text: str) -> None:
    with pytest.raises(ValueError, match="80/30"):
        parse_size(text)
    assert parse_size("80/30") == Size(80, 30)


def test_policies_are_named_with_adoption_and_move_cost() -> None:
    spec = parse_policy("coordinated@25:0.1")
    assert (spec.kind, spec.adoption, spec.move_cost) == ("coordinated", 0.25, 0.1)
    for text in ("coordinatd", "coordinated@101", "petals@50", "none:0.1", "coordinated@", ""):
        with pytest.raises(UsageError):
            parse_policy(text)
    spread = with_adoptions((parse_policy("petals"), parse_policy("coordinated:0.1")), (0.0, 0.5))
    assert [each.name for each in spread] == ["petals", "coordinated@0:0.1", "coordinated@50:0.1"]
