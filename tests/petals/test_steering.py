"""What a steered server does at moments that no swarm brings about on demand, each a case of programs/steering_cases.py."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.petals.support import PETALS_PYTHON, PROGRAMS

CASES = (
    "a_stop_ends_the_wait_for_the_sidecars_choice",
    "a_stop_ends_a_drain",
    "a_server_that_is_about_to_end_refuses_to_restart",
    "a_pinned_server_refuses_to_restart",
    "a_server_that_loads_refuses_to_prefetch",
    "without_a_sidecar_petals_own_rule_decides",
    "blocks_that_are_loaded_before_any_are_shown_show_no_progress",
    "a_failure_before_any_move_ends_the_server_as_it_ends_petals",
    "a_failed_move_takes_its_announcements_back_and_is_shown",
    "what_fails_while_another_restart_waits_does_not_fail_that_one",
    "what_is_fetched_in_the_background_goes_on_while_the_same_is_waited_for",
    "a_start_that_is_not_waited_for_returns_at_once_and_one_given_up_kills_the_deaf",
    "petals_tries_for_ever_but_within_the_limit",
)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What failed of each case, or None; all of them in one process, since Petals takes long to import."""
    folder: Path = tmp_path_factory.mktemp("steering")
    command = [str(PETALS_PYTHON), "-W", "ignore", str(PROGRAMS / "steering_cases.py"), str(folder / "control.sock")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, str | None] = json.loads(run.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("case", CASES)
def test_at_moments_that_no_swarm_brings_about(failed: dict[str, str | None], case: str) -> None:
    assert failed[case] is None, failed[case]


def test_every_case_is_looked_at(failed: dict[str, str | None]) -> None:
    assert set(failed) == set(CASES)
