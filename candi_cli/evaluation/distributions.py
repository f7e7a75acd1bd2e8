"""The predicted distributions in float64: log-likelihoods and cumulative probabilities.

Counts are negative binomial, parametrised by the logs of mean and dispersion n: variance = mean + mean^2 / n, scipy's
p = n / (n + mean). arcsinh(-log10 p) is Gaussian; as it is never negative and often 0, it may also be read as a normal
censored at 0, where all that lies below has become a point mass. Peaks are Bernoulli, given by their logit.

All parameters broadcast; everything is elementwise.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincc, expit, gammaln, log_ndtr, ndtr

Array = NDArray[np.float64]
_STIRLING_FROM = 100.0  # there gammaln still has 13 digits, and two terms of its series have as many
_SUMMED_TO = 64  # counts to which adding up probabilities is faster than the incomplete beta function
_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class Cumulative(NamedTuple):
    """F(y-) = P(Y < y) and F(y) = P(Y <= y) of observed values; the same where a distribution is continuous."""

    below: Array
    at: Array


def negative_binomial_log_pmf(counts: ArrayLike, log_mean: ArrayLike, log_dispersion: ArrayLike) -> Array:
    """Return log P(Y = counts), in nats.

    Parameters
    ----------
    counts : reads per bin, >= 0
    log_mean, log_dispersion : natural logs, of reads per bin and of n
    """
    y, log_mean, log_dispersion = _floats(counts, log_mean, log_dispersion)
    log_ratio = log_mean - log_dispersion
    excess = _rising_factorial_excess(y, np.exp(log_dispersion), log_dispersion)
    return excess - gammaln(y + 1) + y * log_mean - (np.exp(log_dispersion) + y) * np.logaddexp(0, log_ratio)


def _rising_factorial_excess(y: Array, n: Array, log_n: Array) -> Array:
    """Return gammaln(n + y) - gammaln(n) - y log n, by Stirling's series where the plain form loses its digits."""
    small = np.minimum(n, _STIRLING_FROM)
    plain = gammaln(small + y) - gammaln(small) - y * log_n
    large = np.maximum(n, _STIRLING_FROM)
    total = large + y
    series = (1 / total - 1 / large) / 12 - (total**-3 - large**-3) / 360
    return np.where(n < _STIRLING_FROM, plain, (total - 0.5) * np.log1p(y / large) - y + series)


def negative_binomial_cdf(counts: ArrayLike, log_mean: ArrayLike, log_dispersion: ArrayLike) -> Cumulative:
    """Return P(Y < counts) and P(Y <= counts); their difference is exact in the absolute, not in the far tails.

    Parameters
    ----------
    counts : reads per bin, >= 0
    log_mean, log_dispersion : natural logs, of reads per bin and of n
    """
    y, log_mean, log_dispersion = np.broadcast_arrays(*_floats(counts, log_mean, log_dispersion))
    at, probability = np.empty(y.shape), np.empty(y.shape)
    few = y <= _SUMMED_TO
    at[few], probability[few] = _summed(y[few], np.exp(log_dispersion[few]), log_mean[few] - log_dispersion[few])
    y, log_mean, log_dispersion = y[~few], log_mean[~few], log_dispersion[~few]
    at[~few] = _beta_cdf(y, np.exp(log_dispersion), log_mean - log_dispersion)
    probability[~few] = np.exp(negative_binomial_log_pmf(y, log_mean, log_dispersion))
    return Cumulative(np.clip(at - probability, 0, 1), np.clip(at, 0, 1))


def _summed(y: Array, n: Array, log_ratio: Array) -> tuple[Array, Array]:
    """Return P(Y <= y) and P(Y = y) by the recurrence P(k + 1) = P(k) (n + k) / (k + 1) (1 - p), from P(0) = p^n.

    Sorted by falling y, the entries that a step is still needed for come first.
    """
    order = np.argsort(_SUMMED_TO - y.astype(np.uint8), kind="stable")
    n, rest = n[order], expit(log_ratio[order])
    needed = len(y) - np.searchsorted(y[order][::-1], np.arange(_SUMMED_TO), side="right")
    term = np.exp(-n * np.logaddexp(0, log_ratio[order]))
    total, last = term.copy(), np.empty(len(y))
    for k, left in enumerate(needed):
        last[left : len(term)] = term[left:]
        term = term[:left] * (n[:left] + k) * rest[:left] / (k + 1)
        total[:left] += term
    last[: len(term)] = term
    at, probability = np.empty(len(y)), np.empty(len(y))
    at[order], probability[order] = total, last
    return at, probability


def _beta_cdf(y: Array, n: Array, log_ratio: Array) -> Array:
    """Return P(Y <= y) as the regularised incomplete beta function, of the smaller of p and 1 - p."""
    smaller = expit(-np.abs(log_ratio))
    return np.where(log_ratio > 0, betainc(n, y + 1, smaller), betaincc(y + 1, n, smaller))


def gaussian_log_pdf(values: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Array:
    """Return the log density, in nats, with its constant.

    Parameters
    ----------
    values, mean, sd : in the same units, sd > 0
    """
    values, mean, sd = _floats(values, mean, sd)
    return -0.5 * np.square((values - mean) / sd) - np.log(sd) - _HALF_LOG_TAU


def gaussian_cdf(values: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Cumulative:
    """Return P(Y < values) = P(Y <= values).

    Parameters
    ----------
    values, mean, sd : in the same units, sd > 0
    """
    values, mean, sd = _floats(values, mean, sd)
    at = ndtr((values - mean) / sd)
    return Cumulative(at, at)


def censored_normal_log_likelihood(values: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Array:
    """Return the log density where values > 0, and the log of the point mass P(Y = 0) where they are 0.

    Parameters
    ----------
    values : of max(0, N(mean, sd)), >= 0; mean, sd : of the normal before it is censored, sd > 0
    """
    values, mean, sd = _floats(values, mean, sd)
    return np.where(values > 0, gaussian_log_pdf(values, mean, sd), log_ndtr(-mean / sd))


def censored_normal_cdf(values: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Cumulative:
    """Return P(Y < values) and P(Y <= values), which differ where values are 0.

    Parameters
    ----------
    values : of max(0, N(mean, sd)), >= 0; mean, sd : of the normal before it is censored, sd > 0
    """
    values, mean, sd = _floats(values, mean, sd)
    at = ndtr((values - mean) / sd)
    return Cumulative(np.where(values > 0, at, 0.0), at)


def bernoulli_log_pmf(peaks: ArrayLike, logit: ArrayLike) -> Array:
    """Return log P(Y = peaks), in nats; finite for every finite logit.

    Parameters
    ----------
    peaks : 0 or 1; logit : log odds of 1
    """
    peaks, logit = _floats(peaks, logit)
    return -np.logaddexp(0, np.where(peaks > 0, -logit, logit))


def bernoulli_cdf(peaks: ArrayLike, logit: ArrayLike) -> Cumulative:
    """Return P(Y < peaks) and P(Y <= peaks).

    Parameters
    ----------
    peaks : 0 or 1; logit : log odds of 1
    """
    peaks, logit = _floats(peaks, logit)
    none = expit(-logit)
    return Cumulative(np.where(peaks > 0, none, 0.0), np.where(peaks > 0, 1.0, none))


def _floats(*arrays: ArrayLike) -> list[Array]:
    return [np.asarray(array, dtype=np.float64) for array in arrays]
