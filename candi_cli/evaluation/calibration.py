"""Whether predicted distributions mean what they say: probability integral transforms and central intervals.

Everything starts from the cumulative probabilities of what was observed, below and at it (`distributions.Cumulative`).

The instrument for counts is the non-randomised probability integral transform (PIT) of Czado, Gneiting & Held (2009).
The coverage of central intervals is not: a perfect negative binomial of mean 1 and n = 2 has an interval error of 0.29,
because an interval of whole counts holds more than its level, while its PIT error is near 0; an over-confident forecast
can even have a smaller interval error than the perfect one. For continuous predictions both are right.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from candi_cli.evaluation.distributions import Cumulative

Array = NDArray[np.float64]
PIT_LEVELS = np.linspace(0, 1, 21)
INTERVAL_LEVELS = np.linspace(0.05, 0.95, 19)
_CHUNK = 1 << 16  # entries at a time: they stay in the processor's cache


def pit_curve(cumulative: Cumulative, levels: ArrayLike = PIT_LEVELS) -> Array:
    """Return the mean over observations of their PIT's distribution function at each level.

    Of one observation y, that function rises linearly from 0 at F(y-) to 1 at F(y), or jumps there if they are equal.
    The mean is the level itself when the predicted distributions are right.

    Parameters
    ----------
    cumulative : each of shape (L,)
    levels : shape (C,), in [0, 1]
    """
    below, at = (np.asarray(part, dtype=np.float64).ravel() for part in cumulative)
    levels = np.asarray(levels, dtype=np.float64)
    if not len(at):
        return np.full(len(levels), np.nan)
    total = np.zeros(len(levels))
    for start in range(0, len(at), _CHUNK):
        low, high = below[start : start + _CHUNK], at[start : start + _CHUNK]
        jump = high - low < np.finfo(np.float64).tiny  # also where the inverse of the width would overflow
        per_width = 1 / np.where(jump, 1.0, high - low)
        for number, level in enumerate(levels):
            risen = np.clip((level - low) * per_width, 0, 1)
            risen[jump] = level >= high[jump]
            total[number] += risen.sum()
    return total / len(at)


def pit_error(cumulative: Cumulative) -> float:
    """Return the mean absolute distance of the PIT curve from the diagonal on a grid of 21 levels, 0 .. 0.5.

    NaN when there are no observations.

    Parameters
    ----------
    cumulative : each of shape (L,)
    """
    return curve_error(pit_curve(cumulative), PIT_LEVELS)


def critical_levels(cumulative: Cumulative) -> Array:
    """Return for each observation the level of the narrowest central interval that holds it, c*.

    The central interval of level c reaches from the (1 - c) / 2 to the (1 + c) / 2 quantile; an observation lies in
    it if and only if c >= c* = max(0, 1 - 2 F(y), 2 F(y-) - 1). So one evaluation of F answers for all levels.

    Parameters
    ----------
    cumulative : each of shape (L,)
    """
    below, at = (np.asarray(part, dtype=np.float64) for part in cumulative)
    return np.maximum(0, np.maximum(1 - 2 * at, 2 * below - 1))


def coverage(critical: ArrayLike, levels: ArrayLike = INTERVAL_LEVELS) -> Array:
    """Return the fraction of observations inside their central interval of each level; NaN when there are none.

    Parameters
    ----------
    critical : shape (L,), as `critical_levels` returns them
    levels : shape (C,), in [0, 1]
    """
    ordered = np.sort(np.asarray(critical, dtype=np.float64).ravel())
    levels = np.asarray(levels, dtype=np.float64)
    if not len(ordered):
        return np.full(len(levels), np.nan)
    return np.searchsorted(ordered, levels, side="right") / len(ordered)


def interval_error(cumulative: Cumulative) -> float:
    """Return the mean absolute distance of coverage from its level, over 0.05, 0.10 .. 0.95.

    Not to be used to judge predictions of counts; see the top of this module.

    Parameters
    ----------
    cumulative : each of shape (L,)
    """
    return curve_error(coverage(critical_levels(cumulative)), INTERVAL_LEVELS)


def curve_error(curve: ArrayLike, levels: ArrayLike) -> float:
    """Return the mean absolute distance of a curve from its levels.

    Parameters
    ----------
    curve, levels : shape (C,)
    """
    return float(np.abs(np.asarray(curve) - np.asarray(levels)).mean())
