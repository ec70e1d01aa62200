"""`make mutation`: how it knows a mutant again, and what it complains about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tools.mutation import (
    TESTS,
    Measured,
    Mutant,
    complaints,
    digest,
    modules,
    mutant_of,
    read_explained,
    read_measured,
    results,
    with_results,
)

_ROOT: Final = Path(__file__).parents[2]
_DIFF: Final = """--- src/swarmkeel/daemon/move.py
+++ src/swarmkeel/daemon/move.py
@@ -1,4 +1,4 @@
 def by_the_clock(move: Move, now: float) -> float:
     # A clock that was set back must not make a deadline unreachable.
-    return abs(now - move.step_since)
+    return abs(now + move.step_since)"""
ALIVE: Final = Mutant(
    "daemon/move", "by_the_clock", "return abs(now - move.step_since)", "return abs(now + move.step_since)"
)
FOUND: Final = Measured(source="", mutants=10, killed=7, timed_out=1, survivors=(ALIVE,))


def test_a_mutant_is_known_by_what_it_changes() -> None:
    assert mutant_of("daemon/move", "swarmkeel.daemon.move.x_by_the_clock__mutmut_1", _DIFF) == ALIVE
    method = mutant_of("daemon/move", "swarmkeel.daemon.move.xǁMoveǁend__mutmut_12", "-a\n+b\n+  c")
    assert method == Mutant("daemon/move", "Move.end", "a", "b\nc")
    with pytest.raises(ValueError, match="in a new way"):
        mutant_of("daemon/move", "swarmkeel.daemon.move.end", _DIFF)


def test_what_is_not_explained_or_explained_for_nothing_is_complained_about() -> None:
    measured = {"daemon/move": FOUND}
    other = replace(ALIVE, after="return 0")
    assert complaints(measured, {ALIVE: "both are the same"}) == []
    assert [line.partition(":")[0] for line in complaints(measured, {other: "why"})] == [
        "no test notices, and nobody explains",
        "explained, but does not survive",
    ]
    assert [line.partition(":")[0] for line in complaints(measured, {ALIVE: " "})] == ["explained by nothing"]


def test_the_page_tells_what_was_not_measured_and_what_has_changed_since() -> None:
    page = results({"daemon/move": FOUND}, {ALIVE: "Both are the same."})
    assert "| `daemon/move` | 10 | 7 | 1 | 2 | 80.0%, before its last change |" in page
    assert page.count("not measured") == len(modules()) - 1
    assert "+ return abs(now + move.step_since)\n```\n\nBoth are the same." in page
    now = results({"daemon/move": replace(FOUND, source=digest("daemon/move"))}, {})
    assert "| 80.0% |" in now
    assert "**Not explained.**" in now
    assert with_results(with_results((_ROOT / "docs/mutation.md").read_text(), "old"), "new").count("old") == 0


def test_every_survivor_is_explained() -> None:
    assert complaints(read_measured(), read_explained()) == [], "explain them in tests/mutation/explained.toml"
    assert set(read_measured()) <= set(TESTS)


def test_the_tests_that_measure_are_there() -> None:
    assert {module for module in TESTS if module not in modules()} == set()
    named = [path.removeprefix("--deselect=").partition("::") for paths in TESTS.values() for path in paths]
    assert [path for path, _, _ in named if not (_ROOT / path).is_file()] == []
    assert [name for path, _, name in named if f"def {name}" not in (_ROOT / path).read_text()] == []
