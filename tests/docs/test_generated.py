"""Files that follow from the code are what the code says now."""

from __future__ import annotations

from tools.documents import stale_documents


def test_no_generated_file_is_stale() -> None:
    assert stale_documents() == [], "write them anew: make docs-generate"
