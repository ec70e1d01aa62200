"""Hostile text becomes one harmless line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ümläut 漢字", "plain ümläut 漢字"),
        ("a\x1b[31mb\nc\rd\te", "a?[31mb?c?d?e"),
        ("\u202eevil\u200b\u2028", "?evil??"),
        ("z\u0300\u0301", "z??"),
        ("\ud800", "?"),
    ],
)
def test_control_invisible_and_piling_characters_are_replaced(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_is_cut_with_an_ellipsis() -> None:
    assert printable("abcdef", 4) == "abc…"
    assert printable("abcd", 4) == "abcd"


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_the_result_is_always_one_short_printable_line(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
