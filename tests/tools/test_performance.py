"""docs/performance.md is made of what benchmarks leave, and of nothing that has another form."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.result_file import Part, Picture, Result, Table, Text, machine, read_result, three_digits, write_result
from tools import performance
from tools.performance import performance_page, take_over


def result(name: str = "footprint", order: int = 40, *parts: Part) -> Result:
    return Result(name, name.title(), order, f"make bench-{name}", machine(()), parts)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    fresh, kept, pictures = (tmp_path / name for name in ("fresh", "kept", "pictures"))
    for folder in (fresh, kept, pictures):
        folder.mkdir()
    monkeypatch.setattr(performance, "PICTURES", pictures)
    return fresh, kept, pictures


def test_results_become_sections_in_their_order(folders: tuple[Path, Path, Path]) -> None:
    fresh, kept, pictures = folders
    parts = (
        Text("What it costs."),
        Table(("process", "MB"), [("a|b", "120")]),
        Picture("footprint-memory.svg", "Level."),
    )
    (fresh / "footprint-memory.svg").write_text("<svg/>")
    write_result(result("footprint", 40, *parts), fresh)
    write_result(result("decision", 10, Text("Fast.")), fresh)
    assert take_over(fresh, kept, pictures) == ["decision", "footprint"]
    page = performance_page(kept)
    assert page.index("## Decision") < page.index("Fast.") < page.index("## Footprint") < page.index("What it costs.")
    assert "| process | MB |\n|---|--:|\n| a&#124;b | 120 |\n" in page
    assert "![Level.](images/footprint-memory.svg)" in page
    assert "Measured by `make bench-decision` on: processor " in page


def test_pictures_that_a_result_no_longer_has_go(folders: tuple[Path, Path, Path]) -> None:
    fresh, kept, pictures = folders
    for name in ("scale-old.svg", "scale-new.svg"):
        for old in fresh.glob("*"):
            old.unlink()
        (fresh / name).write_text("<svg/>")
        write_result(result("scale", 50, Picture(name, "Grows.")), fresh)
        take_over(fresh, kept, pictures)
    assert [path.name for path in pictures.iterdir()] == ["scale-new.svg"]


def test_result_whose_picture_is_missing_is_refused(folders: tuple[Path, Path, Path]) -> None:
    fresh, kept, pictures = folders
    write_result(result("scale", 50, Picture("scale-new.svg", "Grows.")), fresh)
    with pytest.raises(ValueError, match=r"its picture scale-new\.svg does not lie beside it"):
        take_over(fresh, kept, pictures)
    assert list(kept.iterdir()) == []


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    for text in (
        "[]",
        "{",
        '{"title": "Scale"}',
        '{"title": "S", "order": 1, "command": "c", "machine": [], "parts": []}',
    ):
        path = tmp_path / "scale.json"
        path.write_text(text)
        with pytest.raises(ValueError, match=r"scale\.json: not a result"):
            read_result(path)
    with pytest.raises(ValueError, match="a row has 2 cells of text"):
        Table(("process", "MB"), [("sidecar",)])
    with pytest.raises(ValueError, match="named footprint-SOMETHING"):
        result("footprint", 40, Picture("memory.svg", "Level."))
    with pytest.raises(ValueError, match="lower case with hyphens"):
        result("Foot print")


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = result("scale", 50, Text("Grows."), Table(("a", "b"), [["1", "2"]]), Picture("scale-a.png", "Grows."))
    assert (
        write_result(read_result(write_result(written, tmp_path)), tmp_path / "again").read_text()
        == (tmp_path / "scale.json").read_text()
    )


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (1.5, "1.50"), (391.6, "392"), (12345.6, "12,346"), (0, "0")]
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert three_digits(value) == text
