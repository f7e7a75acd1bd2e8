"""Summing the folds of all lanes of a window at once; compiled, for it is most of a loader's arithmetic.

Without numba the loop is numpy's, with the same result and some thirty times slower.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from candi_cli.io.compiling import COMPILES, compiled


def sum_folds(
    folds: NDArray[np.unsignedinteger], at: int, sides: NDArray[np.uint8], lanes: NDArray[np.int64], into: NDArray[Any]
) -> None:
    """Add the folds of each lane, from bin `at` on, to the side that they are on.

    Parameters
    ----------
    folds : shape (n, K, B), contiguous
    sides : shape (n, K): 0 for a fold that is left out, s for one that is added to `into[s - 1]`
    lanes : shape (n,), the row of `into[s]` of each
    into : shape (S, T, L), uint32, contiguous
    """
    if _COMPILED is not None:
        _COMPILED(folds, at, sides, lanes, into)
        return
    length = into.shape[2]
    for row, lane in enumerate(lanes):
        for side in range(len(into)):
            chosen = folds[row, sides[row] == side + 1, at : at + length]
            into[side, lane] += chosen.sum(axis=0, dtype=np.uint32)


def _sum(folds: NDArray, at: int, sides: NDArray, lanes: NDArray, into: NDArray) -> None:
    for row in range(folds.shape[0]):
        for fold in range(folds.shape[1]):
            side = sides[row, fold]
            if side:
                total = into[side - 1, lanes[row]]
                values = folds[row, fold, at : at + into.shape[2]]
                for bin_ in range(into.shape[2]):
                    total[bin_] += values[bin_]


_COMPILED = compiled(_sum) if COMPILES else None
