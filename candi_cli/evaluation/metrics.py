"""Agreement of a predicted track with an observed one, in float64.

A score that does not exist is NaN, never 0: correlations with a constant track, R2 of a constant observed track, and
anything of an empty one. NaN in a track makes every score of it NaN; leave out what was not measured first.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata


def pearson(observed: ArrayLike, predicted: ArrayLike) -> float:
    """Return Pearson's correlation; NaN if either track is constant or has fewer than two bins.

    Parameters
    ----------
    observed, predicted : shape (L,)
    """
    one, other = _pair(observed, predicted)
    if len(one) < 2 or _is_constant(one) or _is_constant(other):
        return float("nan")
    one, other = _direction(one), _direction(other)
    return float(np.clip((one * other).sum(), -1, 1))


def spearman(observed: ArrayLike, predicted: ArrayLike) -> float:
    """Return Spearman's correlation, ties having their mean rank; NaN where `pearson` is.

    Parameters
    ----------
    observed, predicted : shape (L,)
    """
    one, other = _pair(observed, predicted)
    if np.isnan(one).any() or np.isnan(other).any():
        return float("nan")
    return pearson(rankdata(one), rankdata(other))


def mse(observed: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean squared error, NaN of an empty track.

    Parameters
    ----------
    observed, predicted : shape (L,), in the same units
    """
    one, other = _pair(observed, predicted)
    return float(np.square(one - other).mean()) if len(one) else float("nan")


def r2(observed: ArrayLike, predicted: ArrayLike) -> float:
    """Return the coefficient of determination, 1 - MSE / variance of the observed; NaN if that is constant.

    It is not the square of Pearson's correlation: a wrong scale lowers it, without a lower bound.

    Parameters
    ----------
    observed, predicted : shape (L,), in the same units
    """
    one, other = _pair(observed, predicted)
    if len(one) < 2 or _is_constant(one):
        return float("nan")
    return float(1 - np.square(one - other).sum() / np.square(one - one.mean()).sum())


def _pair(observed: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.asarray(observed, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"tracks of shape {one.shape} and {other.shape}; both must be (L,)")
    return one, other


def _is_constant(track: NDArray[np.float64]) -> bool:
    return bool((track == track[0]).all())


def _direction(track: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the centred track, of length 1; scaled first, so that no square over- or underflows."""
    centred = track - track.mean()
    centred /= np.abs(centred).max()
    return centred / np.sqrt(np.square(centred).sum())
