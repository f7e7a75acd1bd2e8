"""The bins of the judged regions, one after the other: what every array of a judged track is aligned with."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.genome import Chromsizes, Region, bin_count

Intervals = Mapping[str, NDArray[np.int64]]  # of each chromosome, shape (K, 2): 0-based, half-open, in bp
Bins = NDArray[np.int64]
BLOCKS_BP = (1_000_000, 250_000, 100_000, 25_000)  # widths of genomic blocks for errors, the widest that gives enough
_ENOUGH_BLOCKS = 16


class Stretch(NamedTuple):
    """A region of the grid, and where its bins lie.

    Attributes
    ----------
    first, last : bins of the chromosome, half-open
    at : place of the first one in the arrays
    """

    region: Region
    first: int
    last: int
    at: int

    @property
    def place(self) -> slice:
        """Where the bins lie in the arrays."""
        return slice(self.at, self.at + self.last - self.first)


class Grid:
    """The bins of some regions in genome order.

    Parameters
    ----------
    regions : each of whole bins, in genome order, apart
    resolution : bp of a bin
    """

    def __init__(self, regions: Sequence[Region], resolution: int) -> None:
        self.resolution = resolution
        self.stretches: list[Stretch] = []
        at = 0
        for region in regions:
            first, last = region.start // resolution, bin_count(region.end, resolution)
            self.stretches.append(Stretch(region, first, last, at))
            at += last - first
        self.n_bins = at

    @property
    def regions(self) -> list[Region]:
        """The regions, in genome order."""
        return [stretch.region for stretch in self.stretches]

    @property
    def chroms(self) -> list[str]:
        """Their chromosomes, in genome order."""
        return list(dict.fromkeys(region.chrom for region in self.regions))

    @property
    def edges(self) -> Bins:
        """Where stretches begin, and the last one ends: shape (stretches + 1,)."""
        return np.array([stretch.at for stretch in self.stretches] + [self.n_bins], dtype=np.int64)

    @cached_property
    def block_bp(self) -> int:
        """Width of the blocks that errors are taken over: 1 Mb, less where the grid is too small for 16 of them."""
        covered_bp = self.n_bins * self.resolution
        return next((width for width in BLOCKS_BP if covered_bp >= _ENOUGH_BLOCKS * width), BLOCKS_BP[-1])

    @cached_property
    def blocks(self) -> NDArray[np.int32]:
        """Number of the block of the genome that each bin lies in: shape (L,), from 0 on without a gap, in order."""
        labels = np.empty(self.n_bins, dtype=np.int32)
        seen: dict[tuple[str, int], int] = {}
        for region, first, last, at in self.stretches:
            block = np.arange(first, last) * self.resolution // self.block_bp
            numbers = [seen.setdefault((region.chrom, number), len(seen)) for number in range(block[0], block[-1] + 1)]
            labels[at : at + last - first] = np.array(numbers, dtype=np.int32)[block - block[0]]
        return labels

    def chrom_of(self, chrom: str) -> NDArray[np.bool_]:
        """Return which bins lie on a chromosome: shape (L,)."""
        inside = np.zeros(self.n_bins, dtype=np.bool_)
        for stretch in self.stretches:
            inside[stretch.place] = stretch.region.chrom == chrom
        return inside

    def within(self, intervals: Intervals) -> NDArray[np.bool_]:
        """Return which bins an interval overlaps by at least 1 bp: shape (L,)."""
        steps = np.zeros(self.n_bins + 1, dtype=np.int32)
        found = self.ranges(intervals)
        np.add.at(steps, found[:, 0], 1)
        np.add.at(steps, found[:, 1], -1)
        return np.cumsum(steps)[:-1] > 0

    def ranges(self, intervals: Intervals) -> Bins:
        """Return the bins of each interval that reaches into the grid, cut to it: shape (K, 2), half-open.

        An interval that reaches into several stretches has a row for each.
        """
        found = [np.zeros((0, 2), dtype=np.int64)]
        for region, first, last, at in self.stretches:
            spans = intervals.get(region.chrom)
            if spans is None or not len(spans):
                continue
            start = np.maximum(spans[:, 0] // self.resolution, first)
            end = np.minimum(-(-spans[:, 1] // self.resolution), last)
            kept = start < end
            found.append(np.stack([start[kept], end[kept]], axis=1) - first + at)
        return np.concatenate(found)

    def pieces(self, most_bins: int) -> Iterator[Stretch]:
        """Yield the stretches in pieces of at most so many bins."""
        for region, first, last, at in self.stretches:
            for start in range(first, last, most_bins):
                end = min(start + most_bins, last)
                piece = Region(region.chrom, start * self.resolution, min(end * self.resolution, region.end))
                yield Stretch(piece, start, end, at + start - first)


def common_regions(one: Sequence[Region], other: Sequence[Region], chromsizes: Chromsizes) -> list[Region]:
    """Return what lies in both lists of regions, in genome order."""
    found = [
        Region(region.chrom, max(region.start, each.start), min(region.end, each.end))
        for region in one
        for each in other
        if region.chrom == each.chrom and max(region.start, each.start) < min(region.end, each.end)
    ]
    order = {chrom: number for number, chrom in enumerate(chromsizes)}
    return sorted(found, key=lambda region: (order[region.chrom], region.start))
