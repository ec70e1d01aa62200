"""How good a coverage of the blocks is once some servers stand elsewhere, for every place at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]

_OFFSET: Final = 0.02
"""Keeps the soft minimum finite over a hole, and one hole better than two."""


class WindowChange:
    """Every placement of some servers, one at a time: out of where it is, into a window that starts at any block.

    Args:
        coverage: Requests a second by block before each, in units of their mean, shape (m, total_blocks).
        here: Which blocks each server is on, shape (m, total_blocks).
        outgoing: What each brings there, shape (m,).
        incoming: What each would bring to its window, shape (m,).
        length: Blocks of the window, 1 to total_blocks.

    Attributes:
        without: Coverage without each server, shape (m, total_blocks).
        within: The same, with it on every block: what counts inside its window, shape (m, total_blocks).
        length: Blocks of the window.
    """

    def __init__(
        self, coverage: _Array, here: NDArray[np.bool_], outgoing: _Array, incoming: _Array, length: int
    ) -> None:
        # What is left of a block after its only server is gone is nothing, whatever rounding says.
        self.without: _Array = np.maximum(coverage - here * outgoing[:, None], 0.0)
        self.within: _Array = self.without + incoming[:, None]
        self.length = length


class SoftMinimum:
    """A smooth stand-in for the minimum of a coverage c in units of its mean: (mean (c + 0.02)^-p)^(-1/p) - 0.02.

    Args:
        sharpness: The exponent p, a power of two: roots are then taken by `sqrt`, which rounds alike on every machine.
    """

    def __init__(self, sharpness: int) -> None:
        self._doublings = sharpness.bit_length() - 1
        if sharpness != 1 << self._doublings:
            raise ValueError(f"the sharpness is a power of two, not {sharpness}")

    def of(self, coverage: _Array) -> float:
        """Give the soft minimum of one coverage, shape (total_blocks,)."""
        return float(self._from_mean(np.add.reduce(self._terms(coverage)) / len(coverage)))

    def of_change(self, change: WindowChange) -> _Array:
        """Give the soft minimum for every server and start, shape (m, total_blocks - length + 1).

        Terms are only ever added: over a hole they are so large that a difference of sums would keep nothing else.
        """
        outside, inside = self._terms(change.without), self._terms(change.within)
        total_blocks, length = outside.shape[1], change.length
        before = np.zeros((outside.shape[0], total_blocks + 1))
        after = np.zeros_like(before)
        np.cumsum(outside, axis=1, out=before[:, 1:])
        np.cumsum(outside[:, ::-1], axis=1, out=after[:, 1:])
        after = after[:, ::-1]  # the sum from each block on
        windows = total_blocks - length + 1
        sums = before[:, :windows] + combine_windows(inside, length, np.add) + after[:, length:]
        return self._from_mean(sums / total_blocks)

    def _terms(self, coverage: _Array) -> _Array:
        terms = 1.0 / (coverage + _OFFSET)
        for _ in range(self._doublings):
            terms *= terms
        return terms

    def _from_mean(self, mean: _Array) -> _Array:
        root = np.asarray(mean)
        for _ in range(self._doublings):
            root = np.sqrt(root)
        with np.errstate(divide="ignore"):  # where every block has a billion times the mean the terms are nothing
            return 1.0 / root - _OFFSET


def combine_windows(values: _Array, length: int, operation: Callable[[_Array, _Array], _Array]) -> _Array:
    """Combine each run of `length` neighbours by an associative operation, in the order of log(length) passes.

    Args:
        values: Shape (m, n).
        length: 1 to n.
        operation: Such as `np.add` or `np.minimum`.

    Returns:
        Shape (m, n - length + 1): entry s combines values s to s + length - 1.
    """
    windows = values.shape[1] - length + 1
    combined: _Array | None = None
    done, size, part = 0, 1, values
    rest = length
    while rest:
        if rest & 1:
            piece = part[:, done : done + windows]
            combined = piece if combined is None else operation(combined, piece)
            done += size
        rest >>= 1
        if rest:
            part = operation(part[:, :-size], part[:, size:])
            size *= 2
    assert combined is not None  # noqa: S101 - a length of at least 1 has a bit
    return combined
