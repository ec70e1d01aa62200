"""The figures of long runs in docs/reliability.md come from their reports, and only from those that passed."""

from __future__ import annotations

from typing import Any

import pytest

from tools.long_runs import chaos_section, soak_section, with_section
from tools.reliability import PAGE

COURSE: dict[str, Any] = {
    "measure": "journal",
    "unit": "MB",
    "quarters": [1.0, 4.04, 4.0, 4.1],
    "largest": 5.55,
    "per_thousand_checks": 0.012,
    "allowed": 5.4,
    "bounded": True,
}
SOAK: dict[str, Any] = {
    "checks": 10_004,
    "sidecars": 4,
    "seconds": 3000,
    "moves": 321,
    "failures": {"crash": 3, "leave": 4},
    "broken": None,
    "courses": [COURSE, {**COURSE, "measure": "threads", "unit": ""}],
}
CHAOS: dict[str, Any] = {
    "seed": 7,
    "faults": {"DHT outage": 2, "disk full": 1},
    "checks": 1234,
    "judgement": {"moves": {"a": 3, "b": 5}, "fallbacks": 1, "uncoverings": [{}]},
    "end": {"seconds": 31.4, "share": 0.97},
    "before": {"rss_mb": 95.0},
    "after": {"rss_mb": 96.6},
    "leftovers": {"processes": 0, "files": []},
    "violations": [],
    "uncovered_because": {"there were false records": 1},
}


def test_a_soak_becomes_a_sentence_and_a_table() -> None:
    text = soak_section(SOAK)
    assert text.startswith("10,004 checks by 4 sidecars in 50 minutes, with 321 moves and 7 failures;")
    assert "| journal, MB | 1.0 | 4.0 | 4.0 | 4.1 | 5.5 | +0.01 | 5.4 |" in text.split("\n")
    assert "| threads | 1.0 |" in text


def test_a_soak_in_which_something_grew_is_not_published() -> None:
    with pytest.raises(ValueError, match="growing: journal"):
        soak_section({**SOAK, "courses": [{**COURSE, "bounded": False}]})


def test_a_soak_that_was_cut_short_says_so() -> None:
    assert soak_section({**SOAK, "broken": "7 checks are too few"}).startswith(
        "**This soak was cut short: 7 checks are"
    )


def test_chaos_runs_become_rows_in_the_order_of_their_seeds() -> None:
    text = chaos_section([CHAOS, {**CHAOS, "seed": 2}]).split("\n")
    assert text[2].startswith("| 2 | 3 | 1,234 | 8 (5) | 1 | 1 | 31 s | 97% | 95, 97 MB | 0 processes, 0 files | 0 |")
    assert text[3].startswith("| 7 |")
    assert text[5] == "Faults of 2 kinds: DHT outage; disk full."
    assert text[-1] == "- 2: there were false records"


def test_only_what_is_between_the_marks_is_written_anew() -> None:
    page = "a\n<!-- soak: written by tools/long_runs.py -->\nold\n<!-- the end of soak -->\nb"
    assert with_section(page, "soak", "new").split("\n\n") == [
        "a\n<!-- soak: written by tools/long_runs.py -->",
        "new",
        "<!-- the end of soak -->\nb",
    ]
    with pytest.raises(ValueError, match="no place for chaos"):
        with_section(page, "chaos", "new")
    for name in ("soak", "chaos"):
        assert with_section(PAGE.read_text(), name, "new") != PAGE.read_text()
