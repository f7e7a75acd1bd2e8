"""Scores of one predicted track with standard errors, its best bins, and what its uncertainty says of its errors.

The standard error is that of a delete-one-block jackknife over genomic blocks: adjacent bins are alike, so that an
error that takes bins for independent is many times too small. Of a block no more than its moments has to be known, so
no bin is read again for a block that is left out.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from candi_cli.evaluation.metrics import mse, pearson, r2
from candi_cli.evaluation.partitions import quantile_groups

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
NAN = float("nan")


class Score(NamedTuple):
    """A score and its standard error.

    Attributes
    ----------
    value, se : NaN where they do not exist
    n : number of bins
    note : why value or se is NaN, else empty
    """

    value: float
    se: float
    n: int
    note: str = ""


class TrackScores(NamedTuple):
    """Scores of one track."""

    mse: Score
    pearson: Score
    spearman: Score
    r2: Score


class CvErrors(NamedTuple):
    """Errors of bins in groups of rising coefficient of variation; each of shape (K,), but for `spearman`.

    Attributes
    ----------
    cv : median of the group
    mean_absolute_error, rmse : in the units of the track; NaN in a group without bins
    n : bins
    spearman : correlation of the coefficient of variation with the absolute error, over bins; NaN if one is constant
    """

    cv: Array
    mean_absolute_error: Array
    rmse: Array
    n: NDArray[np.int64]
    spearman: float


class Missed(NamedTuple):
    """Observed peaks that a predicted interval does not reach, and whether the prediction was unsure there.

    Attributes
    ----------
    missed : shape (L,), bins of the peaks whose observed value is above the upper bound
    n, n_above, n_below : bins of the peaks; of these, above the upper and below the lower bound
    flagged_missed : share of missed bins that are flagged; flagged_found, of the peaks' other bins
    flagged : share of all bins that are flagged: what to expect if the uncertainty knew nothing of misses
    """

    missed: Mask
    n: int
    n_above: int
    n_below: int
    flagged_missed: float
    flagged_found: float
    flagged: float


class _Order(NamedTuple):
    """A track's bins in order of their values.

    Attributes
    ----------
    bins : shape (L,)
    first : shape (T,), places in `bins` at which a value occurs for the first time
    """

    bins: NDArray[np.intp]
    first: NDArray[np.intp]


class _Moments(NamedTuple):
    """Sums of squares and of products about the means, of all bins but those of each block; each of shape (G,)."""

    xx: Array
    yy: Array
    xy: Array


def track_scores(observed: ArrayLike, predicted: ArrayLike, blocks: ArrayLike) -> TrackScores:
    """Return MSE, Pearson, Spearman and R2 with delete-one-block jackknife standard errors.

    Leaving out a block is exact for MSE, Pearson and R2. For Spearman it is exact to first order in the block's share
    of the bins, and counts what the block does to the ranks of all other bins: with ranks that stay as they are, the
    error can be wrong by a third where blocks differ in level.

    Parameters
    ----------
    observed, predicted : shape (L,), in the same units
    blocks : shape (L,), whole numbers, the same for the bins of one block, such as 1 Mb of a chromosome
    """
    one, other = np.asarray(observed, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    blocks = np.asarray(blocks)
    if one.ndim != 1 or one.shape != other.shape or one.shape != blocks.shape:
        raise ValueError(f"tracks and blocks of shape {one.shape}, {other.shape} and {blocks.shape}; all must be (L,)")
    reason = _no_score(one, other)
    if reason:
        return TrackScores(*(Score(NAN, NAN, len(one), reason) for _ in TrackScores._fields))
    if (np.diff(blocks) < 0).any():
        order = np.argsort(blocks, kind="stable")
        one, other, blocks = one[order], other[order], blocks[order]
    starts = np.flatnonzero(np.diff(blocks, prepend=blocks[0] - 1))
    sizes = np.diff(starts, append=len(one)).astype(np.float64)
    errors = _rest(np.add.reduceat(np.square(one - other), starts))  # (G,), without each block
    r2_rest = 1 - _divide(errors, _squares_of_rest(one, starts, sizes))
    rank_correlation, rank_rest = _rank_correlations(one, other, starts, sizes)
    no_r2 = "the observed track is constant" if _is_constant(one) else ""
    no_correlation = no_r2 or ("the predicted track is constant" if _is_constant(other) else "")
    return TrackScores(
        mse=_score(mse(one, other), _divide(errors, _rest(sizes)), len(one), ""),
        pearson=_score(pearson(one, other), _correlations_of_rest(one, other, starts, sizes), len(one), no_correlation),
        spearman=_score(rank_correlation, rank_rest, len(one), no_correlation),
        r2=_score(r2(one, other), r2_rest, len(one), no_r2),
    )


def jackknife_error(left_out: ArrayLike) -> float:
    """Return the standard error from what an estimate is without each block; NaN with fewer than two blocks.

    Parameters
    ----------
    left_out : shape (G,), the estimate without block g
    """
    left_out = np.asarray(left_out, dtype=np.float64)
    n_blocks = len(left_out)
    if n_blocks < 2:
        return NAN
    return math.sqrt((n_blocks - 1) / n_blocks * float(np.square(left_out - left_out.mean()).sum()))


def mean_with_error(values: ArrayLike, blocks: ArrayLike) -> tuple[float, float]:
    """Return the mean of bins and its delete-one-block jackknife standard error; NaN where they do not exist.

    Parameters
    ----------
    values : shape (L,); blocks : shape (L,), numbers from 0 on of the genomic block of each bin
    """
    values, blocks = np.asarray(values, dtype=np.float64), np.asarray(blocks)
    if not len(values):
        return NAN, NAN
    n = np.bincount(blocks).astype(np.float64)
    sums, sizes = np.bincount(blocks, weights=values)[n > 0].astype(np.float64), n[n > 0]
    if len(sizes) < 2:
        return float(values.mean()), NAN
    return float(values.mean()), jackknife_error(_rest(sums) / _rest(sizes))


def in_top(values: ArrayLike, share: float = 0.01) -> Mask:
    """Return which bins are as high as the n-th highest, n = int(share * L): ties with it are all in.

    So at least n bins are in, and every bin of a track whose lowest value reaches that far; none if n is 0.

    Parameters
    ----------
    values : shape (L,), without NaN
    """
    values = np.asarray(values, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("NaN has no place in an order; leave out what was not measured")
    n = int(share * len(values))
    if not n:
        return np.zeros(len(values), dtype=bool)
    return values >= np.partition(values, len(values) - n)[len(values) - n]


def error_by_cv(observed: ArrayLike, mean: ArrayLike, cv: ArrayLike, n_groups: int = 20) -> CvErrors:
    """Return the error of bins in quantile groups of their predicted coefficient of variation.

    Bins with equal coefficients are in one group, so some groups may be empty. Bins where any of the three is NaN are
    left out.

    Parameters
    ----------
    observed, mean : shape (L,), in the same units
    cv : shape (L,), predicted sd / mean
    """
    known = ~(np.isnan(observed) | np.isnan(mean) | np.isnan(cv))
    error = np.abs(np.asarray(observed, dtype=np.float64)[known] - np.asarray(mean, dtype=np.float64)[known])
    spread = np.asarray(cv, dtype=np.float64)[known]
    ranks = rankdata(spread)
    groups = quantile_groups(ranks, n_groups)
    n = np.bincount(groups, minlength=n_groups)
    ordered, ends = np.sort(spread), np.cumsum(n)
    medians = [_median_of_sorted(ordered[end - size : end]) for size, end in zip(n, ends, strict=True)]
    absolute, squared = (_divide(np.bincount(groups, each, n_groups), n) for each in (error, np.square(error)))
    spearman = pearson(ranks, rankdata(error))
    return CvErrors(np.array(medians), absolute, np.sqrt(squared), n, spearman)


def missed(
    observed: ArrayLike, lower: ArrayLike, upper: ArrayLike, peaks: ArrayLike, cv: ArrayLike, *, cv_share: float = 0.1
) -> Missed:
    """Return which bins of observed peaks lie above the predicted interval, and how many of them are flagged as unsure.

    A bin is flagged if its coefficient of variation is among the highest `cv_share` of all bins (`in_top`). Uncertainty
    points to misses where the flagged share of missed bins is above that of found ones, and above that of all bins.

    Parameters
    ----------
    observed, lower, upper : shape (L,), in the same units, without NaN
    peaks : shape (L,), true in observed peaks, or in the highest bins of the observed track (`in_top`)
    cv : shape (L,), predicted sd / mean, without NaN
    """
    observed, lower, upper = (np.asarray(each, dtype=np.float64) for each in (observed, lower, upper))
    inside = np.asarray(peaks, dtype=bool)
    if not (observed.shape == lower.shape == upper.shape == inside.shape == np.shape(cv)):
        raise ValueError("tracks of unlike shape; all must be (L,)")
    if np.isnan(observed).any() or np.isnan(lower).any() or np.isnan(upper).any():
        raise ValueError("NaN is neither found nor missed; leave out what was not measured or not predicted")
    flags = in_top(cv, cv_share)
    above, below = inside & (observed > upper), inside & (observed < lower)
    return Missed(
        above,
        int(inside.sum()),
        int(above.sum()),
        int(below.sum()),
        _share(flags[above]),
        _share(flags[inside & ~above]),
        _share(flags),
    )


def _no_score(one: Array, other: Array) -> str:
    if not len(one):
        return "no bins"
    return "a track has values that are not numbers" if not (np.isfinite(one) & np.isfinite(other)).all() else ""


def _score(value: float, left_out: Array, n: int, reason: str) -> Score:
    if math.isnan(value):
        return Score(NAN, NAN, n, reason or "fewer than two bins")
    if len(left_out) < 2:
        return Score(value, NAN, n, "a single block has no spread between blocks")
    if np.isnan(left_out).any():
        return Score(value, NAN, n, "without one of its blocks the score does not exist")
    return Score(value, jackknife_error(left_out), n)


def _correlations_of_rest(one: Array, other: Array, starts: NDArray[np.int64], sizes: Array) -> Array:
    """Return Pearson's correlation without each block, shape (G,); NaN where a track is constant there."""
    left = _moments_of_rest(_scaled(one), _scaled(other), starts, sizes)
    product = np.sqrt(left.xx) * np.sqrt(left.yy)
    product[_constant_without(one, starts) | _constant_without(other, starts)] = 0
    return np.clip(_divide(left.xy, product), -1, 1)


def _rank_correlations(one: Array, other: Array, starts: NDArray[np.int64], sizes: Array) -> tuple[float, Array]:
    """Return Spearman's correlation, and without each block, shape (G,), by the influence of its bins.

    With the grades f and g (ranks / L - 1/2), the correlation is a function of the means of f g, f f and g g. A bin
    adds to each its own product, and raises the grades of all bins above it.
    """
    x, y = _order(one), _order(other)
    f, g = _grades(x), _grades(y)
    covariance, var_x, var_y = float((f * g).mean()), float((f * f).mean()), float((g * g).mean())
    if not var_x or not var_y:
        return NAN, np.full(len(sizes), NAN)
    correlation = float(np.clip(covariance / math.sqrt(var_x) / math.sqrt(var_y), -1, 1))
    influence = (f * g + _mean_above(x, g) + _mean_above(y, f) - 3 * covariance) / math.sqrt(var_x) / math.sqrt(var_y)
    for order, grades, variance in ((x, f, var_x), (y, g, var_y)):
        on_variance = grades * grades + 2 * _mean_above(order, grades) - 3 * variance
        influence -= correlation / 2 * on_variance / variance
    left_out = correlation - _divide(np.add.reduceat(influence, starts), len(one) - sizes)
    left_out[_constant_without(one, starts) | _constant_without(other, starts)] = NAN
    return correlation, left_out


def _order(track: Array) -> _Order:
    bins = np.argsort(track)
    ordered = track[bins]
    return _Order(bins, np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])))


def _grades(order: _Order) -> Array:
    """Return each bin's share of bins below it less 1/2, half of its ties counting as below."""
    ends = np.append(order.first[1:], len(order.bins))
    return _to_bins(order, (order.first + ends) / (2 * len(order.bins)) - 0.5)


def _mean_above(order: _Order, values: Array) -> Array:
    """Return for each bin the sum of values of the bins above it and half of that of its ties, over L."""
    sums = np.append(0.0, np.cumsum(values[order.bins]))
    ends = np.append(order.first[1:], len(order.bins))
    return _to_bins(order, (sums[-1] - (sums[order.first] + sums[ends]) / 2) / len(order.bins))


def _to_bins(order: _Order, of_value: Array) -> Array:
    """Return what each distinct value has, shape (T,), in the bins that have the value, shape (L,)."""
    result = np.empty(len(order.bins))
    result[order.bins] = np.repeat(of_value, np.diff(order.first, append=len(order.bins)))
    return result


def _squares_of_rest(track: Array, starts: NDArray[np.int64], sizes: Array) -> Array:
    """Return the sum of squares about their mean of all bins but those of each block; 0 where they are constant."""
    left = _moments_of_rest(track - track.mean(), np.zeros(len(track)), starts, sizes)
    return np.where(_constant_without(track, starts), 0.0, left.xx)


def _moments_of_rest(x: Array, y: Array, starts: NDArray[np.int64], sizes: Array) -> _Moments:
    """Return what is within the other blocks, plus what is between their means: no digits cancel; NaN of one block."""
    moments = np.full((len(_Moments._fields), len(sizes)), NAN)
    mean_x, mean_y = (np.add.reduceat(each, starts) / sizes for each in (x, y))
    repeats = sizes.astype(np.int64)
    x, y = x - np.repeat(mean_x, repeats), y - np.repeat(mean_y, repeats)
    within = np.stack([np.add.reduceat(product, starts) for product in (x * x, y * y, x * y)])
    for block in range(len(sizes) if len(sizes) > 1 else 0):
        n, off_x, off_y = (np.delete(each, block) for each in (sizes, mean_x, mean_y))
        off_x, off_y = off_x - np.average(off_x, weights=n), off_y - np.average(off_y, weights=n)
        between = [(n * product).sum() for product in (off_x * off_x, off_y * off_y, off_x * off_y)]
        moments[:, block] = np.delete(within, block, axis=1).sum(axis=1) + between
    return _Moments(*moments)


def _rest(parts: Array) -> Array:
    """Return for each block the sum over all others: of those before and those after it, so that no digits cancel."""
    before = np.concatenate([[0.0], np.cumsum(parts)[:-1]])
    after = np.concatenate([np.cumsum(parts[::-1])[-2::-1], [0.0]])
    return before + after


def _constant_without(track: Array, starts: NDArray[np.int64]) -> Mask:
    """Return for each block whether all other blocks hold one and the same value; true if there is no other."""
    low, high = np.minimum.reduceat(track, starts), np.maximum.reduceat(track, starts)
    lowest = np.minimum(*_before_and_after(np.minimum, low, np.inf))
    highest = np.maximum(*_before_and_after(np.maximum, high, -np.inf))
    return lowest >= highest


def _before_and_after(extreme: np.ufunc, parts: Array, nothing: float) -> tuple[Array, Array]:
    before = np.concatenate([[nothing], extreme.accumulate(parts)[:-1]])
    after = np.concatenate([extreme.accumulate(parts[::-1])[-2::-1], [nothing]])
    return before, after


def _scaled(track: Array) -> Array:
    """Return the track about its mean, at most 1 from it, so that no square over- or underflows."""
    centred = track - track.mean()
    largest = np.abs(centred).max()
    return centred / largest if largest > 0 else centred


def _is_constant(track: Array) -> bool:
    return bool((track == track[0]).all())


def _divide(top: ArrayLike, bottom: ArrayLike) -> Array:
    """Return the ratio, NaN where the lower part is 0."""
    top, bottom = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    return np.divide(top, bottom, out=np.full(np.broadcast(top, bottom).shape, NAN), where=bottom != 0)


def _median_of_sorted(values: Array) -> float:
    return float(values[(len(values) - 1) // 2] / 2 + values[len(values) // 2] / 2) if len(values) else NAN


def _share(flags: Mask) -> float:
    return float(flags.mean()) if len(flags) else NAN
