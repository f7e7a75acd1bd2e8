"""Counts of one chromosome, filled as reads come."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.counting import FIVE_PRIME, FRAGMENT, MIDPOINT, CountingRule, narrowest
from candi_cli.genome import bin_count
from candi_cli.io.records import PAIRED, REVERSE, Records

BLOCK_BP = 100_000  # a block of the genome is covered when a read starts in it


class ChromCounts(NamedTuple):
    """The counts of one chromosome.

    counts : shape (n_bins,), unsigned integers in the smallest width that holds them
    folds : shape (n_bins, K), the same, summing to `counts`; K = 0 unless asked for
    blocks : shape (n_blocks,), uint32, reads starting in each block of `BLOCK_BP`
    """

    chrom: str
    counts: NDArray[np.unsignedinteger]
    folds: NDArray[np.unsignedinteger]
    blocks: NDArray[np.uint32]


class Tally:
    """Difference arrays over the bins of one chromosome.

    Parameters
    ----------
    scratch : of the tally before; its memory is used again
    """

    def __init__(
        self, chrom: str, length: int, rule: CountingRule, n_folds: int, *, scratch: "Tally | None" = None
    ) -> None:
        self.chrom, self.length, self.rule, self.n_folds = chrom, length, rule, n_folds
        self.n_bins = bin_count(length, rule.resolution)
        self._memory: NDArray[np.int32] = _zeros(
            max(1, n_folds) * (self.n_bins + 1), scratch._memory if scratch else None
        )
        self._steps = self._memory[: max(1, n_folds) * (self.n_bins + 1)].reshape(-1, self.n_bins + 1)
        self.blocks = np.zeros(bin_count(length, BLOCK_BP), dtype=np.uint32)
        self.depth = 0
        self.fold_depths = np.zeros(n_folds, dtype=np.int64)

    def add(self, records: Records) -> None:
        """Count reads; what of them lies past the end of the chromosome counts in its last bin."""
        if not len(records.start):
            return
        self.depth += len(records.start)
        np.add.at(self.blocks, np.clip(records.start, 0, self.length - 1) // np.int32(BLOCK_BP), np.uint32(1))
        first, last = (
            (np.clip(bp, 0, self.length - 1) // np.int32(self.rule.resolution)).astype(np.intp)
            for bp in self._span(records)
        )
        if self.n_folds:
            fold = _fold(records, self.n_folds)
            self.fold_depths += np.bincount(fold, minlength=self.n_folds)
            first += fold * (self.n_bins + 1)
            last += fold * (self.n_bins + 1)
        steps = self._steps.reshape(-1)
        np.add.at(steps, first, np.int32(1))
        np.add.at(steps, last + 1, np.int32(-1))

    def _span(self, records: Records) -> tuple[NDArray, NDArray]:
        """Return the first and the last bp (inclusive) that a read counts for."""
        if self.rule.rule == FRAGMENT:
            return records.start, records.start + np.abs(records.template) - 1
        if self.rule.rule == FIVE_PRIME:
            base = self._five_prime(records)
            return base, base
        if self.rule.rule == MIDPOINT:
            middle = records.start + np.abs(records.template) // np.int32(2)
            base = np.where(records.flag & PAIRED, middle, self._five_prime(records))
            return base, base
        return records.start, records.end - 1

    def _five_prime(self, records: Records) -> NDArray[np.int32]:
        """Return the 5' ends of reads, moved by the rule's shift."""
        plus, minus = (np.int32(bp) for bp in self.rule.shift)
        return np.where(records.flag & REVERSE, records.end - 1 + minus, records.start + plus)

    def finish(self) -> ChromCounts:
        """Return the counts; nothing can be added afterwards."""
        for fold in self._steps:
            np.cumsum(fold, out=fold)
        folds = narrowest(self._steps[:, : self.n_bins].view(np.uint32))
        counts = narrowest(folds.sum(axis=0, dtype=np.uint32)) if self.n_folds else folds[0]
        return ChromCounts(self.chrom, counts, folds[: self.n_folds].T, self.blocks)


def _zeros(n_values: int, used: NDArray[np.int32] | None) -> NDArray[np.int32]:
    """Return zeros; memory that was used before is faster than new, which the system clears page by page."""
    if used is None or len(used) < n_values:
        return np.zeros(n_values, dtype=np.int32)
    used[:n_values] = 0
    return used


def _fold(records: Records, n_folds: int) -> NDArray[np.intp]:
    """Assign reads to folds by a hash (splitmix64) of where their fragment lies; read names play no part."""
    paired = (records.flag & PAIRED).astype(bool) & (records.template != 0)
    reverse = (records.flag & REVERSE).astype(bool)
    anchor = np.where(
        paired, np.minimum(records.start, records.mate_start), np.where(reverse, records.end - 1, records.start)
    )
    shape = np.where(paired, np.abs(records.template) + 2, reverse)
    mixed = anchor.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + shape.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(n_folds)).astype(np.intp)
