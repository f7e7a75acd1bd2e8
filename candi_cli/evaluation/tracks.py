"""Tracks for a genome browser from predicted distributions: quantiles, spreads and runs of bins that are peaks.

Parameters are those of `distributions`: the logs of a negative binomial's mean and dispersion n for counts, and the
mean and sd of a Gaussian over arcsinh(-log10 p) for signal. They broadcast; what is not predicted is NaN, and stays so.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, gammaincinv, ndtri

Array = NDArray[np.float64]
Bins = NDArray[np.int64]
_CHUNK = 1 << 15  # entries at a time: they stay in the processor's cache
LOG_LIMIT = 16.0  # of log mean and log n: quantiles stay below 2^53, above which k + 1 is k
_SUMMED_TO = 64  # counts below it are found by adding up probabilities, the others by a search
_LEAST_LOG_NONE = -100.0  # log P(Y = 0) below which a quantile under _SUMMED_TO is too rare to add up for


class PeakRuns(NamedTuple):
    """Runs of adjacent bins, in order, each of shape (R,).

    Attributes
    ----------
    start, end : bins, 0-based, half-open
    summit : bin of the highest probability, start <= summit < end
    height : that probability
    """

    start: Bins
    end: Bins
    summit: Bins
    height: Array


def negative_binomial_quantiles(levels: ArrayLike, log_mean: ArrayLike, log_dispersion: ArrayLike) -> Array:
    """Return the smallest whole k with P(Y <= k) >= level, shape (K, ...); NaN where a parameter is not finite.

    Where P(Y <= k) equals a level to within rounding (1e-11), k and its near neighbours are equally right.

    Parameters
    ----------
    levels : shape (K,), in (0, 1)
    log_mean, log_dispersion : shape (...), natural logs, of reads per bin and of n, from -16 to 16
    """
    levels, log_mean, log_n = _floats(levels, log_mean, log_dispersion)
    if not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"levels {levels}; all must be between 0 and 1, and neither of them")
    log_mean, log_n = np.broadcast_arrays(log_mean, log_n)
    shape, log_mean, log_n = log_mean.shape, log_mean.ravel(), log_n.ravel()
    quantiles = np.full((len(levels), log_mean.size), np.nan)
    predicted = np.flatnonzero(np.isfinite(log_mean) & np.isfinite(log_n))
    if (np.maximum(np.abs(log_mean[predicted]), np.abs(log_n[predicted])) > LOG_LIMIT).any():
        raise ValueError(f"a log mean or log dispersion is outside of -{LOG_LIMIT:g} to {LOG_LIMIT:g}")
    for start in range(0, len(predicted), _CHUNK):
        chunk = predicted[start : start + _CHUNK]
        mean, n = np.exp(log_mean[chunk]), np.exp(log_n[chunk])
        found = _small_quantiles(levels, mean, n)
        level, entry = np.nonzero(found == _SUMMED_TO)
        found[level, entry] = _search_quantiles(levels[level], mean[entry], n[entry])
        quantiles[:, chunk] = found
    return quantiles.reshape(len(levels), *shape)


def _small_quantiles(levels: Array, mean: Array, n: Array) -> Array:
    """Return how many k < _SUMMED_TO have P(Y <= k) < level: the quantile, where that is not all of them.

    The recurrence is P(k + 1) = P(k) (n + k) / (k + 1) (1 - p), from P(0) = p^n. Entries whose quantiles are all found
    leave the arrays once they are half of them.

    Parameters
    ----------
    levels : shape (K,); mean, n : shape (C,)
    """
    found = np.full((len(levels), len(mean)), float(_SUMMED_TO))
    log_none = -n * np.log1p(mean / n)
    active = np.flatnonzero(log_none > _LEAST_LOG_NONE)
    n, rest, term = n[active], (mean / (n + mean))[active], np.exp(log_none[active])
    total, below = term.copy(), np.zeros((len(levels), len(active)), dtype=np.uint8)
    for k in range(_SUMMED_TO):
        short = total < levels[:, None]
        below += short
        unfinished = short.any(axis=0)
        if np.count_nonzero(unfinished) < 0.5 * len(active):
            found[:, active] = below
            kept = np.flatnonzero(unfinished)
            active, n, rest, term, total = active[kept], n[kept], rest[kept], term[kept], total[kept]
            below = below[:, kept]
        term *= (n + k) * rest / (k + 1)
        total += term
    found[:, active] = below
    return found


def _search_quantiles(levels: Array, mean: Array, n: Array) -> Array:
    """Return the quantile of each entry from a guess: strides of 1, 2, 4, ... until it is enclosed, then halving.

    Parameters
    ----------
    levels, mean, n : shape (P,)
    """
    quantiles, active = np.empty(len(levels)), np.arange(len(levels))
    at, low, high = _guess_quantiles(levels, mean, n), np.full(len(levels), -1.0), np.full(len(levels), np.inf)
    stride = 1.0
    while len(active):
        reached = _cdf(at, mean[active], n[active]) >= levels[active]
        low, high = np.where(reached, low, at), np.where(reached, at, high)
        middle = np.floor((low + high) / 2)
        at = np.where(reached, np.maximum(high - stride, middle), np.minimum(low + stride, middle))
        stride *= 2
        done = high - low <= 1
        quantiles[active[done]] = high[done]
        active, at, low, high = active[~done], at[~done], low[~done], high[~done]
    return quantiles


def _guess_quantiles(levels: Array, mean: Array, n: Array) -> Array:
    """Return about the quantiles: those of the gamma distribution with the same mean and variance, but less skewed.

    The gamma's skewness is too large by 1 / sd, which the second term of a Cornish-Fisher expansion turns into counts.
    """
    shape, scale = mean / (1 + mean / n), 1 + mean / n
    gamma = gammaincinv(shape, levels) * scale
    return np.maximum(0, np.ceil(gamma - 0.5 - (np.square(ndtri(levels)) - 1) / 6))


def _cdf(counts: Array, mean: Array, n: Array) -> Array:
    """Return P(Y <= counts) as the regularised incomplete beta function, of the smaller of p and 1 - p.

    The complement is taken by subtraction: scipy's betaincc is several times slower, and a quantile needs no more than
    the absolute precision.
    """
    swapped, y = mean < n, counts + 1
    first, second = np.where(swapped, y, n), np.where(swapped, n, y)
    below = betainc(first, second, np.minimum(mean, n) / (mean + n))
    return np.where(swapped, 1 - below, below)


def negative_binomial_sd(log_mean: ArrayLike, log_dispersion: ArrayLike) -> Array:
    """Return the standard deviation, sqrt(mean + mean^2 / n), in reads per bin.

    Parameters
    ----------
    log_mean, log_dispersion : natural logs, of reads per bin and of n
    """
    log_mean, log_n = _floats(log_mean, log_dispersion)
    with np.errstate(invalid="ignore"):  # numpy warns of a NaN that it is given here
        return np.exp((log_mean + np.logaddexp(0, log_mean - log_n)) / 2)


def signal_quantiles(levels: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Array:
    """Return the quantiles of -log10 p, shape (K, ...): arcsinh is monotone, and -log10 p never negative.

    Parameters
    ----------
    levels : shape (K,), in (0, 1)
    mean, sd : shape (...), of arcsinh(-log10 p)
    """
    levels, mean, sd = _floats(levels, mean, sd)
    mean, sd = np.broadcast_arrays(mean, sd)
    z = ndtri(levels).reshape(-1, *(1,) * mean.ndim)
    return np.maximum(0, np.sinh(mean + z * sd))


def signal_sd(mean: ArrayLike, sd: ArrayLike) -> Array:
    """Return the standard deviation of sinh(X), X ~ N(mean, sd): that of -log10 p where it is rarely 0.

    With E sinh X = exp(sd^2 / 2) sinh(mean) and E sinh^2 X = (exp(2 sd^2) cosh(2 mean) - 1) / 2, the variance is
    (exp(sd^2) - 1) (exp(sd^2) cosh(2 mean) + 1) / 2: a product of sums of positive numbers, so no digits cancel.

    Parameters
    ----------
    mean, sd : of arcsinh(-log10 p)
    """
    mean, sd = _floats(mean, sd)
    variance = np.square(sd)
    return np.sqrt(np.expm1(variance) * (np.exp(variance) * np.cosh(2 * mean) + 1) / 2)


def coefficient_of_variation(mean: ArrayLike, sd: ArrayLike) -> Array:
    """Return sd / mean; 0 where the mean is not above 0, as nothing is expected there whose spread could be compared.

    It is finite (at most the largest float) so that any browser can draw it, and NaN only where mean or sd is.

    Parameters
    ----------
    mean, sd : in the same units
    """
    mean, sd = np.broadcast_arrays(*_floats(mean, sd))
    with np.errstate(over="ignore"):
        ratio = np.divide(sd, mean, out=np.zeros(mean.shape), where=~(mean <= 0))
    return np.where(np.isnan(sd), np.nan, np.minimum(ratio, np.finfo(np.float64).max))


def call_peaks(probability: ArrayLike, threshold: float, *, max_gap: int = 0, min_length: int = 1) -> PeakRuns:
    """Return runs of bins whose probability is at least the threshold; runs with little between them are one.

    Runs are joined first, and what is too short then is left out. The summit is the bin of the highest probability; of
    equals that adjoin the first one, the (lower) middle.

    Parameters
    ----------
    probability : shape (L,), of one chromosome's bins; NaN, which is never in a peak, where not predicted
    threshold : in the units of probability
    max_gap : bins below the threshold between two runs that are joined; none of them is NaN
    min_length : bins of the shortest peak
    """
    (probability,) = _floats(probability)
    inside = _bridged(probability >= threshold, np.isnan(probability), max_gap)
    start, end = _runs(inside)
    bins, length = np.flatnonzero(inside), end - start
    heights = probability[bins]
    height = np.maximum.reduceat(heights, np.cumsum(length) - length)
    tops = bins[heights == np.repeat(height, length)]
    first = tops[np.searchsorted(tops, start)]
    lasts = tops[np.diff(tops, append=-1) != 1]  # of each plateau: a run's end is one too, as the next bin is outside
    last = lasts[np.searchsorted(lasts, first)]
    long = length >= min_length
    return PeakRuns(start[long], end[long], (first[long] + last[long]) // 2, height[long])


def _bridged(inside: NDArray[np.bool_], unknown: NDArray[np.bool_], max_gap: int) -> NDArray[np.bool_]:
    """Return bins that are inside, or in a gap of at most so many bins, all known, between two that are."""
    start, end = _runs(inside)
    n_unknown = np.concatenate([[0], np.cumsum(unknown)])
    first, last = end[:-1], start[1:]  # of each gap
    narrow = (last - first <= max_gap) & (n_unknown[last] == n_unknown[first])
    change = np.zeros(len(inside) + 1, dtype=np.int64)
    change[first[narrow]], change[last[narrow]] = 1, -1
    filled: NDArray[np.bool_] = inside | (np.cumsum(change)[:-1] > 0)
    return filled


def _runs(inside: NDArray[np.bool_]) -> tuple[Bins, Bins]:
    """Return where the runs of true bins start and end."""
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    return edges[::2], edges[1::2]


def _floats(*arrays: ArrayLike) -> list[Array]:
    return [np.asarray(array, dtype=np.float64) for array in arrays]
