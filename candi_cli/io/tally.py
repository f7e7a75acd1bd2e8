"""Counts of one chromosome, filled as reads come."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.counting import FIVE_PRIME, FRAGMENT, CountingRule
from candi_cli.genome import bin_count
from candi_cli.io.records import PAIRED, REVERSE, Records

BLOCK_BP = 100_000  # a block of the genome is covered when a read starts in it


class ChromCounts(NamedTuple):
    """The counts of one chromosome.

    counts : shape (n_bins,), uint32
    folds : shape (n_bins, K), uint32, summing to `counts`; K = 0 unless asked for
    blocks : shape (n_blocks,), uint32, reads starting in each block of `BLOCK_BP`
    """

    chrom: str
    counts: NDArray[np.uint32]
    folds: NDArray[np.uint32]
    blocks: NDArray[np.uint32]


class Tally:
    """Difference arrays over the bins of one chromosome."""

    def __init__(self, chrom: str, length: int, rule: CountingRule, n_folds: int) -> None:
        self.chrom, self.length, self.rule, self.n_folds = chrom, length, rule, n_folds
        self.n_bins = bin_count(length, rule.resolution)
        self._steps = np.zeros((self.n_bins + 1) * max(1, n_folds), dtype=np.int32)
        self.blocks = np.zeros(bin_count(length, BLOCK_BP), dtype=np.uint32)
        self.depth = 0
        self.fold_depths = np.zeros(n_folds, dtype=np.int64)

    def add(self, records: Records) -> None:
        """Count reads; what of them lies past the end of the chromosome counts in its last bin."""
        if not len(records.start):
            return
        self.depth += len(records.start)
        np.add.at(self.blocks, np.maximum(records.start, 0) // np.int32(BLOCK_BP), np.uint32(1))
        first, last = (
            (np.clip(bp, 0, self.length - 1) // np.int32(self.rule.resolution)).astype(np.intp)
            for bp in self._span(records)
        )
        if self.n_folds:
            fold = _fold(records, self.n_folds)
            self.fold_depths += np.bincount(fold, minlength=self.n_folds)
            first, last = first * self.n_folds + fold, last * self.n_folds + fold
        np.add.at(self._steps, first, np.int32(1))
        np.add.at(self._steps, last + max(1, self.n_folds), np.int32(-1))

    def _span(self, records: Records) -> tuple[NDArray, NDArray]:
        """Return the first and the last bp (inclusive) that a read counts for."""
        if self.rule.rule == FRAGMENT:
            return records.start, records.start + records.template - 1
        if self.rule.rule == FIVE_PRIME:
            plus, minus = (np.int32(bp) for bp in self.rule.shift)
            five_prime = np.where(records.flag & REVERSE, records.end - 1 + minus, records.start + plus)
            return five_prime, five_prime
        return records.start, records.end - 1

    def finish(self) -> ChromCounts:
        """Return the counts; nothing can be added afterwards."""
        steps = self._steps.reshape(self.n_bins + 1, -1)
        folds = np.cumsum(steps, axis=0, out=steps)[:-1].view(np.uint32)
        counts = folds.sum(axis=1, dtype=np.uint32) if self.n_folds else folds[:, 0]
        return ChromCounts(self.chrom, counts, folds if self.n_folds else folds[:, :0], self.blocks)


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
