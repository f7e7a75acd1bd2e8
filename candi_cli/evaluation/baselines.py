"""What a model must beat: predictors that know nothing but one assay's marginal, its own input, or other biosamples.

The two predictors of counts are negative binomial, and fitted to training counts by likelihood, so that a model is
compared with them in nats. `log_depth` is the natural log of an experiment's depth in any unit, the same when fitting
as when predicting; it may be given for each entry.

The others are tracks: smoothed by a Gaussian kernel, or with the distribution of values of another track. `offsets`,
shape (R + 1,), say where each contiguous region begins in the track, and where the last one ends.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize
from scipy.special import digamma, expit
from scipy.stats import rankdata

from candi_cli.evaluation.distributions import negative_binomial_log_pmf

Array = NDArray[np.float64]
LOG_DISPERSION_BOUNDS = (-10.0, 12.0)
BANDWIDTHS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # in bins
_LOG_PSEUDO_COUNT_BOUNDS = (-14.0, 14.0)
_FITTED_BINS = 100_000  # two parameters are then known to 1 %, and a bandwidth takes a second


class Marginal(NamedTuple):
    """The same distribution in every bin, at a mean that is proportional to depth.

    Attributes
    ----------
    log_rate : natural log of reads per bin at a log depth of 0
    log_dispersion : natural log of n
    """

    log_rate: float
    log_dispersion: float

    def log_mean(self, log_depth: ArrayLike = 0.0) -> Array:
        """Return the log of the expected reads per bin at a depth."""
        return self.log_rate + np.asarray(log_depth, dtype=np.float64)

    def log_likelihood(self, counts: ArrayLike, log_depth: ArrayLike = 0.0) -> Array:
        """Return the log-likelihood of each count, in nats."""
        return negative_binomial_log_pmf(counts, self.log_mean(log_depth), self.log_dispersion)


class ScaledTrack(NamedTuple):
    """A track, such as the thinned input itself, taken for the expected counts: (track + pseudo-count) * ratio.

    Attributes
    ----------
    pseudo_count : in the units of the track
    log_dispersion : natural log of n
    """

    pseudo_count: float
    log_dispersion: float

    def log_mean(self, track: ArrayLike, log_ratio: ArrayLike = 0.0) -> Array:
        """Return the log of the expected reads per bin.

        Parameters
        ----------
        track : >= 0; log_ratio : natural log of the depth of what is predicted over that of the track
        """
        return np.log(np.asarray(track, dtype=np.float64) + self.pseudo_count) + np.asarray(log_ratio)

    def log_likelihood(self, counts: ArrayLike, track: ArrayLike, log_ratio: ArrayLike = 0.0) -> Array:
        """Return the log-likelihood of each count, in nats."""
        return negative_binomial_log_pmf(counts, self.log_mean(track, log_ratio), self.log_dispersion)


class Smoothing(NamedTuple):
    """A smoothed track as a predictor of counts.

    Attributes
    ----------
    sd_bins : of the Gaussian kernel
    scaled : what turns the smoothed track into a negative binomial
    """

    sd_bins: float
    scaled: ScaledTrack


def fit_marginal(counts: ArrayLike, log_depth: ArrayLike = 0.0) -> Marginal:
    """Fit the marginal of one assay by maximum likelihood.

    An assay without any read gets the rate of half a read in all of its bins.

    Parameters
    ----------
    counts : shape (K,), training counts of bins; log_depth : of each, or of all
    """
    (y, offset), weight = _tally(counts, log_depth)
    reads, exposure = float((weight * y).sum()), float((weight * np.exp(offset)).sum())
    half_a_read = float(np.log(0.5 / exposure))
    start = float(np.log(max(reads, 0.5) / exposure))

    def predict(log_rate: float) -> tuple[Array, Array]:
        return log_rate + offset, np.ones_like(offset)

    return Marginal(*_maximise(y, weight, predict, start, (half_a_read, start + 30)))


def fit_scaled_track(counts: ArrayLike, track: ArrayLike, log_ratio: ArrayLike = 0.0) -> ScaledTrack:
    """Fit pseudo-count and dispersion of a track that is to predict counts, by maximum likelihood.

    Parameters
    ----------
    counts : shape (K,), training counts of bins; track : shape (K,), >= 0, what predicts them
    log_ratio : natural log of the depth of the counts over that of the track, of each or of all
    """
    (y, base, offset), weight = _tally(counts, track, log_ratio)

    def predict(log_pseudo_count: float) -> tuple[Array, Array]:
        mean = base + np.exp(log_pseudo_count)
        return np.log(mean) + offset, np.exp(log_pseudo_count) / mean

    start = float(np.log(0.1 * np.average(base, weights=weight) + 1e-3))
    log_pseudo_count, log_dispersion = _maximise(y, weight, predict, start, _LOG_PSEUDO_COUNT_BOUNDS)
    return ScaledTrack(float(np.exp(log_pseudo_count)), log_dispersion)


def fit_matched_track(counts: ArrayLike, track: ArrayLike) -> tuple[ScaledTrack, float]:
    """Fit pseudo-count, dispersion and scale of a track, by maximum likelihood among those of the counts' total.

    With a scale that is given, as in `fit_scaled_track`, a pseudo-count adds reads to those that were there.

    Parameters
    ----------
    counts : shape (K,), training counts of bins; track : shape (K,), >= 0 and not all 0, what predicts them

    Returns
    -------
    the track, and the log_ratio that it takes
    """
    (y, base), weight = _tally(counts, track)
    mean_counts = max(float(np.average(y, weights=weight)), 0.5 / float(weight.sum()))
    mean_track = float(np.average(base, weights=weight))

    def predict(location: float) -> tuple[Array, Array]:
        share = expit(location)  # of the reads that are spread evenly
        mean = mean_counts * ((1 - share) * base / mean_track + share)
        return np.log(mean), mean_counts * share * (1 - share) * (1 - base / mean_track) / mean

    location, log_dispersion = _maximise(y, weight, predict, -2.0, _LOG_PSEUDO_COUNT_BOUNDS)
    pseudo_count = mean_track * float(np.exp(location))
    return ScaledTrack(pseudo_count, log_dispersion), float(np.log(mean_counts / (mean_track + pseudo_count)))


def mean_of_others(tracks: ArrayLike) -> Array:
    """Return for each biosample the mean of the tracks of all others, in each bin.

    Parameters
    ----------
    tracks : shape (B, ...), NaN where a biosample was not measured

    Returns
    -------
    shape (B, ...), NaN where no other biosample was measured
    """
    tracks = np.asarray(tracks, dtype=np.float64)
    measured = np.isfinite(tracks)
    known = np.where(measured, tracks, 0.0)
    means = np.full(tracks.shape, np.nan)
    for row in range(len(tracks)):  # not by subtraction from the total: no trace of the own value may be left
        others = np.arange(len(tracks)) != row
        n = measured[others].sum(axis=0)
        means[row] = np.where(n > 0, known[others].sum(axis=0) / np.maximum(n, 1), np.nan)
    return means


def smoothed(track: ArrayLike, sd_bins: float, offsets: ArrayLike | None = None) -> Array:
    """Return the track smoothed by a Gaussian kernel within each contiguous region; as it is where the sd is 0.

    A region is mirrored at its ends, so that its sum stays what it is, and no region hears of another.

    Parameters
    ----------
    track : shape (L,), without NaN; offsets : shape (R + 1,), all of the track is one region if left out
    """
    track = np.asarray(track, dtype=np.float64)
    if sd_bins <= 0:
        return track.copy()
    edges = np.array([0, len(track)]) if offsets is None else np.asarray(offsets, dtype=np.int64)
    if edges[0] != 0 or edges[-1] != len(track):
        raise ValueError(f"regions of bins {edges[0]} to {edges[-1]}; the track has {len(track)}")
    result = np.empty(len(track))
    for start, end in pairwise(edges):
        if end > start:
            result[start:end] = gaussian_filter1d(track[start:end], sd_bins, mode="reflect")
    return result


def best_smoothing(
    counts: ArrayLike,
    track: ArrayLike,
    offsets: ArrayLike | None = None,
    log_ratio: float | None = 0.0,
    *,
    known: ArrayLike | None = None,
    bandwidths: Sequence[float] = BANDWIDTHS,
) -> Smoothing:
    """Return the bandwidth at which the smoothed track predicts training counts with the highest likelihood.

    The track has to be other reads than the counts, such as the thinned input and the reads thinned away: a track that
    holds what it predicts is best left as it is. At most 100,000 bins, evenly spread, are used in fitting.

    Parameters
    ----------
    counts : shape (L,), training counts; track : shape (L,), >= 0, what predicts them
    log_ratio : natural log of the depth of the counts over that of the track; None: as `fit_matched_track` finds it
    known : shape (L,), in which bins there are counts to be predicted; default: all
    """
    counts = np.asarray(counts, dtype=np.float64)
    chosen = np.arange(len(counts)) if known is None else np.flatnonzero(known)
    chosen = chosen[:: max(1, -(-len(chosen) // _FITTED_BINS))]
    best, highest = None, -np.inf
    for sd_bins in bandwidths:
        smooth = smoothed(track, sd_bins, offsets)[chosen]
        if log_ratio is None:
            scaled, ratio = fit_matched_track(counts[chosen], smooth)
        else:
            scaled, ratio = fit_scaled_track(counts[chosen], smooth, log_ratio), log_ratio
        likelihood = float(scaled.log_likelihood(counts[chosen], smooth, ratio).sum())
        if best is None or likelihood > highest:
            best, highest = Smoothing(float(sd_bins), scaled), likelihood
    if best is None:
        raise ValueError("no bandwidth to choose from")
    return best


def best_signal_smoothing(
    observed: ArrayLike,
    track: ArrayLike,
    offsets: ArrayLike | None = None,
    *,
    known: ArrayLike | None = None,
    bandwidths: Sequence[float] = BANDWIDTHS,
) -> float:
    """Return the bandwidth, in bins, at which the smoothed track predicts observed signal with the highest likelihood.

    It is that of a Gaussian around the smoothed track, of one sd in all bins: highest where the squared error is least.

    Parameters
    ----------
    observed : shape (L,), training signal; track : shape (L,), in the same units, another experiment than the observed
    known : shape (L,), in which bins there is signal to be predicted; default: all
    """
    observed = np.asarray(observed, dtype=np.float64)
    chosen = np.ones(len(observed), dtype=np.bool_) if known is None else np.asarray(known, dtype=np.bool_)
    errors = [float(np.square(observed - smoothed(track, sd, offsets))[chosen].sum()) for sd in bandwidths]
    return float(bandwidths[int(np.argmin(errors))])


def quantile_matched(track: ArrayLike, reference: ArrayLike) -> Array:
    """Return the track with the distribution of a reference: each value becomes the reference's quantile at its rank.

    Equal values share their mean rank, and so stay equal. Between values of the reference, quantiles are on a line; if
    both tracks have L bins and no ties, the result has exactly the reference's values.

    Parameters
    ----------
    track : shape (L,); reference : shape (R,); both without NaN
    """
    ordered = np.sort(np.asarray(reference, dtype=np.float64).ravel())
    if not len(ordered):
        raise ValueError("a reference without bins has no quantiles")
    ranks = rankdata(np.asarray(track, dtype=np.float64))
    places = (ranks - 0.5) * (len(ordered) / max(len(ranks), 1)) - 0.5
    return np.interp(places, np.arange(len(ordered)), ordered)


def _tally(*columns: ArrayLike) -> tuple[list[Array], Array]:
    """Return the distinct rows of equally long columns, and how often each occurs."""
    arrays = [part.ravel() for part in np.broadcast_arrays(*(np.asarray(each, np.float64) for each in columns))]
    if not len(arrays[0]):
        raise ValueError("no training counts to fit to")
    code = np.zeros(len(arrays[0]), dtype=np.int64)
    for array in arrays:
        values, number = np.unique(array, return_inverse=True)
        _, code = np.unique(code * len(values) + number, return_inverse=True)
    _, first, weight = np.unique(code, return_index=True, return_counts=True)
    return [array[first] for array in arrays], weight.astype(np.float64)


def _maximise(
    y: Array,
    weight: Array,
    predict: Callable[[float], tuple[Array, Array]],
    start: float,
    bounds: tuple[float, float],
) -> tuple[float, float]:
    """Return the parameter of `predict` and the log dispersion at which the weighted log-likelihood of y is highest.

    predict : parameter -> log mean of each entry, and its derivative by the parameter
    """

    share = weight / weight.sum()

    def loss(parameters: Array) -> tuple[float, Array]:
        location, log_n = (float(parameter) for parameter in parameters)
        log_mean, slope = predict(location)
        mean, n = np.exp(log_mean), np.exp(log_n)
        by_mean = (y - mean) * n / (n + mean) * slope
        by_dispersion = n * (digamma(n + y) - digamma(n) - np.log1p(mean / n) + (mean - y) / (n + mean))
        value = negative_binomial_log_pmf(y, log_mean, log_n)
        # not `@`: many threads for a sum this small cost more than they save
        total, *gradient = ((share * term).sum() for term in (value, by_mean, by_dispersion))
        return -float(total), -np.array(gradient)

    best = minimize(loss, (start, 0.0), jac=True, method="L-BFGS-B", bounds=(bounds, LOG_DISPERSION_BOUNDS))
    location, log_dispersion = best.x
    return float(location), float(log_dispersion)
