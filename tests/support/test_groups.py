"""Tests of one group stay together: each group shares one running swarm."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("together")
def test_pytest_keeps_the_tests_of_a_group_together(request: pytest.FixtureRequest) -> None:
    # The suffix is how the workers tell; only they write it. pytest 9.2 with pytest-xdist 3.8 loses it in silence.
    if getattr(request.config.option, "loadgroup", False):
        assert request.node.nodeid.endswith("@together")
