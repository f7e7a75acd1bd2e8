"""Which of two negative binomial counts is the higher: the log odds of P(Yi > Yj) + P(Yi = Yj) / 2, in float64.

Both tails are sums of positive terms over k, of P(Yi = k) [P(Yj < k) + P(Yj = k) / 2] and of its mirror image, so that
the smaller keeps its digits where the larger has become 1: the log odds do not saturate. The probabilities follow from
P(k + 1) = P(k) (n + k) / (k + 1) (1 - p) and P(0) = p^n; a pair is done when what remains of the smaller tail is a
billionth of it.

Where P(0) is below e^-650, or where 2,048 terms do not end the sum, both counts are far above 0 as a rule. There a
count is taken for a gamma variable of its mean and variance, and the comparison of two such is a regularised incomplete
beta function. With means of 300 to 5,000 the probability is then within 0.001 of the sum, and its log odds within 5 %
where it is above 0.001; in the far tails they are approximate (a third off at 1e-10).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincc, expit

Array = NDArray[np.float64]
_LEAST_LOG_ZERO = -650.0  # below it P(0) nears the least number of float64
_MOST_TERMS = 2048
_TOLERANCE = 1e-9  # of the smaller tail, left out of its sum
_LEAST = 1e-300  # a tail that underflows is taken for this
_CHUNK = 1 << 15  # pairs at a time: near the processor, and enough of them left where sums are long


def log_odds_of_higher(log_mean: Array, log_dispersion: Array) -> Array:
    """Return the log odds that the first of two counts is the higher, a tie counting half; antisymmetric in the two.

    Parameters
    ----------
    log_mean, log_dispersion : shape (2, pairs), natural logs, of reads per bin and of n
    """
    log_mean = np.clip(log_mean, -600, 300)
    log_dispersion = np.clip(log_dispersion, -300, 36)  # beyond e^36 it is Poisson to the last digit
    odds = np.empty(log_mean.shape[1])
    for start in range(0, len(odds), _CHUNK):
        part = slice(start, start + _CHUNK)
        odds[part] = _summed_or_gamma(log_mean[:, part], log_dispersion[:, part])
    return odds


def _summed_or_gamma(log_mean: Array, log_dispersion: Array) -> Array:
    log_ratio, n = log_mean - log_dispersion, np.exp(log_dispersion)
    log_zero = -n * np.logaddexp(0, log_ratio)
    odds = np.full(log_mean.shape[1], np.nan)
    fits = np.flatnonzero((log_zero > _LEAST_LOG_ZERO).all(axis=0))
    odds[fits] = _summed(np.exp(log_zero[:, fits]), expit(log_ratio[:, fits]), n[:, fits])
    rest = np.flatnonzero(np.isnan(odds))
    if len(rest):
        odds[rest] = _gamma_log_odds(log_mean[:, rest], n[:, rest])
    return odds


def _summed(term: Array, rest: Array, n: Array) -> Array:
    """Return the log odds by summing over counts, NaN where the most terms do not do.

    Parameters
    ----------
    term : shape (2, pairs), P(0); rest : 1 - p; n : dispersion
    """
    odds = np.full(term.shape[1], np.nan)
    pairs = np.arange(term.shape[1])
    growth = (n - 1) * rest  # P(k + 1) / P(k) = rest + growth / (k + 1)
    below, tail = np.zeros_like(term), np.zeros_like(term)  # P(Y < k); the sums so far
    k = 0
    while k < _MOST_TERMS and len(pairs):
        reach = min(k + max(4, k // 8), _MOST_TERMS)
        term = _add_terms(range(k, reach), term, rest, growth, below, tail)
        k = reach
        done = _is_done(term, np.maximum(growth / (k + 1) + rest, rest), tail)
        ended = done.any(axis=0)
        odds[pairs[ended]] = _log_odds(tail[:, ended], done[:, ended])
        left = np.flatnonzero(~ended)
        pairs = pairs[left]
        term, rest, growth, below, tail = (part.take(left, axis=1) for part in (term, rest, growth, below, tail))
    return odds


def _add_terms(counts: range, term: Array, rest: Array, growth: Array, below: Array, tail: Array) -> Array:
    """Add the terms of these counts to the sums, in place, and return P(k) of the next count."""
    space = np.empty_like(term)
    for k in counts:
        np.multiply(term, 0.5, out=space)
        below += space
        np.multiply(term, below[::-1], out=space)
        tail += space
        np.multiply(term, 0.5, out=space)
        below += space
        np.multiply(growth, 1 / (k + 1), out=space)
        space += rest
        term *= space
    return term


def _is_done(term: Array, ratio: Array, tail: Array) -> NDArray[np.bool_]:
    """Return which tails have their digits and are the smaller: the other then is 1 less it.

    All terms to come add up to at most term / (1 - ratio), where `ratio` bounds that of successive terms.
    """
    left = term <= _TOLERANCE * tail * (1 - ratio)  # false where ratio > 1
    return left & (ratio < 1) & (tail < 0.5 + 1e-6)


def _log_odds(tail: Array, done: NDArray[np.bool_]) -> Array:
    smaller = np.clip(tail, _LEAST, 0.6)
    log = np.log(smaller)
    first, second = log - np.log1p(-smaller)
    both = done.all(axis=0)
    odds: Array = np.where(both, log[0] - log[1], np.where(done[0], first, -second))
    odds[np.abs(odds) < 10 * _TOLERANCE] = 0  # the same distribution twice is a tie
    return odds


def _gamma_log_odds(log_mean: Array, n: Array) -> Array:
    """Return the log odds for gamma variables of the same means and variances."""
    shape = 1 / (1 / n + np.exp(-log_mean))
    log_rate = np.log(shape) - log_mean
    share = expit(log_rate[0] - log_rate[1])
    above, under = betaincc(*shape, share), betainc(*shape, share)
    return np.log(np.maximum(above, _LEAST)) - np.log(np.maximum(under, _LEAST))
