"""What a model must beat, from the same stores: the average of other cell types, and the input itself.

Whatever a rival needs to become a prediction (its scale, its bandwidth, the dispersion around it) is fitted to the very
truth that it is compared with. So each is as good as it can be, and better than anyone could make it beforehand.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.evaluation.baselines import (
    best_signal_smoothing,
    best_smoothing,
    fit_marginal,
    fit_matched_track,
    quantile_matched,
    smoothed,
)
from candi_cli.evaluation.distributions import gaussian_log_pdf
from candi_cli.judging.grid import Grid
from candi_cli.judging.tracks import JudgedTrack, Observed, read_folds
from candi_cli.store import Store

AVERAGE, MATCHED, SMOOTH_AVERAGE = "average of others", "average, quantile-matched", "average, smoothed"
COPY, SMOOTH_COPY, MARGINAL = "input", "input, smoothed", "best marginal"
RIVALS = (AVERAGE, MATCHED, SMOOTH_AVERAGE, COPY, SMOOTH_COPY, MARGINAL)
_PIECE_BINS = 1 << 18
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Others(NamedTuple):
    """The other biosamples that have an assay.

    Attributes
    ----------
    mean : shape (L,): of counts reads per bin and million reads, of signal arcsinh(-log10 p), of peaks the share of
        biosamples with one; NaN where none was measured
    variance : of -log10 p over biosamples, shape (L,), for signal; None for the rest
    active : in how many biosamples the signal is above 2, and in how many it was measured, shape (2, L)
    quantiles : shape (L,), the mean over biosamples of their ordered values
    names : of the biosamples
    """

    mean: Array
    variance: Array | None
    active: NDArray[np.int64]
    quantiles: Array
    names: tuple[str, ...]


class Rival(NamedTuple):
    """A baseline as a prediction of one track.

    Attributes
    ----------
    expected : in the units of what is observed, shape (L,); NaN where it predicts nothing
    log_likelihood : of each bin's observation, in nats, shape (L,)
    """

    expected: Array
    log_likelihood: Array


class _Spread(NamedTuple):
    """The mean of tracks so far, and the sum of squares about it (Welford 1962, Technometrics 4, 419): shape (L,)."""

    mean: Array
    squares: Array

    @classmethod
    def empty(cls, n_bins: int) -> "_Spread":
        return cls(np.zeros(n_bins), np.zeros(n_bins))

    def add(self, values: Array, measured: Mask, n: NDArray[np.int64]) -> None:
        """Add a track where it was measured, in n tracks by now: values and n of shape (measured bins,)."""
        step = values - self.mean[measured]
        self.mean[measured] += step / n
        self.squares[measured] += step * (values - self.mean[measured])


ACTIVE = 2.0  # -log10 p above which a bin counts as active: p < 0.01


def others_of(
    stores: Sequence[Store], biosample: str, assay: str, kind: str, grid: Grid, kept: Mask | None = None
) -> Others | None:
    """Return what the other biosamples say of an assay, each once; None where no other has it.

    One track is held at a time.

    Parameters
    ----------
    kept : shape (L,), the bins that are not excluded, outside of which nothing counts as measured; all where None
    """
    total, ordered = np.zeros((2, grid.n_bins))
    active = np.zeros((2, grid.n_bins), dtype=np.int64)
    spread = _Spread.empty(grid.n_bins) if kind == "signal" else None
    names: list[str] = []
    for store in stores:
        observed = Observed(store)
        for other in store.biosamples:
            if other in (biosample, *names) or kind not in observed.kinds(other, assay):
                continue
            depth = store.experiment(other, assay).covariates.depth
            if kind == "counts" and not depth:
                continue
            values = observed.read(other, assay, kind, grid).astype(np.float64)
            measured = np.isfinite(values) if kept is None else np.isfinite(values) & kept
            if not measured.any():
                continue
            known = values[measured] / (depth / 1e6 if kind == "counts" and depth else 1)
            total[measured] += known
            # np.quantile is for a few quantiles: it looks for each of them anew
            places = np.linspace(0, len(known) - 1, grid.n_bins)
            ordered += np.interp(places, np.arange(len(known)), np.sort(known))
            active[1] += measured
            if spread is not None:
                active[0, measured] += known > np.arcsinh(ACTIVE)
                spread.add(np.sinh(known), measured, active[1, measured])
            names.append(other)
    if not names:
        return None
    n = active[1]
    mean = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    variance = spread.squares / np.maximum(n, 1) if spread is not None and len(names) > 1 else None
    return Others(mean, variance, active, ordered / len(names), tuple(names))


def own_input(store: Store, biosample: str, assay: str, folds: Sequence[int] | None, grid: Grid) -> Array:
    """Return the reads that the model saw of an experiment: shape (L,).

    Parameters
    ----------
    folds : those that were the input; all reads where None
    """
    observed = np.empty(grid.n_bins)
    for piece in grid.pieces(_PIECE_BINS):
        place = (piece.region.chrom, piece.first, piece.last)
        if folds is None:
            observed[piece.place] = store.read(biosample, assay, "counts", *place)
        else:
            observed[piece.place] = read_folds(store, biosample, assay, folds, *place)
    return observed


def rivals_of(track: JudgedTrack, others: Others | None, copy: Array | None) -> dict[str, Rival]:
    """Return the baselines of a track of counts or signal, by name, in the order of `RIVALS`.

    Parameters
    ----------
    copy : the reads of the track's own experiment that the model saw; None where it saw none
    """
    found: dict[str, Rival] = {}
    if track.kind == "peaks":
        return found
    make = _of_counts if track.kind == "counts" else _of_signal
    if others is not None:
        found[AVERAGE] = make(track, others.mean)
        known = np.isfinite(others.mean)
        matched = np.full(track.grid.n_bins, np.nan)
        matched[known] = quantile_matched(others.mean[known], others.quantiles)
        found[MATCHED] = make(track, matched)
        found[SMOOTH_AVERAGE] = _smoothed(track, others.mean)
    if copy is not None and track.kind == "counts":
        found[COPY] = make(track, copy)
        found[SMOOTH_COPY] = _smoothed(track, copy)
    found[MARGINAL] = _marginal(track)
    return found


def _of_counts(track: JudgedTrack, rival: Array) -> Rival:
    known = track.known & np.isfinite(rival)
    expected, likelihood = np.full((2, track.grid.n_bins), np.nan)
    if known.any() and rival[known].sum() > 0:
        observed, values = track.observed[known].astype(np.float64), rival[known]
        scaled, ratio = fit_matched_track(observed, values)
        expected[known] = np.exp(scaled.log_mean(values, ratio))
        likelihood[known] = scaled.log_likelihood(observed, values, ratio)
    return Rival(expected, likelihood)


def _of_signal(track: JudgedTrack, rival: Array) -> Rival:
    known = track.known & np.isfinite(rival)
    likelihood = np.full(track.grid.n_bins, np.nan)
    if known.any():
        error = track.observed[known] - rival[known]
        sd = max(float(np.sqrt(np.square(error).mean())), 1e-6)
        likelihood[known] = gaussian_log_pdf(error, 0.0, sd)
    return Rival(np.where(known, rival, np.nan), likelihood)


def _smoothed(track: JudgedTrack, rival: Array) -> Rival:
    """Return the rival smoothed by the bandwidth that suits the truth best; gaps are taken as 0 while smoothing."""
    known = track.known & np.isfinite(rival)
    filled, edges = np.where(np.isfinite(rival), rival, 0.0), track.grid.edges
    if not filled[known].any():
        return Rival(np.full(track.grid.n_bins, np.nan), np.full(track.grid.n_bins, np.nan))
    observed = np.where(known, track.observed, 0).astype(np.float64)
    if track.kind == "counts":
        sd_bins = best_smoothing(observed, filled, edges, None, known=known).sd_bins
        return _of_counts(track, np.where(known, smoothed(filled, sd_bins, edges), np.nan))
    sd_bins = best_signal_smoothing(observed, filled, edges, known=known)
    return _of_signal(track, np.where(known, smoothed(filled, sd_bins, edges), np.nan))


def _marginal(track: JudgedTrack) -> Rival:
    known = track.known
    expected, likelihood = np.full((2, track.grid.n_bins), np.nan)
    observed = track.observed[known].astype(np.float64)
    if not len(observed):
        return Rival(expected, likelihood)
    if track.kind == "counts":
        marginal = fit_marginal(observed)
        expected[known] = np.exp(marginal.log_rate)
        likelihood[known] = marginal.log_likelihood(observed)
    else:
        expected[known] = observed.mean()
        likelihood[known] = gaussian_log_pdf(observed, observed.mean(), max(float(observed.std()), 1e-6))
    return Rival(expected, likelihood)
