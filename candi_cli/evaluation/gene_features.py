"""What tracks, or latent features, are like at genes: the features of the paper's validation by RNA-seq.

Methods, "RNA-seq Prediction as Biological Validation": of each gene the region around its start (TSS) and that around
its end (TES), each with a margin of 10 % of its length to both sides, and its body; of each region the median,
interquartile range, minimum and maximum of each track. Of latent features also the mean and standard deviation.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
REGIONS = ("tss", "body", "tes")
MARGIN = 0.1  # of a gene's length
TRACK_STATISTICS = ("median", "iqr", "min", "max")
LATENT_STATISTICS = (*TRACK_STATISTICS, "mean", "sd")


class GeneBins(NamedTuple):
    """The bins of the regions of genes among the bins that are judged.

    Attributes
    ----------
    gene : shape (K,), which of the genes were located: those whose regions are all within one judged region
    first, end : shape (K, 3), half-open, of TSS, body and TES; numbers of judged bins
    """

    gene: Integers
    first: Integers
    end: Integers


def gene_regions(start: ArrayLike, end: ArrayLike, reverse: ArrayLike, *, margin: float = MARGIN) -> Integers:
    """Return the regions TSS, body and TES of genes, shape (G, 3, 2), in bp, 0-based, half-open.

    The TSS of a gene on the - strand is at its end. The margin is at least 1 bp; regions may begin before 0.

    Parameters
    ----------
    start, end : shape (G,), in bp, 0-based, half-open
    reverse : shape (G,), whether a gene is on the - strand
    margin : fraction of a gene's length to each side of its TSS and TES
    """
    start, end = np.asarray(start, dtype=np.int64), np.asarray(end, dtype=np.int64)
    wide = np.maximum(np.rint(margin * (end - start)).astype(np.int64), 1)
    left, right = np.stack([start - wide, start + wide], axis=1), np.stack([end - wide, end + wide], axis=1)
    swapped = np.asarray(reverse, dtype=np.bool_)[:, None]
    body = np.stack([start, end], axis=1)
    return np.stack([np.where(swapped, right, left), body, np.where(swapped, left, right)], axis=1)


def locate_genes(
    regions: Integers, chrom: ArrayLike, *, judged_chrom: ArrayLike, judged_start: ArrayLike, judged_end: ArrayLike,
    resolution: int,
) -> GeneBins:  # fmt: skip
    """Return where the regions of genes are among the judged bins; a bin of which 1 bp is in a region belongs to it.

    Parameters
    ----------
    regions : shape (G, 3, 2), in bp, as `gene_regions` makes them
    chrom : shape (G,)
    judged_chrom, judged_start, judged_end : shape (R,), regions that do not overlap, in the order of their bins; in bp,
        starts on the grid of bins (and ends too, but for those at a chromosome's end)
    resolution : bp of a bin
    """
    chrom, judged_chrom = np.asarray(chrom), np.asarray(judged_chrom)
    judged_start, judged_end = np.asarray(judged_start, dtype=np.int64), np.asarray(judged_end, dtype=np.int64)
    n_bins = -(-judged_end // resolution) - judged_start // resolution
    offset = np.cumsum(n_bins) - n_bins - judged_start // resolution
    within = np.full(len(regions), -1, dtype=np.int64)
    left, right = regions[:, :, 0].min(axis=1, initial=1 << 62), regions[:, :, 1].max(axis=1, initial=-1)
    for name in np.unique(judged_chrom):
        here, judged = np.flatnonzero(chrom == name), np.flatnonzero(judged_chrom == name)
        judged = judged[np.argsort(judged_start[judged])]
        at = np.searchsorted(judged_start[judged], left[here], side="right") - 1
        inside = (at >= 0) & (right[here] <= judged_end[judged[at]])
        within[here[inside]] = judged[at[inside]]
    gene = np.flatnonzero(within >= 0)
    shift = offset[within[gene]][:, None]
    return GeneBins(gene, regions[gene, :, 0] // resolution + shift, -(-regions[gene, :, 1] // resolution) + shift)


def non_overlapping(chrom: ArrayLike, start: ArrayLike, end: ArrayLike) -> NDArray[np.bool_]:
    """Return which genes overlap no other one, on either strand.

    Parameters
    ----------
    chrom, start, end : shape (G,), in bp, 0-based, half-open
    """
    chrom, start, end = np.asarray(chrom), np.asarray(start), np.asarray(end)
    alone = np.ones(len(start), dtype=np.bool_)
    for name in np.unique(chrom):
        here = np.flatnonzero(chrom == name)
        here = here[np.argsort(start[here], kind="stable")]
        reached = np.maximum.accumulate(end[here])
        alone[here[1:]] &= start[here[1:]] >= reached[:-1]
        alone[here[:-1]] &= start[here[1:]] >= end[here[:-1]]
    return alone


def gene_features(values: NDArray, bins: GeneBins, *, statistics: Sequence[str] = TRACK_STATISTICS) -> Array:
    """Return statistics of a track in the regions of genes; NaN where none of a region's bins has a value.

    Parameters
    ----------
    values : shape (L,) of a track, or (L, D) of latent features; of the judged bins, NaN where there is no value
    bins : as `locate_genes` finds them, at the resolution of the values
    statistics : some of LATENT_STATISTICS

    Returns
    -------
    Array
        Shape (K, 3 * S) or (K, 3 * S * D): for each region (TSS, body, TES) each statistic of each dimension.
    """
    columns = values if values.ndim == 2 else values[:, None]
    features = np.empty((len(bins.gene), len(REGIONS), len(statistics), columns.shape[1]))
    for row, region in np.ndindex(features.shape[:2]):
        part = np.sort(columns[bins.first[row, region] : bins.end[row, region]], axis=0)
        if np.isnan(part[-1]).any():  # NaN is sorted to the end
            features[row, region] = _with_gaps(part, statistics)
        else:
            features[row, region] = [_STATISTICS[name](part) for name in statistics]
    return features.reshape(len(features), -1)


def _with_gaps(part: NDArray, statistics: Sequence[str]) -> Array:
    """Return statistics of columns that hold NaN, shape (S, D)."""
    found = np.full((len(statistics), part.shape[1]), np.nan)
    for column in range(part.shape[1]):
        known = part[: np.count_nonzero(~np.isnan(part[:, column])), column]
        if len(known):
            found[:, column] = [_STATISTICS[name](known) for name in statistics]
    return found


def _quantile(part: NDArray, level: float) -> NDArray:
    """Return a quantile of sorted values, interpolated between its two neighbours."""
    at = level * (len(part) - 1)
    below = int(at)
    above = min(below + 1, len(part) - 1)
    return part[below] + (at - below) * (part[above] - part[below])


_STATISTICS: dict[str, Callable[[NDArray], NDArray]] = {  # of sorted values
    "median": lambda part: _quantile(part, 0.5),
    "iqr": lambda part: _quantile(part, 0.75) - _quantile(part, 0.25),
    "min": lambda part: part[0],
    "max": lambda part: part[-1],
    "mean": lambda part: part.mean(axis=0, dtype=np.float64),
    "sd": lambda part: part.std(axis=0, dtype=np.float64),
}
