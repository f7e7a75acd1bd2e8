"""How much better a model is than a baseline, over tracks: the unit that varies is the track, never the bin."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

Array = NDArray[np.float64]
NAN = float("nan")
N_RESAMPLES = 10_000
_CHUNK = 1 << 22  # drawn tracks at a time, so that memory does not grow with resamples


class Gain(NamedTuple):
    """What a model gains over a baseline; positive where the model is better.

    Attributes
    ----------
    mean : of the differences of tracks
    se : clustered by track: the jackknife that leaves out a track at a time
    low, high : 95 % percentile interval of the mean in resamples of tracks
    n : tracks with both scores
    n_better, n_worse : tracks on which the model is better, and worse; the rest are equal
    sign_p : two-sided p of the exact sign test, equal tracks left out
    note : why se, interval or p is NaN, else empty
    """

    mean: float
    se: float
    low: float
    high: float
    n: int
    n_better: int
    n_worse: int
    sign_p: float
    note: str = ""


def gain(
    model: ArrayLike,
    baseline: ArrayLike,
    *,
    seed: int,
    lower_is_better: bool = False,
    n_resamples: int = N_RESAMPLES,
) -> Gain:
    """Return the mean gain of a model over a baseline, and how sure it is.

    Parameters
    ----------
    model, baseline : shape (T,), a score of each track, the same tracks; tracks where one is NaN are left out
    seed : of the resamples
    lower_is_better : as of errors; the gain is then baseline - model
    """
    difference = _differences(model, baseline)
    if lower_is_better:
        difference = -difference
    n, n_better, n_worse = len(difference), int((difference > 0).sum()), int((difference < 0).sum())
    if n < 2:
        reason = "a single track has no spread between tracks" if n else "no tracks"
        return Gain(float(difference[0]) if n else NAN, NAN, NAN, NAN, n, n_better, n_worse, NAN, reason)
    low, high = np.quantile(_resampled_means(difference, seed, n_resamples), [0.025, 0.975])
    unequal = n_better + n_worse
    sign_p = float(binomtest(n_better, unequal).pvalue) if unequal else NAN
    note = "" if unequal else "the scores are equal on every track"
    # of a mean, the jackknife's error is that of the textbook
    se = float(difference.std(ddof=1)) / math.sqrt(n)
    return Gain(float(difference.mean()), se, float(low), float(high), n, n_better, n_worse, sign_p, note)


def _differences(model: ArrayLike, baseline: ArrayLike) -> Array:
    one, other = np.asarray(model, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"scores of shape {one.shape} and {other.shape}; both must be (T,)")
    difference = one - other
    return difference[~np.isnan(difference)]


def _resampled_means(values: Array, seed: int, n_resamples: int) -> Array:
    """Return the mean of each resample of the values, with replacement, shape (n_resamples,)."""
    rng = np.random.default_rng(seed)
    means, rows = np.empty(n_resamples), max(1, _CHUNK // len(values))
    for start in range(0, n_resamples, rows):
        size = (min(rows, n_resamples - start), len(values))
        means[start : start + rows] = values[rng.integers(len(values), size=size)].mean(axis=1)
    return means
