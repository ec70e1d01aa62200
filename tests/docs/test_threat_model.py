"""What the threat model and the security policy rest on is there: every test and file that they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

_ROOT: Final = Path(__file__).parents[2]
_PAGES: Final = ("docs/threat-model.md", "SECURITY.md")
_NAMED: Final = re.compile(r"`((?:src|tests|tools|deploy)/[\w./-]+)(?:::(\w+))?`")


def _missing(text: str) -> list[str]:
    missing = []
    for path, name in _NAMED.findall(text):
        file = _ROOT / path
        if not file.exists() or (name and not re.search(rf"^(?:async )?def {name}\(", file.read_text(), re.MULTILINE)):
            missing.append(f"{path}::{name}" if name else path)
    return missing


@pytest.mark.parametrize("page", _PAGES)
def test_every_test_that_is_named_is_there(page: str) -> None:
    assert _missing((_ROOT / page).read_text()) == []


def test_the_threat_model_names_many_tests() -> None:
    assert len(_NAMED.findall((_ROOT / "docs/threat-model.md").read_text())) > 30


def test_the_check_finds_what_is_not_there() -> None:
    here = "tests/docs/test_threat_model.py"
    assert _missing(f"`{here}::test_that_nobody_wrote`, `tests/nowhere.py`, `{here}::_missing`") == [
        f"{here}::test_that_nobody_wrote",
        "tests/nowhere.py",
    ]
