"""`make mutation`: how it knows a mutant again, and what it complains about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tools import mutation
from tools.mutation import (
    TESTS,
    Measured,
    Mutant,
    complaints,
    digest,
    measure_survivors,
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


def test_only_what_survived_is_tried_again_where_tests_were_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests").mkdir()
    monkeypatch.setattr(mutation, "WORK", tmp_path)
    monkeypatch.setattr(mutation, "ROOT", tmp_path)
    copy = tmp_path / "daemon-move"
    with pytest.raises(SystemExit, match="not measured here"):
        measure_survivors("daemon/move")
    source = copy / "src/swarmkeel/daemon/move.py"
    source.parent.mkdir(parents=True)
    shutil.copy(_ROOT / "src/swarmkeel/daemon/move.py", source)
    (copy / "ends.json").write_text(json.dumps({"a": "survived", "b": "killed", "c": "survived", "d": "timed_out"}))

    def run_tests(_: Path, module: str, names: Sequence[str]) -> dict[str, str]:
        assert (module, names) == ("daemon/move", ["a", "c"])
        return {"a": "killed", "c": "killed"}

    monkeypatch.setattr(mutation, "_run_tests", run_tests)
    found = measure_survivors("daemon/move")
    assert found == Measured(digest("daemon/move"), mutants=4, killed=3, timed_out=1, survivors=())
    assert "survived" not in (copy / "ends.json").read_text()

    source.write_text("# it was another one then\n")
    with pytest.raises(SystemExit, match="not measured here"):
        measure_survivors("daemon/move")
