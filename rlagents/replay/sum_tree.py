"""A sum tree: Schaul et al. (2016), Appendix B.2.1, for whole batches of leaves at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rlagents.types import IntArray

Masses = npt.NDArray[np.float64]


class SumTree:
    """Non-negative masses, their sum, and which of them a share of that sum falls on.

    A level of the tree holds the sums of the pairs of the level below. Each sum is computed from
    its two parts whenever one of them changes, so that no rounding piles up and the same masses
    always make the same tree.

    Args:
        size: number of masses, which are all 0 at first.
    """

    def __init__(self, size: int) -> None:
        self._levels = [np.zeros(length) for length in _lengths(size)]  # the masses come first
        self.masses: Masses = self._levels[0][:size]  # [size], to be read

    @staticmethod
    def nbytes_for(size: int) -> int:
        """Return the memory, in bytes, that a tree of so many masses takes."""
        return 8 * sum(_lengths(size))

    @property
    def total(self) -> float:
        """Return the sum of all masses."""
        return float(self._levels[-1][0])

    def set(self, index: IntArray, masses: Masses) -> None:
        """Replace some masses.

        Args:
            index: [K] int64; of one that is there twice, the last mass counts.
            masses: [K] float64, 0 or more.
        """
        self._levels[0][index] = masses
        for below, level in pairwise(self._levels):
            index = index >> 1
            level[index] = below[2 * index] + below[2 * index + 1]

    def set_all(self, masses: Masses) -> None:
        """Replace all masses: [size] float64."""
        self.masses[:] = masses
        for below, level in pairwise(self._levels):
            level[: len(below) // 2] = below[::2] + below[1::2]

    def find(self, shares: Masses) -> IntArray:
        """Return the leaf that each share falls on: the first whose running sum is above it.

        A leaf of mass 0 is never returned, however the sums are rounded, unless all are 0.

        Args:
            shares: [K] float64, 0 or more and below the total.

        Returns:
            [K] int64.
        """
        index = np.zeros(len(shares), dtype=np.int64)
        for level in self._levels[-2::-1]:
            left, right = level[2 * index], level[2 * index + 1]
            goes_right = (shares >= left) & (right > 0)
            shares = np.where(goes_right, shares - left, shares)
            index = 2 * index + goes_right
        return index


def _lengths(size: int) -> list[int]:
    """Return the length of each level; all but the last are even, so that everybody has a pair."""
    lengths = []
    while size > 1:
        lengths.append(size + size % 2)
        size = lengths[-1] // 2
    return [*lengths, 1]
