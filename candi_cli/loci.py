"""Where training windows lie: inside the regions given, outside of the blacklist and of the test chromosomes.

Every strategy starts from the same stretches of allowed bins (`allowed_bins`) and yields `Loci`, from which windows are
drawn: `any_start` (each allowed start alike), `around_elements` (each element of a BED alike), `apart` (windows that do
not overlap, drawn by a seed), `tiled` (all of them, one after the other).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from candi_cli.genome import Chromsizes, Region

STRATEGIES = ("any", "ccre", "random", "full-chr", "gw")
Runs = NDArray[np.int64]  # half-open runs of bins or bp, sorted, shape (K, 2)
Covered = Runs | tuple[NDArray[np.bool_], int]  # intervals in bp; or which blocks, and a block's width in bp
_NONE: Runs = np.zeros((0, 2), dtype=np.int64)


class Loci:
    """Starts (in bins) at which a window is allowed, to draw from.

    Parameters
    ----------
    starts : for each chromosome, shape (K, 2): half-open runs of allowed start bins
    runs_alike : each run is equally likely, and each start within it; else each start of all runs
    """

    def __init__(self, starts: Mapping[str, Runs], *, runs_alike: bool = False) -> None:
        self.starts = {chrom: runs for chrom, runs in sorted(starts.items()) if len(runs)}
        self.runs_alike = runs_alike
        self._chroms = list(self.starts)
        self._first_run = np.cumsum([0, *(len(runs) for runs in self.starts.values())])
        self._runs = np.concatenate([*self.starts.values(), _NONE])
        self._ends = np.cumsum(self._runs[:, 1] - self._runs[:, 0])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def draw(self, rng: np.random.Generator) -> tuple[str, int]:
        """Return a chromosome and a start bin."""
        if self.runs_alike:
            run = int(rng.integers(len(self._runs)))
            start = int(rng.integers(self._runs[run, 0], self._runs[run, 1]))
        else:
            pick = int(rng.integers(len(self)))
            run = int(np.searchsorted(self._ends, pick, side="right"))
            before = int(self._ends[run - 1]) if run else 0
            start = int(self._runs[run, 0]) + pick - before
        return self._chroms[int(np.searchsorted(self._first_run, run, side="right")) - 1], start

    def spans(self, context: int) -> dict[str, Runs]:
        """Return the bins of each chromosome that some window of `context` bins holds, as sorted runs."""
        return {
            chrom: merged(np.stack([runs[:, 0], runs[:, 1] - 1 + context], axis=1))
            for chrom, runs in self.starts.items()
        }


def merged(intervals: Runs, *, gap: int = 0) -> Runs:
    """Return the union of half-open intervals as sorted runs; those at most `gap` apart become one."""
    intervals = intervals[intervals[:, 1] > intervals[:, 0]]
    if not len(intervals):
        return _NONE
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    reach = np.maximum.accumulate(intervals[:, 1])
    first = np.flatnonzero(np.append(True, intervals[1:, 0] > reach[:-1] + gap))
    last = np.append(first[1:], len(intervals)) - 1
    return np.stack([intervals[first, 0], reach[last]], axis=1).astype(np.int64)


def without(runs: Runs, excluded: Runs) -> Runs:
    """Return what of sorted runs lies in no excluded interval."""
    excluded = merged(excluded)
    if not len(runs) or not len(excluded):
        return runs
    ends = np.iinfo(np.int64)
    gaps = np.stack([np.append(ends.min, excluded[:, 1]), np.append(excluded[:, 0], ends.max)], axis=1)
    return _common(runs, gaps)


def _common(one: Runs, other: Runs) -> Runs:
    """Return the intersection of two sets of sorted, disjoint runs."""
    first = np.searchsorted(other[:, 1], one[:, 0], side="right")
    n_others = np.maximum(np.searchsorted(other[:, 0], one[:, 1], side="left") - first, 0)
    which = np.repeat(np.arange(len(one)), n_others)
    partner = np.arange(len(which)) - np.repeat(np.cumsum(n_others) - n_others, n_others) + first[which]
    start = np.maximum(one[which, 0], other[partner, 0])
    end = np.minimum(one[which, 1], other[partner, 1])
    return np.stack([start, end], axis=1)[end > start]


def as_intervals(covered: Covered, length: int) -> Runs:
    """Return the stretches of a chromosome, in bp, that are covered."""
    if not isinstance(covered, tuple):
        return covered
    blocks, block_bp = covered
    edges = np.flatnonzero(np.diff(np.concatenate([[0], blocks.view(np.int8), [0]]))).reshape(-1, 2)
    return np.minimum(edges.astype(np.int64) * block_bp, length)


def allowed_bins(
    chromsizes: Chromsizes,
    *,
    resolution: int,
    regions: Sequence[Region],
    covered: Mapping[str, Covered],
    blacklist: Mapping[str, Runs],
    test_chroms: Iterable[str] = (),
) -> dict[str, Runs]:
    """Find the bins that lie wholly in a region and where there are data, and in no excluded interval.

    Parameters
    ----------
    regions : where training may look; none means the whole genome
    covered : for each chromosome with data, where they are: what of it was not measured (or cannot be mapped) would
        teach only zeros
    blacklist : intervals in bp, shape (K, 2) for each chromosome
    test_chroms : chromosomes that no window may touch
    """
    excluded_chroms, found = set(test_chroms), {}
    for chrom, where in covered.items():
        if chrom in excluded_chroms:
            continue
        whole = chromsizes[chrom] // resolution
        spans = [(r.start, r.end) for r in regions if r.chrom == chrom] if regions else [(0, chromsizes[chrom])]
        inside = merged(_bins_within(np.array(spans, dtype=np.int64).reshape(-1, 2), resolution))
        measured = as_intervals(where, chromsizes[chrom])
        # a bin that lies in part where nothing was measured is excluded as one of the blacklist is
        gaps = without(np.array([[0, chromsizes[chrom]]], dtype=np.int64), measured)
        out = np.concatenate([gaps, blacklist.get(chrom, _NONE)])
        runs = without(inside, np.stack([out[:, 0] // resolution, -(-out[:, 1] // resolution)], axis=1))
        found[chrom] = _common(runs, np.array([[0, whole]], dtype=np.int64))
    return found


def _bins_within(intervals: Runs, resolution: int) -> Runs:
    return np.stack([-(-intervals[:, 0] // resolution), intervals[:, 1] // resolution], axis=1)


def any_start(allowed: Mapping[str, Runs], context: int) -> Loci:
    """Return every window of `context` bins inside allowed runs, each start being equally likely."""
    return Loci({chrom: _starts(runs, context) for chrom, runs in allowed.items()})


def around_elements(
    allowed: Mapping[str, Runs], context: int, elements: Mapping[str, Runs], *, resolution: int
) -> Loci:
    """Return, for each element, the allowed windows that hold all of it: elements alike, and its places in a window.

    An element longer than a window stands for its middle bin. One that no allowed window holds is left out.

    Parameters
    ----------
    elements : intervals in bp, shape (K, 2) for each chromosome
    """
    found = {}
    for chrom, runs in allowed.items():
        bp = elements.get(chrom, _NONE)
        bins = np.stack([bp[:, 0] // resolution, -(-bp[:, 1] // resolution)], axis=1)
        middle = bins.sum(axis=1) // 2
        long = bins[:, 1] - bins[:, 0] > context
        bins[long] = np.stack([middle, middle + 1], axis=1)[long]
        run = np.searchsorted(runs[:, 1], bins[:, 0], side="right")
        bins, run = bins[run < len(runs)], run[run < len(runs)]
        first = np.maximum(runs[run, 0], bins[:, 1] - context)
        last = np.minimum(runs[run, 1] - context, bins[:, 0])
        found[chrom] = np.stack([first, last + 1], axis=1)[(last >= first) & (bins[:, 0] >= runs[run, 0])]
    return Loci(found, runs_alike=True)


def tiled(allowed: Mapping[str, Runs], context: int) -> Loci:
    """Return windows that abut from the start of each allowed run on; the last one ends with the run."""
    found = {}
    for chrom, runs in allowed.items():
        runs = runs[runs[:, 1] - runs[:, 0] >= context]
        n_tiles = -(-(runs[:, 1] - runs[:, 0]) // context)
        which = np.repeat(np.arange(len(runs)), n_tiles)
        number = np.arange(len(which)) - np.repeat(np.cumsum(n_tiles) - n_tiles, n_tiles)
        found[chrom] = np.minimum(runs[which, 0] + number * context, runs[which, 1] - context)
    return _single(found)


def apart(allowed: Mapping[str, Runs], context: int, n_windows: int, *, seed: int) -> Loci:
    """Draw windows that do not overlap; as many as there is room for, where that is fewer than `n_windows`.

    Each run gets its share by a draw without replacement from all the places that the runs have; within a run all
    ways to place its windows are equally likely. The draw depends on the seed and on what is allowed alone.
    """
    rng = np.random.default_rng(seed)
    chroms = sorted(allowed)
    runs = np.concatenate([*(allowed[chrom] for chrom in chroms), _NONE])
    owner = np.repeat(np.arange(len(chroms)), [len(allowed[chrom]) for chrom in chroms])
    room = np.maximum(runs[:, 1] - runs[:, 0], 0) // context
    n_here = rng.multivariate_hypergeometric(room, min(n_windows, int(room.sum())), method="marginals")
    found: dict[str, list[Runs]] = {chrom: [] for chrom in chroms}
    for run in np.flatnonzero(n_here):
        n, length = int(n_here[run]), int(runs[run, 1] - runs[run, 0])
        place = np.sort(rng.choice(length - n * (context - 1), n, replace=False, shuffle=False))
        found[chroms[owner[run]]].append(runs[run, 0] + place + np.arange(n) * (context - 1))
    return _single({chrom: np.concatenate(pieces) for chrom, pieces in found.items() if pieces})


def within(loci: Loci, allowed: Mapping[str, Runs], context: int) -> Loci:
    """Return the windows of `loci` that lie in allowed runs, one entry for each single start."""
    found = {}
    for chrom, runs in loci.starts.items():
        places, starts = _starts(allowed.get(chrom, _NONE), context), runs[:, 0]
        run = np.searchsorted(places[:, 1], starts, side="right")
        starts, run = starts[run < len(places)], run[run < len(places)]
        found[chrom] = starts[starts >= places[run, 0]]
    return _single(found)


def find_loci(
    chromsizes: Chromsizes,
    *,
    resolution: int,
    context: int,
    regions: Sequence[Region],
    covered: Mapping[str, Covered],
    blacklist: Mapping[str, Runs],
    test_chroms: Sequence[str] = (),
) -> Loci:
    """Return `any_start` of `allowed_bins`."""
    allowed = allowed_bins(
        chromsizes, resolution=resolution, regions=regions, covered=covered, blacklist=blacklist,
        test_chroms=test_chroms,
    )  # fmt: skip
    return any_start(allowed, context)


def _single(starts: Mapping[str, NDArray[np.int64]]) -> Loci:
    return Loci({chrom: np.stack([at, at + 1], axis=1).astype(np.int64) for chrom, at in starts.items()})


def _starts(runs: Runs, context: int) -> Runs:
    """Return the half-open runs of starts from which `context` bins in a row are allowed: shape (K, 2)."""
    starts = np.stack([runs[:, 0], runs[:, 1] - context + 1], axis=1)
    return starts[starts[:, 1] > starts[:, 0]].astype(np.int64)
