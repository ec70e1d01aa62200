"""Text from outside (the DHT, files, sockets) made safe to print on a terminal. Standard library only."""

from __future__ import annotations

import unicodedata


def printable(text: str, limit: int = 80) -> str:
    """Give hostile text as one harmless line.

    Control characters, line breaks, invisible and direction-changing characters and combining marks (which pile up
    over the lines around) become `?`; longer text is cut and ends in an ellipsis.

    Args:
        text: Anything.
        limit: The most characters that the result may have.
    """
    cut = text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"
    return "".join(
        character if character.isprintable() and not unicodedata.combining(character) else "?" for character in cut
    )
