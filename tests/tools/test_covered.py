"""`make coverage`: what was measured becomes the table, and too little of it an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools import covered
from tools.reliability import with_part


def report(daemon_branches: int = 96) -> dict[str, Any]:
    def measured(lines: int, branches: int) -> dict[str, Any]:
        summary = {"num_statements": 100, "covered_lines": lines, "num_branches": 100, "covered_branches": branches}
        return {"summary": summary}

    return {
        "meta": {"branch_coverage": True},
        "files": {
            "src/swarmkeel/balance/a.py": measured(100, 100),
            "src/swarmkeel/balance/b.py": measured(95, 97),
            "src/swarmkeel/control/c.py": measured(96, 95),
            "src/swarmkeel/control/petals_p.py": measured(98, 96),
            "src/swarmkeel/daemon/d.py": measured(99, daemon_branches),
            "src/swarmkeel/cli.py": measured(0, 0),
        },
    }


@pytest.mark.parametrize(("daemon_branches", "code"), [(96, 0), (94, 1)])
def test_the_figures_are_written_and_too_little_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    daemon_branches: int,
    code: int,
) -> None:
    page, measured = tmp_path / "page.md", tmp_path / "report.json"
    page.write_text(f"before\n{covered.BEGIN}\nold\n{covered.END}\nafter\n")
    measured.write_text(json.dumps(report(daemon_branches)))
    monkeypatch.setattr(covered, "PAGE", page)
    monkeypatch.setattr("sys.argv", ["covered", str(measured)])
    assert covered.main() == code
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| `balance/` | 200 | 195 | 97.5% | 200 | 197 | 98.5% |" in text.split("\n")
    assert "| `control/`, without the adapter | 100 | 96 | 96.0% | 100 | 95 | 95.0% |" in text
    assert "the adapter inside Petals | 100 | 98 |" in text
    assert capsys.readouterr().err == ("`daemon/` is below 95%: 94.0%\n" if code else "")


def test_a_report_that_leaves_something_out_is_no_report() -> None:
    without_branches = report() | {"meta": {"branch_coverage": False}}
    with pytest.raises(ValueError, match="without branches"):
        covered.parts(without_branches)
    incomplete = report()
    del incomplete["files"]["src/swarmkeel/daemon/d.py"]
    with pytest.raises(ValueError, match="no file of daemon/"):
        covered.parts(incomplete)
    without_petals = report()
    del without_petals["files"]["src/swarmkeel/control/petals_p.py"]
    with pytest.raises(ValueError, match="no file of control/petals_"):
        covered.parts(without_petals)
    assert len(covered.parts(without_petals, without_petals=True)) == len(covered.PARTS) - 1
    with pytest.raises(ValueError, match="no part from"):
        with_part("a page", "a table", covered.BEGIN, covered.END)
