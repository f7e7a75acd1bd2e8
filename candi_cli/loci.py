"""Where training windows may lie: inside the regions given, outside of the blacklist and of the test chromosomes."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from candi_cli.genome import Chromsizes, Region, bin_count


class Loci:
    """Starts (in bins) at which a window of `context` bins is allowed, for uniform draws.

    Parameters
    ----------
    starts : for each chromosome, shape (K, 2): half-open runs of allowed start bins
    """

    def __init__(self, starts: Mapping[str, NDArray[np.int64]]) -> None:
        self.starts = {chrom: runs for chrom, runs in starts.items() if len(runs)}
        self._chroms = [chrom for chrom, runs in self.starts.items() for _ in range(len(runs))]
        self._runs = np.concatenate([*self.starts.values(), np.zeros((0, 2), dtype=np.int64)])
        self._ends = np.cumsum(self._runs[:, 1] - self._runs[:, 0])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def draw(self, rng: np.random.Generator) -> tuple[str, int]:
        """Return a chromosome and a start bin, each allowed start being equally likely."""
        pick = int(rng.integers(len(self)))
        run = int(np.searchsorted(self._ends, pick, side="right"))
        before = int(self._ends[run - 1]) if run else 0
        return self._chroms[run], int(self._runs[run, 0]) + pick - before


def find_loci(
    chromsizes: Chromsizes,
    *,
    resolution: int,
    context: int,
    regions: Sequence[Region],
    covered: Mapping[str, tuple[NDArray[np.bool_], int]],
    blacklist: Mapping[str, NDArray[np.int64]],
    test_chroms: Sequence[str] = (),
) -> Loci:
    """Find every window of `context` bins that lies wholly in a region and in covered blocks, and in no excluded one.

    Parameters
    ----------
    regions : where training may look; none means the whole genome
    covered : for each chromosome with data, which blocks hold a read, and a block's width in bp: blocks without any
        read of a biosample were not measured (or cannot be mapped) and would teach only zeros
    blacklist : intervals in bp, shape (K, 2) for each chromosome
    test_chroms : chromosomes that no window may touch
    """
    starts = {}
    for chrom, (blocks, block_bp) in covered.items():
        if chrom in test_chroms:
            continue
        n_bins = bin_count(chromsizes[chrom], resolution)
        allowed = np.zeros(n_bins, dtype=np.bool_)
        for region in regions or [Region(chrom, 0, chromsizes[chrom])]:
            if region.chrom == chrom:
                allowed[-(-region.start // resolution) : region.end // resolution] = True
        for block in np.flatnonzero(~blocks):
            allowed[block * block_bp // resolution : -(-(block + 1) * block_bp // resolution)] = False
        for start, end in blacklist.get(chrom, np.zeros((0, 2), dtype=np.int64)):
            allowed[start // resolution : -(-end // resolution)] = False
        starts[chrom] = _runs_of_starts(allowed, context)
    return Loci(starts)


def _runs_of_starts(allowed: NDArray[np.bool_], context: int) -> NDArray[np.int64]:
    """Return the half-open runs of starts from which `context` bins in a row are allowed: shape (K, 2)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], allowed.view(np.int8), [0]]))).reshape(-1, 2)
    runs = np.stack([edges[:, 0], edges[:, 1] - context + 1], axis=1)
    return runs[runs[:, 1] > runs[:, 0]].astype(np.int64)
