"""The continuous ranked probability score (CRPS) of the predicted distributions, in the units of what was observed.

CRPS = E|Y - y| - E|Y - Y'| / 2 for independent Y, Y' from the forecast F, which is the integral over x of
(F(x) - 1[y <= x])^2: the absolute error where a forecast is certain. It is proper: in the mean no forecast beats the
distribution that the observations come from. All forms here are closed.

Of a negative binomial, E|Y - y| = mean - y + 2 (y F(y-) - T) with T = E[Y; Y < y] = mean F(y-) - y f(y) (1 + mean / n),
and the Gini mean difference G = E|Y - Y'| is read from a table: with |k| = 1/pi times the integral of
(1 - cos kt) / (1 - cos t) over 0 .. pi, and |E exp(itY)|^2 = (1 + a sin^2(t/2))^-n, a = 4 mean (1 + mean / n) / n,

    G = 1/pi * integral over 0 .. pi/2 of (1 - (1 + a sin^2 x)^-n) / sin^2 x dx.

After sin^2 x = 1 / (1 + exp(-2v)) the trapezoidal rule converges exponentially: to 1e-12 with 588 nodes for every mean
and n of a model (scipy's hyp2f1, of which G is a multiple, is NaN for n above about 2e4). log G is tabulated once over
log mean and log n; a bicubic spline of it has a relative error below 1e-6, of which a CRPS inherits about as much.

Of Y = max(0, N(mean, sd)), with A(z) the integral of the squared normal distribution function up to z,
A(z) = z Phi(z)^2 + 2 phi(z) Phi(z) - Phi(sqrt(2) z) / sqrt(pi), the CRPS is
sd (A(z) + A(-z) - A(-mean / sd)), z = (y - mean) / sd: that of the normal less what lies below 0.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates, spline_filter
from scipy.optimize import minimize_scalar
from scipy.special import expit, ndtr

from candi_cli.evaluation.distributions import Cumulative, negative_binomial_cdf

Array = NDArray[np.float64]
_TABLE_LIMIT = 20.0  # the table's log mean and log n reach from minus this to this,
_TABLE_USED_TO = 17.0  # but are used to here only: near its edges a spline is less exact
_TABLE_STEP = 1 / 6
_NODE_STEP = 1 / 7
_NODES = np.arange(-54, 30, _NODE_STEP)
_ROWS = 128  # of the integrand at a time: they stay in the processor's cache
_CHUNK = 1 << 16
_SEARCHED_BINS = 100_000  # to find the best scale from
_LOG_FACTOR_LIMIT = 6.0  # of the best scale of counts
_OFFSET_LIMIT = 10.0  # of the best scale of signal, in arcsinh(-log10 p)
_SQRT_PI = math.sqrt(math.pi)


class OracleScaled(NamedTuple):
    """A mean CRPS in two parts: what is left at the best constant scale, and what the wrong scale adds.

    Attributes
    ----------
    crps : of the forecast as it is
    at_best_scale : of the forecast at the scale that is best for what was observed
    scale_error : their difference, >= 0
    scale : the best one: a factor of the mean of counts, or an offset of the mean of arcsinh(-log10 p)
    """

    crps: float
    at_best_scale: float
    scale_error: float
    scale: float


def crps(kind: str, observed: ArrayLike, parameters: Sequence[ArrayLike] | NDArray, *, censored: bool = False) -> Array:
    """Return the CRPS of each bin of one kind of track.

    Parameters
    ----------
    kind : "counts", "signal" or "peaks"
    observed : shape (L,)
    parameters : shape (P, L): log mean and log dispersion; mean and sd; or logit
    censored : read signal as a normal censored at 0
    """
    if kind == "counts":
        return negative_binomial_crps(observed, *parameters)
    if kind == "signal":
        return (censored_normal_crps if censored else gaussian_crps)(observed, *parameters)
    if kind == "peaks":
        return bernoulli_crps(observed, *parameters)
    raise ValueError(f"no CRPS of {kind!r}; counts, signal and peaks have one")


def gaussian_crps(values: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Array:
    """Return the CRPS of a Gaussian; sd / sqrt(pi) in the mean where it is right.

    Parameters
    ----------
    values, mean, sd : in the same units, sd > 0
    """
    values, mean, sd = _floats(values, mean, sd)
    error = values - mean
    z = error / sd
    return error * (2 * ndtr(z) - 1) + sd * (2 * _density(z) - 1 / _SQRT_PI)


def censored_normal_crps(values: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Array:
    """Return the CRPS of max(0, N(mean, sd)).

    Parameters
    ----------
    values : >= 0; mean, sd : of the normal before it is censored, sd > 0
    """
    values, mean, sd = _floats(values, mean, sd)
    edge = -mean / sd
    below = ndtr(edge)
    area = -mean * np.square(below) + sd * (2 * _density(edge) * below - ndtr(math.sqrt(2) * edge) / _SQRT_PI)
    return np.maximum(0, gaussian_crps(values, mean, sd) - area)


def bernoulli_crps(peaks: ArrayLike, logit: ArrayLike) -> Array:
    """Return the CRPS of a Bernoulli forecast, which is its Brier score.

    Parameters
    ----------
    peaks : 0 or 1; logit : log odds of 1
    """
    peaks, logit = _floats(peaks, logit)
    return np.square(expit(np.where(peaks > 0, -logit, logit)))


def negative_binomial_crps(
    counts: ArrayLike, log_mean: ArrayLike, log_dispersion: ArrayLike, *, cumulative: Cumulative | None = None
) -> Array:
    """Return the CRPS of a negative binomial, in reads per bin.

    Parameters
    ----------
    counts : reads per bin, >= 0
    log_mean, log_dispersion : natural logs, of reads per bin and of n
    cumulative : of these counts, from `negative_binomial_cdf`, where it is known already
    """
    y, log_mean, log_n = np.broadcast_arrays(*_floats(counts, log_mean, log_dispersion))
    shape, y, log_mean, log_n = y.shape, y.ravel(), log_mean.ravel(), log_n.ravel()
    scores = np.empty(y.size)
    for start in range(0, y.size, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        each, log_means, log_ns = y[chunk], log_mean[chunk], log_n[chunk]
        if cumulative is None:
            below, at = negative_binomial_cdf(each, log_means, log_ns)
        else:
            below, at = (np.asarray(part, dtype=np.float64).ravel()[chunk] for part in cumulative)
        mean = np.exp(log_means)
        expected_below = mean * below - each * (at - below) * (1 + np.exp(log_means - log_ns))
        gini = negative_binomial_gini(log_means, log_ns)
        scores[chunk] = mean - each + 2 * (each * below - expected_below) - gini / 2
    return np.maximum(0, scores).reshape(shape)


def negative_binomial_gini(log_mean: ArrayLike, log_dispersion: ArrayLike) -> Array:
    """Return the mean absolute difference of two independent counts, from the table, or exactly outside of it.

    Parameters
    ----------
    log_mean, log_dispersion : natural logs, of reads per bin and of n
    """
    log_mean, log_n = np.broadcast_arrays(*_floats(log_mean, log_dispersion))
    place = (np.stack([log_mean.ravel(), log_n.ravel()]) + _TABLE_LIMIT) / _TABLE_STEP
    gini = np.exp(map_coordinates(_gini_table(), place, order=3, prefilter=False, mode="nearest"))
    outside = np.flatnonzero(~(np.maximum(np.abs(log_mean), np.abs(log_n)).ravel() <= _TABLE_USED_TO))
    gini[outside] = exact_gini(log_mean.ravel()[outside], log_n.ravel()[outside])
    return gini.reshape(log_mean.shape)


def exact_gini(log_mean: ArrayLike, log_dispersion: ArrayLike) -> Array:
    """Return the mean absolute difference of two independent counts by numerical integration: exact, but slow.

    Parameters
    ----------
    log_mean, log_dispersion : natural logs, of reads per bin and of n
    """
    log_mean, log_n = np.broadcast_arrays(*_floats(log_mean, log_dispersion))
    sine_squared = expit(2 * _NODES)
    weight = _NODE_STEP / (2 * np.pi * np.cosh(_NODES) * sine_squared)
    mean, n = np.exp(log_mean.ravel()), np.exp(log_n.ravel())
    a = 4 * mean * (1 + mean / n) / n
    gini = np.empty(len(a))
    for start in range(0, len(a), _ROWS):
        rows = slice(start, start + _ROWS)
        rise = -np.expm1(-n[rows, None] * np.log1p(a[rows, None] * sine_squared))
        gini[rows] = (rise * weight).sum(axis=1)
    return gini.reshape(log_mean.shape)


@cache
def _gini_table() -> Array:
    """Return the coefficients of the bicubic spline of log G, over log mean and log n."""
    nodes = np.arange(-_TABLE_LIMIT, _TABLE_LIMIT + _TABLE_STEP / 2, _TABLE_STEP)
    return np.asarray(spline_filter(np.log(exact_gini(nodes[:, None], nodes)), order=3, mode="nearest"))


def oracle_scaled(
    kind: str, observed: ArrayLike, parameters: Sequence[ArrayLike] | NDArray, *, censored: bool = False, seed: int = 0
) -> OracleScaled:
    """Split a mean CRPS into what is left at the best scale, and the error of scale.

    Of counts the scale is a factor of the mean, at the same n. Of signal it is an offset of the mean at the same sd:
    arcsinh makes an offset of a factor of -log10 p, wherever that is not small. It is searched for on a random sample
    of at most 100,000 bins, and judged on all. All NaN without bins.

    Parameters
    ----------
    kind : "counts" or "signal"
    observed : shape (L,)
    parameters : shape (2, L): log mean and log dispersion, or mean and sd
    censored : read signal as a normal censored at 0
    seed : of the sample
    """
    if kind not in ("counts", "signal"):
        raise ValueError(f"{kind!r} have no scale; counts and signal have one")
    observed, location, spread = np.broadcast_arrays(*_floats(observed, *parameters))
    if not observed.size:
        return OracleScaled(*[math.nan] * 4)
    sample = np.arange(observed.size)
    if observed.size > _SEARCHED_BINS:
        sample = np.sort(np.random.default_rng(seed).choice(observed.size, _SEARCHED_BINS, replace=False))
    limit = _LOG_FACTOR_LIMIT if kind == "counts" else _OFFSET_LIMIT

    def mean_crps(shift: float, bins: slice | NDArray[np.int64]) -> float:
        score = crps(kind, observed[bins], (location[bins] + shift, spread[bins]), censored=censored)
        return float(score.mean())

    best = minimize_scalar(mean_crps, bounds=(-limit, limit), args=(sample,), method="bounded")
    every = slice(None)
    plain, scaled = mean_crps(0.0, every), mean_crps(float(best.x), every)
    shift = float(best.x) if scaled < plain else 0.0
    scaled = min(scaled, plain)
    return OracleScaled(plain, scaled, plain - scaled, math.exp(shift) if kind == "counts" else shift)


def _density(z: Array) -> Array:
    return np.exp(-0.5 * np.square(z)) / math.sqrt(2 * math.pi)


def _floats(*arrays: ArrayLike) -> list[Array]:
    return [np.asarray(array, dtype=np.float64) for array in arrays]
