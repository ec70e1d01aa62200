"""Every fault has a test that injects it, and a row in the table of docs/reliability.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.ledger import FAULTS, FOLDER_VARIABLE, Finding, findings, note
from tools.reliability import BEGIN, END, PAGE, table, with_part

ROOT = Path(__file__).parents[2]


def named_in_tests() -> set[str]:
    sources = [*(ROOT / "tests" / "faults").glob("test_*.py"), ROOT / "tests" / "daemon" / "test_move_machine.py"]
    texts = [source.read_text() for source in sources]
    return {name for text in texts for name in re.findall(r'(?:mark\.fault\(|SEARCH: Final = )"([^"]+)"', text)}


def test_every_fault_is_injected_by_a_test_and_every_test_injects_a_known_one() -> None:
    assert named_in_tests() == set(FAULTS)


def test_every_fault_has_its_row() -> None:
    page = PAGE.read_text()
    written = page.partition(BEGIN)[2].partition(END)[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in written.split("\n") if line.startswith("| ")]
    assert {row[0]: row[2] for row in cells[1:]} == FAULTS, "make reliability"
    assert all(int(row[1].replace(",", "")) > 0 and row[3] for row in cells[1:])


def test_what_was_found_becomes_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for fault in FAULTS:
        note(Finding(fault, 600, "`done`", moves=1))
        note(Finding(fault, 600, "`done`", moves=1, restarts=1))
    written = table(findings(tmp_path))
    assert f"| DHT outage | 1,200 | {FAULTS['DHT outage']} | `done` | 2 | 1 |" in written.split("\n")
    note(Finding("DHT outage", 1, "`failed`"))
    assert "| `done` (2 of 3); `failed` (1 of 3) |" in table(findings(tmp_path))
    assert with_part(f"a {BEGIN} old {END} b", written, BEGIN, END) == f"a {BEGIN}\n\n{written}\n\n{END} b"
    with pytest.raises(ValueError, match="nobody has injected: bootstrap"):
        table([Finding("any sequence of events", 1, "x"), Finding("DHT outage", 1, "x")])


def test_nothing_is_written_down_where_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    note(Finding("DHT outage", 1, "x"))
    assert list(tmp_path.iterdir()) == []
