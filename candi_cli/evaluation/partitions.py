"""Bins in groups, to see where a prediction is good: by strength of observed signal, by cell-type specificity.

Both are partitions of all bins, as those of the ENCODE Imputation Challenge's retrospective (Schreiber et al. 2023,
Genome Biology 24:79): most bins are weak in every biosample, and there a mean is hard to beat. The number of groups,
and what counts as few or many biosamples, are choices of ours.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Labels = NDArray[np.int64]
NO_GROUP = -1
SPECIFICITIES = ("none", "one", "few", "many", "all")


class Partition(NamedTuple):
    """A group for each bin.

    Attributes
    ----------
    labels : shape (L,), indices of `names`; -1 where a bin is in no group
    names : of the groups, from the lowest
    """

    labels: Labels
    names: tuple[str, ...]


class Activity(NamedTuple):
    """In how many biosamples a bin is above a threshold, and in how many it was measured; each of shape (L,)."""

    active: Labels
    measured: Labels


def by_signal(signal: ArrayLike, n_groups: int = 10) -> Partition:
    """Return groups of equally many bins by strength of signal, deciles by default; NaN is in no group.

    Equal signals are in one group, that of their mean rank; a track that is mostly 0 so has groups without a bin.

    Parameters
    ----------
    signal : shape (L,), of the observed track, or its mean over training biosamples to have the same groups for all
    """
    signal = np.asarray(signal, dtype=np.float64)
    percent = [f"{100 * edge / n_groups:g}" for edge in range(n_groups + 1)]
    names = tuple(f"signal {percent[group]}-{percent[group + 1]} %" for group in range(n_groups))
    labels = np.full(signal.shape, NO_GROUP, dtype=np.int64)
    measured = ~np.isnan(signal)
    labels[measured] = quantile_groups(rankdata(signal[measured]), n_groups)
    return Partition(labels, names)


def quantile_groups(ranks: ArrayLike, n_groups: int) -> Labels:
    """Return the quantile group of each entry, 0 .. n_groups - 1, from ranks in which ties share their mean rank.

    Parameters
    ----------
    ranks : shape (L,), 1 .. L, as scipy's `rankdata` gives them
    """
    ranks = np.asarray(ranks, dtype=np.float64)
    # doubled, a mean rank is whole: group edges are then compared without rounding
    doubled = np.rint(2 * ranks).astype(np.int64) - 1
    return doubled * n_groups // (2 * max(len(ranks), 1))


def count_active(tracks: Iterable[ArrayLike], threshold: float) -> Activity:
    """Return in how many training biosamples each bin is above the threshold, reading one track at a time.

    Parameters
    ----------
    tracks : of one assay, a biosample each, shape (L,); NaN where not measured
    threshold : in the units of the tracks; signal has to be above it
    """
    active, measured = None, None
    for track in tracks:
        values = np.asarray(track, dtype=np.float64)
        if active is None or measured is None:
            active, measured = np.zeros(values.shape, np.int64), np.zeros(values.shape, np.int64)
        if values.shape != active.shape:
            raise ValueError(f"tracks of shape {active.shape} and {values.shape}; all must be (L,)")
        active += values > threshold
        measured += ~np.isnan(values)
    if active is None or measured is None:
        raise ValueError("no training biosample to take the specificity of bins from")
    return Activity(active, measured)


def by_specificity(activity: Activity) -> Partition:
    """Return groups by the number of training biosamples in which a bin is active: none, one, few, many, all.

    Few is from 2 to half of those measured, many is more than half but not all. Of two biosamples, both are all; of
    one, it is one. A bin that was never measured is in no group.
    """
    active, measured = (np.asarray(part, dtype=np.int64) for part in activity)
    conditions = [measured == 0, active == 0, active == 1, active == measured, 2 * active <= measured]
    groups = [NO_GROUP, *(SPECIFICITIES.index(name) for name in ("none", "one", "all", "few"))]
    return Partition(np.select(conditions, groups, SPECIFICITIES.index("many")).astype(np.int64), SPECIFICITIES)
