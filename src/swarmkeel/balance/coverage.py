"""The coverage of the blocks: what servers serve there together, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swarmkeel.swarm.span import Span

_Array = NDArray[np.float64]

_ROWS_AT_ONCE: Final = 256
"""Servers whose blocks are summed up at once: more would not fit a cache."""
_OFFSET: Final = 0.02
"""Keeps the soft minimum finite over a hole, and one hole better than two."""


def sum_coverage(spans: Sequence[Span], throughputs: Sequence[float], total_blocks: int) -> _Array:
    """Sum up block by block what servers serve, one after the other; shape (total_blocks,).

    Args:
        spans: Their blocks.
        throughputs: What each serves.
        total_blocks: Number of blocks of the model.
    """
    coverage, blocks = np.zeros(total_blocks), np.arange(total_blocks)
    for begin in range(0, len(spans), _ROWS_AT_ONCE):
        rows = spans[begin : begin + _ROWS_AT_ONCE]
        starts, ends = np.array([span.start for span in rows]), np.array([span.end for span in rows])
        here = (blocks >= starts[:, None]) & (blocks < ends[:, None])
        served = here * np.array(throughputs[begin : begin + _ROWS_AT_ONCE])[:, None]
        # Row after row on top of what is there: sums in another order would round in another way.
        coverage = np.add.accumulate(np.vstack([coverage, served]), axis=0)[-1]
    return coverage


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
        return float(self._from_mean(np.add.reduce(self.terms(coverage)) / len(coverage)))

    def of_sums(self, sums: _Array, total_blocks: int) -> _Array:
        """Give the soft minimum of coverages of which the sums of all terms are known, see `terms`; any shape."""
        return self._from_mean(sums / total_blocks)

    def terms(self, coverage: _Array) -> _Array:
        """Give the terms (c + 0.02)^-p of some coverages, any shape."""
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
