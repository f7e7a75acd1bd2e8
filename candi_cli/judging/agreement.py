"""Rows of scores of how well a prediction agrees with what was observed, beside its rivals: what `evaluate` shows."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from candi_cli.evaluation.baselines import quantile_matched
from candi_cli.evaluation.challenge import Annotations, annotated_bins, challenge_scores, promoter_bins
from candi_cli.evaluation.comparison import gain
from candi_cli.evaluation.distributions import gaussian_log_pdf, negative_binomial_log_pmf
from candi_cli.evaluation.partitions import Activity, by_signal, by_specificity
from candi_cli.evaluation.reliability import (
    PeakTally,
    auprc,
    auroc,
    base_rate,
    brier,
    f1,
    log_loss,
    precision,
    recall,
)
from candi_cli.evaluation.scores import CvErrors, error_by_cv, in_top, mean_with_error, missed, track_scores
from candi_cli.evaluation.tracks import negative_binomial_quantiles
from candi_cli.genome import Chromsizes
from candi_cli.judging.classes import GENOME, Mask
from candi_cli.judging.grid import Grid
from candi_cli.judging.rivals import AVERAGE, Others, Rival
from candi_cli.judging.table import ALL, MODEL, Row
from candi_cli.judging.tracks import JudgedTrack

TOP_OBSERVED, TOP_PREDICTED = "top 1 % observed", "top 1 % predicted"
MATCHED_MODEL = "model, quantile-matched"
SCORES = ("mse", "pearson", "spearman", "r2")
LOWER_IS_BETTER = ("mse", "nll", "brier", "log_loss")
MISSED_INTERVAL = 0.95
_PEAK_SCORES: dict[str, Callable[[PeakTally], float]] = {
    "auroc": auroc, "auprc": auprc, "base_rate": base_rate, "brier": brier, "log_loss": log_loss,
    "precision": precision, "recall": recall, "f1": f1,
}  # fmt: skip
Array = NDArray[np.float64]


class Predictor(NamedTuple):
    """A prediction as one number a bin, and the log-likelihood of what was observed: shape (L,) each, NaN if none."""

    name: str
    expected: Array
    log_likelihood: Array


class GeneBins(NamedTuple):
    """Genes of a chromosome: starts and ends in bp, 0-based, half-open, and whether on the reverse strand."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    reverse: Mask


def predictors(track: JudgedTrack, rivals: Mapping[str, Rival], others: Others | None) -> list[Predictor]:
    """Return the model and its rivals; the model also with the values of the other biosamples' tracks."""
    found = [Predictor(MODEL, track.expected, model_log_likelihood(track))]
    if others is not None and track.kind != "peaks":
        known, matched = track.known, np.full(track.grid.n_bins, np.nan)
        reference = others.quantiles
        if track.kind == "counts":  # rates; the observed depth is that of the prediction
            total = reference.sum()
            reference = reference * (track.expected[known].sum() / total) if total > 0 else reference
        if known.any():
            matched[known] = quantile_matched(track.expected[known], reference)
        found.append(Predictor(MATCHED_MODEL, matched, np.full(track.grid.n_bins, np.nan)))
    return found + [Predictor(name, *rival) for name, rival in rivals.items()]


def model_log_likelihood(track: JudgedTrack) -> Array:
    """Return the log-likelihood of each bin's observation, in nats: shape (L,), NaN where it is not known."""
    likelihood = np.full(track.grid.n_bins, np.nan)
    known = track.known
    if track.kind == "counts":
        likelihood[known] = negative_binomial_log_pmf(track.observed[known], *track.parameters[:, known])
    elif track.kind == "signal":
        likelihood[known] = gaussian_log_pdf(track.observed[known], *track.parameters[:, known])
    return likelihood


def agreement_rows(track: JudgedTrack, several: Sequence[Predictor], masks: Mapping[str, Mask]) -> Iterator[Row]:
    """Yield the scores of a track of counts or signal, on each class of bins and on its highest ones."""
    kept = masks[GENOME] & track.known
    classes = {name: mask & track.known for name, mask in masks.items()}
    classes[TOP_OBSERVED] = _top(track.observed.astype(np.float64), kept)
    for predictor in several:
        known = np.isfinite(predictor.expected)
        own = {**classes, TOP_PREDICTED: _top(predictor.expected, kept & known)}
        for region, mask in own.items():
            yield from _scores(track, predictor, region, mask & known)


def _top(values: Array, kept: Mask) -> Mask:
    chosen = np.zeros(len(values), dtype=np.bool_)
    if kept.any():
        chosen[kept] = in_top(values[kept])
    return chosen


def _scores(track: JudgedTrack, predictor: Predictor, region: str, chosen: Mask) -> Iterator[Row]:
    observed, expected = track.observed[chosen].astype(np.float64), predictor.expected[chosen]
    blocks = track.grid.blocks[chosen]
    found = track_scores(observed, expected, blocks)
    for name in SCORES:
        value, error, n, note = getattr(found, name)
        yield track.row(region, predictor.name, name, value, error, n, note)
    likelihood = predictor.log_likelihood[chosen]
    if len(likelihood) and np.isfinite(likelihood).all():
        value, error = mean_with_error(-likelihood, blocks)
        yield track.row(region, predictor.name, "nll", value, error, len(likelihood))


def partition_rows(
    track: JudgedTrack, several: Sequence[Predictor], kept: Mask, others: Others | None
) -> Iterator[Row]:
    """Yield MSE and Pearson in groups of bins, by strength of signal and by cell-type specificity.

    Groups of strength are deciles of the observed track; those of specificity come from the other biosamples.
    """
    inside = kept & track.known
    partitions = [by_signal(np.where(inside, track.observed, np.nan))]
    if others is not None and track.kind == "signal":
        partitions.append(by_specificity(Activity(others.active[0], others.active[1])))
    for labels, names in partitions:
        for number, name in enumerate(names):
            group = inside & (labels == number)
            if not group.any():
                continue
            region = name if name.startswith("signal") else f"active in {name}"
            for predictor in several:
                if predictor.name in (MODEL, AVERAGE):
                    chosen = group & np.isfinite(predictor.expected)
                    for row in _scores(track, predictor, region, chosen):
                        if row.score in ("mse", "pearson"):
                            yield row


def challenge_rows(
    track: JudgedTrack,
    several: Sequence[Predictor],
    genes: Mapping[str, GeneBins] | None,
    enhancers: Mapping[str, NDArray[np.int64]] | None,
    variance: Array | None,
    chromsizes: Chromsizes,
    kept: Mask,
) -> Iterator[Row]:
    """Yield the nine measures of the ENCODE Imputation Challenge of a track of signal, of -log10 p untransformed.

    On parts of chromosomes the measures are of the genes that lie in them. Bins that were not measured, or are not
    kept, count as 0 in both tracks, as in the scorer.

    Parameters
    ----------
    kept : shape (L,), the bins that are not excluded
    """
    observed = np.sinh(track.observed.astype(np.float64))
    annotations = _annotations(track.grid, genes or {}, enhancers or {}, chromsizes)
    weights = None if variance is None else np.where(track.known & kept, variance, 0.0)
    for predictor in several:
        known = track.known & kept & np.isfinite(predictor.expected)
        if not known.any():
            continue
        # what was not measured has no error and no weight; it stays in place, as genes are found by place
        expected = np.where(known, np.maximum(np.sinh(predictor.expected), 0), 0.0)
        truth = np.where(known, observed, 0.0)
        found = challenge_scores(truth, expected, track.grid.edges, annotations, weights)
        for name, value in found._asdict().items():
            if math.isfinite(value):
                note = (
                    ""
                    if known.all()
                    else f"{np.count_nonzero(~known):,} bins without data, or left out, count as 0 in both"
                )
                yield track.row(GENOME, predictor.name, f"challenge_{name}", value, n=int(known.sum()), note=note)


def _annotations(
    grid: Grid,
    genes: Mapping[str, GeneBins],
    enhancers: Mapping[str, NDArray[np.int64]],
    chromsizes: Chromsizes,
) -> Annotations:
    """Return the bins of annotations in each stretch: of a whole chromosome all, of a part those that lie within it."""
    found: tuple[list[NDArray[np.int64]], ...] = ([], [], [])
    nothing = np.zeros((0, 2), dtype=np.int64)
    for region, first, last, _ in grid.stretches:
        here = genes.get(region.chrom)
        spans = enhancers.get(region.chrom, nothing)
        groups = [nothing, nothing, annotated_bins(spans[:, 0], spans[:, 1])]
        if here is not None:
            groups[:2] = [promoter_bins(here.starts, here.ends, here.reverse), annotated_bins(here.starts, here.ends)]
        whole = region.end - region.start == chromsizes.get(region.chrom)
        for kept, bins in zip(found, groups, strict=True):
            chosen = np.full(len(bins), whole) | ((bins[:, 0] >= first) & (bins[:, 1] <= last))
            kept.append(bins[chosen] - first)
    return Annotations(*found)


def peak_rows(track: JudgedTrack, masks: Mapping[str, Mask], others: Others | None) -> Iterator[Row]:
    """Yield the scores of predicted peaks, and of the share of other biosamples that have one."""
    logits = {MODEL: track.parameters[0].astype(np.float64)}
    if others is not None:
        share = np.clip(others.mean, 1e-3, 1 - 1e-3)
        logits[AVERAGE] = np.log(share) - np.log1p(-share)
    for name, logit in logits.items():
        for region, mask in masks.items():
            chosen = mask & track.known & np.isfinite(logit)
            tally = PeakTally.of(track.observed[chosen] > 0, logit[chosen])
            n = int(chosen.sum())
            note = "all bins are alike: peaks, or none" if n else "no bins"
            for score, of in _PEAK_SCORES.items():
                value = of(tally)
                yield track.row(region, name, score, value, n=n, note=note if math.isnan(value) else "")


def uncertainty_rows(track: JudgedTrack, kept: Mask, errors: CvErrors) -> Iterator[Row]:
    """Yield whether the coefficient of variation orders errors, and points to observed peaks that are missed.

    Parameters
    ----------
    errors : of the kept bins
    """
    chosen = kept & track.known
    if not chosen.any():
        return
    observed, cv = track.observed[chosen].astype(np.float64), track.cv[chosen]
    n = len(observed)
    constant = "the coefficient of variation, or the error, is constant" if math.isnan(errors.spearman) else ""
    yield track.row(GENOME, MODEL, "cv_error_spearman", errors.spearman, n=n, note=constant)
    peaks = in_top(observed)
    lower, upper = np.zeros((2, n))
    lower[peaks], upper[peaks] = interval_of(track, np.flatnonzero(chosen)[peaks], MISSED_INTERVAL)
    found = missed(observed, lower, upper, peaks, cv)
    share = found.n_above / found.n if found.n else math.nan
    note = "above the 95 % interval" if found.n else "no bins"
    yield track.row(TOP_OBSERVED, MODEL, "missed", share, n=found.n, note=note)
    of = {"flagged_missed": found.n_above, "flagged_found": found.n - found.n_above, "flagged": n}
    for name, size in of.items():
        yield track.row(TOP_OBSERVED, MODEL, name, getattr(found, name), n=size, note="" if size else "no bins")


def errors_of(track: JudgedTrack, kept: Mask) -> CvErrors:
    """Return the errors of the kept bins by their coefficient of variation."""
    chosen = kept & track.known
    return error_by_cv(track.observed[chosen], track.expected[chosen], track.cv[chosen])


def interval_of(track: JudgedTrack, bins: NDArray[np.int64] | Mask, level: float) -> tuple[Array, Array]:
    """Return the bounds of the central interval of some bins, as tracks are written: shape (n,) each.

    Parameters
    ----------
    bins : places in the arrays of the track, shape (n,), or which of them, shape (L,)
    """
    location, spread = track.parameters[:, bins].astype(np.float64)
    asked = np.full(len(location), level) if track.levels is None else track.levels.at(level, location)
    if track.kind == "signal":
        reach = ndtri((1 + asked) / 2) * spread
        return np.maximum(location - reach, 0), np.maximum(location + reach, 0)
    lower, upper = np.empty((2, len(location)))
    for each in np.unique(asked):
        here = asked == each
        tails = [(1 - each) / 2, (1 + each) / 2]
        lower[here], upper[here] = negative_binomial_quantiles(tails, location[here], spread[here])
    return lower, upper


def summary_rows(rows: Sequence[Row], *, seed: int) -> list[Row]:
    """Return means over tracks, and the model's gains over each rival, with errors clustered by track.

    Tracks are those of one pool and kind; only classes of bins and scores that tracks share are compared.
    """
    table: dict[tuple[str, str, str, str], dict[str, dict[tuple[str, str], float]]] = {}
    for row in rows:
        if row.biosample != ALL:
            place = table.setdefault((row.pool, row.track, row.region, row.score), {})
            place.setdefault(row.predictor, {})[row.biosample, row.assay] = row.value
    found = []
    for (pool, kind, region, score), by_predictor in table.items():
        where = (ALL, ALL, pool, kind, region)
        for predictor, values in by_predictor.items():
            numbers = np.array([values[key] for key in sorted(values) if math.isfinite(values[key])])
            if len(numbers):
                error = float(numbers.std(ddof=1) / math.sqrt(len(numbers))) if len(numbers) > 1 else math.nan
                note = "mean over tracks" if len(numbers) > 1 else "a single track has no spread between tracks"
                found.append(Row(*where, predictor, score, float(numbers.mean()), error, len(numbers), note))
        model = by_predictor.get(MODEL, {})
        for predictor, values in by_predictor.items():
            gained = _gain_row(where, predictor, score, model, values, seed) if predictor != MODEL else None
            if gained is not None:
                found.append(gained)
    return found


def _gain_row(
    where: tuple[str, str, str, str, str],
    rival: str,
    score: str,
    model: Mapping[tuple[str, str], float],
    values: Mapping[tuple[str, str], float],
    seed: int,
) -> Row | None:
    shared = sorted(key for key in model if key in values)  # resamples do not depend on the order of tracks
    own, other = (np.array([each[key] for key in shared]) for each in (model, values))
    if not np.isfinite(own - other).any():
        return None
    result = gain(own, other, seed=seed, lower_is_better=_lower_is_better(score))
    note = result.note or (
        f"better on {result.n_better} of {result.n} tracks, 95 % interval {result.low:.4g} to {result.high:.4g}, "
        f"sign test p {result.sign_p:.2g}"
    )
    return Row(*where, f"gain over {rival}", score, result.mean, result.se, result.n, note)


def _lower_is_better(score: str) -> bool:
    name = score.removeprefix("challenge_")
    return name.startswith("mse") or name in LOWER_IS_BETTER
