"""`make test-bounds`: what it takes for a lower bound, and that a bound which names nothing real is found."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools.bounds import TESTS, direct_requirements, lower_bound, pins, untried_bounds

_ROOT: Final = Path(__file__).parents[2]


def test_every_dependency_has_one_lower_bound() -> None:
    requirements = direct_requirements(tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"])
    bounds: dict[str, Version] = {canonicalize_name(one.name): lower_bound(one) for one in requirements}
    assert {"hivemind", "numpy", "pydantic-settings", "scipy"} <= set(bounds)
    assert bounds["hivemind"] == Version("1.1.12")


@pytest.mark.parametrize("text", ["numpy", "numpy<2", "numpy>=1,>=2"])
def test_a_requirement_without_one_lower_bound_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must have one lower bound"):
        lower_bound(Requirement(text))


def test_a_bound_that_names_what_cannot_be_installed_is_found() -> None:
    resolved = pins("# by uv\nRich==13.8.0\npydantic_settings[yaml]==2.4.0\nnumpy==1.26.0\n")
    requirements = [Requirement(text) for text in ("rich>=13.7", "pydantic-settings[yaml]>=2.4", "numpy>=1.26")]
    assert untried_bounds(requirements, resolved) == [
        "pyproject.toml: rich>=13.7: the lowest that can be installed is 13.8.0; say >=13.8.0"
    ]


def test_the_tests_that_it_runs_are_there() -> None:
    assert [path for path in TESTS if not (_ROOT / path).exists()] == []
