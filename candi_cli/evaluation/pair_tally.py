"""Tallies of pairs of bins, from which every statistic of concordance follows: whole numbers that add up.

Tallies of chunks, chromosomes or processes add up to that of all their pairs, to the last digit and in any order.
A margin, of which only ranks against other margins and 0 matter, is counted in bins of its sign and size: the octaves
from 2^-16 to 2^16 have 1,024 bins each, so that margins which differ by 0.1 % are told apart whatever their unit. The
area that they make is off by some 0.01 / pairs for it.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
_OCTAVES = 32
_BITS = 10  # of the mantissa
_SIZES = _OCTAVES << _BITS
_BEFORE_FIRST = ((1023 - _OCTAVES // 2) << _BITS) - 1  # exponent and mantissa that end before 2^-16
MARGIN_BINS = 2 * _SIZES + 1  # 65,537: falling losses, 0, rising wins
_COARSE = 16  # sizes to a bin where a tally is kept for each block
_BLOCK_MARGIN_BINS = 2 * _SIZES // _COARSE + 1
_UNIT = 2.0**32  # probabilities are added up in whole multiples of its inverse


class PairTally(NamedTuple):
    """What is known of the pairs of each group; a margin is > 0 where a pair is predicted in the observed order.

    margins : shape (groups, 65,537); pairs by margin
    orders : shape (groups, 3); pairs of which the higher bin has the lower, the same, the higher predicted mean
    probabilities : shape (groups,); sum of the probabilities of the observed order, in units of 2^-32
    """

    margins: Integers
    orders: Integers
    probabilities: Integers

    @classmethod
    def empty(cls, groups: int = 1) -> "PairTally":
        """Return a tally of no pairs."""
        shapes = (groups, MARGIN_BINS), (groups, 3), (groups,)
        return cls(*(np.zeros(shape, dtype=np.int64) for shape in shapes))

    def add(self, group: int, margin: Array, probability: Array, difference: Array) -> None:
        """Add pairs, in place.

        Parameters
        ----------
        margin, probability, difference : shape (pairs,); the last is that of the predicted means, higher less lower bin
        """
        self.margins[group] += np.bincount(_margin_bins(margin, 1), minlength=MARGIN_BINS)
        above, below = np.count_nonzero(difference > 0), np.count_nonzero(difference < 0)
        self.orders[group] += [below, len(difference) - above - below, above]
        self.probabilities[group] += np.rint(probability * _UNIT).astype(np.int64).sum()

    def merge(self, other: "PairTally") -> "PairTally":
        """Return the tally of the pairs of both."""
        return PairTally(*(one + more for one, more in zip(self, other, strict=True)))

    @property
    def n_pairs(self) -> Integers:
        """Pairs of each group."""
        total: Integers = self.orders.sum(axis=1)
        return total

    def auc(self) -> Array:
        """Return A of each group, NaN of one without pairs."""
        return np.array([signed_rank_area(margins) for margins in self.margins])

    def harrell(self) -> Array:
        """Return H of each group, NaN of one without pairs."""
        return _ratio(2 * self.orders[:, 2] + self.orders[:, 1], 2 * self.n_pairs)

    def oriented(self) -> Array:
        """Return M of each group, NaN of one without pairs."""
        return _ratio(self.probabilities / _UNIT, self.n_pairs)

    def pooled(self) -> "PairTally":
        """Return the tally with its groups made one."""
        return PairTally(*(part.sum(axis=0, keepdims=True) for part in self))


class BlockTally(NamedTuple):
    """Margins of all pairs, and of those that touch each genomic block, in bins 16 times as wide as a PairTally's.

    pairs : shape (4,097,); touching : shape (blocks, 4,097)
    """

    pairs: Integers
    touching: Integers

    @classmethod
    def empty(cls, blocks: int) -> "BlockTally":
        """Return a tally of no pairs."""
        return cls(np.zeros(_BLOCK_MARGIN_BINS, dtype=np.int64), np.zeros((blocks, _BLOCK_MARGIN_BINS), dtype=np.int64))

    def add(self, margin: Array, one: Integers, other: Integers) -> None:
        """Add pairs, in place.

        Parameters
        ----------
        margin : shape (pairs,); one, other : numbers of the blocks that a pair's two bins are in
        """
        bins = _margin_bins(margin, _COARSE)
        np.add.at(self.pairs, bins, 1)
        cells = self.touching.reshape(-1)  # a view
        np.add.at(cells, one * _BLOCK_MARGIN_BINS + bins, 1)
        apart = one != other
        np.add.at(cells, other[apart] * _BLOCK_MARGIN_BINS + bins[apart], 1)

    def auc_error(self) -> float:
        """Return the jackknife standard error of A, each block deleted in turn with all pairs that touch it.

        NaN with fewer than two blocks that pairs touch, or if no pair is left without one of them.
        """
        touched = self.touching[self.touching.any(axis=1)]
        if len(touched) < 2:
            return math.nan
        without = np.array([signed_rank_area(self.pairs - block) for block in touched])
        return float(np.sqrt((len(without) - 1) * without.var()))


def signed_rank_area(margins: Integers) -> float:
    """Return P(z + z' > 0) + P(z + z' = 0) / 2 of two margins drawn independently from a tally, NaN if it is empty.

    Parameters
    ----------
    margins : shape (bins,), an odd number of them: symmetric about 0
    """
    total = int(margins.sum())
    if not total:
        return math.nan
    mirrored = margins[::-1]
    above = total - np.cumsum(margins)[::-1]  # margins greater than minus that of the bin
    return int((margins * (2 * above + mirrored)).sum()) / (2 * total * total)


def _margin_bins(margin: Array, coarse: int) -> Integers:
    """Return the bin of each margin, by the exponent and leading bits of its float64."""
    size = np.abs(margin).view(np.int64) >> (52 - _BITS)
    np.clip(size - _BEFORE_FIRST, 1, _SIZES, out=size)
    size = (size - 1) // coarse + 1 if coarse > 1 else size
    return _SIZES // coarse + np.sign(margin).astype(np.int64) * size


def _ratio(part: NDArray, whole: Integers) -> Array:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
