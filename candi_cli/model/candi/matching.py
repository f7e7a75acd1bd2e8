"""One distribution of signal for each assay, so that what a network reads does not depend on how strong a track is.

Tracks of -log10 p differ in scale from cell to cell, by depth, antibody and pipeline, so that a network that learned
from few cells would take a strong track for one full of peaks. A value is replaced by that of equal rank in what is
typical of its assay: the mean of the training tracks' quantile functions (quantile normalisation: Bolstad et al. 2003).
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from candi_cli.model.candi.config import LARGEST_SIGNAL, N_LEVELS
from candi_cli.model.candi.transform import signal_transform
from candi_cli.store import Store

LEVELS = 1 - np.geomspace(1, 1e-5, N_LEVELS)  # dense where the peaks are
_STEP = 2.0**-9  # of arcsinh(-log10 p), in histograms
_AT_ONCE = 1 << 20  # bins
_Found = dict[tuple[str, str, frozenset[str]], "NDArray[np.float64] | None"]
_found: WeakKeyDictionary[Store, _Found] = WeakKeyDictionary()  # a track is read once, whoever asks for its quantiles


class Quantiles(NamedTuple):
    """Values of arcsinh(-log10 p) and what is typical in their place, both rising: shape (K,) each."""

    own: NDArray[np.float64]
    typical: NDArray[np.float64]

    @classmethod
    def of(cls, own: NDArray[np.float64], typical: NDArray[np.float64]) -> "Quantiles":
        """Return the map between two quantile functions at `LEVELS`; of equal values the mean is taken."""
        values, which, times = np.unique(own, return_inverse=True, return_counts=True)
        return cls(values, np.bincount(which, typical) / times)

    def match(self, signal: NDArray[Any]) -> NDArray[np.float32]:
        """Return -log10 p that is typical where this is: linear between levels, constant beyond the last."""
        matched = np.interp(signal_transform(signal), self.own, self.typical)
        return np.sinh(matched).astype(np.float32)


def track_quantiles(
    store: Store, biosample: str, assay: str, *, without: Collection[str] = ()
) -> NDArray[np.float64] | None:
    """Return the quantiles of a track's arcsinh(-log10 p) at `LEVELS`: (N_LEVELS,); None where nothing was measured.

    They are found once for as long as the store is open: its signal must be complete.

    Parameters
    ----------
    without : chromosomes that are not looked at
    """
    known, key = _found.setdefault(store, {}), (biosample, assay, frozenset(without))
    if key not in known:
        known[key] = _quantiles(store, biosample, assay, without)
    return known[key]


def _quantiles(store: Store, biosample: str, assay: str, without: Collection[str]) -> NDArray[np.float64] | None:
    counts, resolution = np.zeros(int(LARGEST_SIGNAL / _STEP) + 1, dtype=np.int64), store.rule.resolution
    for chrom in store.chromsizes:
        if chrom in without or not store.has(biosample, assay, "signal", chrom):
            continue
        for start, end in store.signal_spans(biosample, assay, chrom).tolist():
            last = -(-end // resolution)
            for first in range(start // resolution, last, _AT_ONCE):
                values = store.read(biosample, assay, "signal", chrom, first, min(first + _AT_ONCE, last))
                steps = np.rint(np.clip(signal_transform(values), 0, LARGEST_SIGNAL) * (1 / _STEP)).astype(np.int64)
                counts += np.bincount(steps, minlength=len(counts))
    total = np.cumsum(counts)
    if not total[-1]:
        return None
    return np.searchsorted(total, np.maximum(LEVELS * total[-1], 1)) * _STEP


def typical_quantiles(tracks: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean of quantile functions: shape (N_LEVELS,); zeros where there are none."""
    return np.mean(tracks, axis=0) if tracks else np.zeros(N_LEVELS)
