from __future__ import annotations

from benchmarks.footprint import BUDGET_PAGE, budget, over_budget

PAGE = """\
## Before
| daemon, resident memory (MB) | 1 |
## What it may cost

| what | budget |
|---|--:|
| daemon, resident memory (MB) | 120 |
| start to first snapshot (s) | 0.5 |

## After
| p2pd, resident memory (MB) | 1 |
"""


def test_the_budget_is_the_table_under_its_heading() -> None:
    assert budget(PAGE) == {"daemon, resident memory (MB)": 120.0, "start to first snapshot (s)": 0.5}


def test_what_is_over_the_budget_or_has_none_is_named() -> None:
    limits = budget(PAGE)
    assert over_budget({"daemon, resident memory (MB)": 120.0, "start to first snapshot (s)": 0.4}, limits) == []
    assert over_budget({"daemon, resident memory (MB)": 120.1, "start to first snapshot (s)": 0.4}, limits) == [
        "daemon, resident memory (MB): 120.1 is over the budget of 120"
    ]
    assert over_budget({"daemon, resident memory (MB)": 1.0, "sockets": 3.0}, limits) == [
        "start to first snapshot (s): not measured",
        "sockets: there is no budget for it",
    ]


def test_the_docs_hold_a_budget_for_all_that_is_measured() -> None:
    assert budget(BUDGET_PAGE.read_text()).keys() == {
        "daemon, resident memory (MB)",
        "p2pd, resident memory (MB)",
        "processor time to first snapshot (s)",
        "processor time an hour, all of it (s)",
        "start to first snapshot (s)",
        "installation (MB)",
        "installation without torch (MB)",
    }
