"""The three corruptions of self-supervised training (paper, "Learning Objectives and Training Strategy").

Everything is drawn from the generator it is given, so a seed makes it reproducible.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LOCI_CHUNK_BINS = 40
LOCI_FRACTION = 0.2


class Thinned(NamedTuple):
    """Two disjoint parts of an experiment's reads: shape (L,) each, and the share of all reads that is in each."""

    seen: NDArray[np.int64]
    target: NDArray[np.int64]
    seen_share: float
    target_share: float


def draw_masked_assays(rng: np.random.Generator, available: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Choose 1 to (available - 1) of the available assays to hide: at least one stays, none when there is but one.

    Parameters
    ----------
    available : shape (A,), the assays of a biosample; the control is not among them and never hidden
    """
    masked = np.zeros_like(available)
    where = np.flatnonzero(available)
    if len(where) > 1:
        masked[rng.choice(where, size=rng.integers(1, len(where)), replace=False)] = True
    return masked


def draw_masked_loci(rng: np.random.Generator, n_bins: int) -> NDArray[np.bool_]:
    """Choose chunks of 40 bins (1 kb) that are hidden in all assays at once, until a fifth of the window is: (L,)."""
    masked = np.zeros(n_bins, dtype=np.bool_)
    chunk = min(LOCI_CHUNK_BINS, max(1, n_bins // 5))
    while masked.mean() < LOCI_FRACTION:
        start = rng.integers(0, n_bins - chunk + 1)
        masked[start : start + chunk] = True
    return masked


def thin_folds(
    rng: np.random.Generator, folds: NDArray[np.integer], fold_depths: NDArray[np.int64], *, hidden: bool
) -> Thinned:
    """Split an experiment's reads into what is seen and a disjoint target by dealing out its folds.

    Seen and target never share a read (nor a fragment, nor its duplicate), so copying the input cannot lower the
    loss. A hidden experiment shows nothing and has up to all of its reads as its target.

    Parameters
    ----------
    folds : shape (L, K); fold_depths : shape (K,), reads of the whole file in each fold
    """
    n_folds = folds.shape[1]
    order = rng.permutation(n_folds)
    n_seen = 0 if hidden else int(rng.integers(1, n_folds))
    left = n_folds - n_seen
    n_target = left if rng.random() < 0.5 else int(rng.integers(1, left + 1))
    seen, target = order[:n_seen], order[n_seen : n_seen + n_target]
    return Thinned(
        folds[:, seen].sum(axis=1, dtype=np.int64),
        folds[:, target].sum(axis=1, dtype=np.int64),
        float(fold_depths[seen].sum() / fold_depths.sum()),
        float(fold_depths[target].sum() / fold_depths.sum()),
    )


def thin_counts(rng: np.random.Generator, counts: NDArray[np.integer], *, hidden: bool) -> Thinned:
    """Split counts into what is seen and a disjoint target, bin by bin and binomially.

    Exact for `five-prime` counts; with the other rules a read that spans bins may be split between the two.
    """
    whole = counts.astype(np.int64)
    if hidden:
        return Thinned(np.zeros_like(whole), whole, 0.0, 1.0)
    share = rng.integers(1, 8) / 8
    seen = rng.binomial(whole, share)
    return Thinned(seen, whole - seen, share, 1 - share)
