"""Rows and curves of whether predicted distributions mean what they say: what `calibrate` shows."""

import math
from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import pairwise
from operator import add
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.evaluation.calibration import critical_levels
from candi_cli.evaluation.crps import oracle_scaled
from candi_cli.evaluation.distributions import censored_normal_cdf, negative_binomial_cdf
from candi_cli.evaluation.reliability import (
    PeakTally,
    ReliabilityCurve,
    auprc,
    auroc,
    base_rate,
    brier,
    ece,
    log_loss,
    reliability_curve,
)
from candi_cli.evaluation.scores import jackknife_error, mean_with_error
from candi_cli.evaluation.tallies import SHOWN_LEVELS, Curves, DistributionTally, curves, scores, tally
from candi_cli.judging.classes import GENOME, STRATA, Mask, strata
from candi_cli.judging.table import MODEL, Row
from candi_cli.judging.tracks import JudgedTrack

CENSORED = ", censored at 0"  # after the name of a predictor of signal
MODEL_AFTER = "model, recalibrated"
Array = NDArray[np.float64]


class Calibration(NamedTuple):
    """How one track is calibrated.

    Attributes
    ----------
    rows : of scores, of each class of bins and stratum
    curves : over all bins, by predictor: the model, and of signal the model read as censored at 0
    reliability : of peaks
    """

    rows: list[Row]
    curves: dict[str, Curves]
    reliability: ReliabilityCurve | None


def calibration(track: JudgedTrack, masks: Mapping[str, Mask], *, predictor: str = MODEL) -> Calibration:
    """Return how a track is calibrated in each class of bins, and in strata of what was predicted."""
    if track.kind == "peaks":
        return _of_peaks(track, masks, predictor)
    found: list[Row] = []
    by_predictor: dict[str, Curves] = {}
    kept = masks[GENOME] & track.known
    labels = strata(track, kept)
    for name in (predictor, predictor + CENSORED) if track.kind == "signal" else (predictor,):
        parts = [_tally(track, labels == number, name) for number in range(len(STRATA))]
        whole = reduce(add, parts)
        by_predictor[name] = curves(whole)
        found += _rows(track, GENOME, name, whole)
        found += _scale_rows(track, kept, name)
        found += _delivered_rows(track, kept, name)
        for region, mask in masks.items():
            if region != GENOME:
                found += _rows(track, region, name, _tally(track, mask & track.known, name))
        for stratum, part in zip(STRATA, parts, strict=True):
            found += _rows(track, f"predicted {stratum}", name, part)
    return Calibration(found, by_predictor, None)


def _tally(track: JudgedTrack, chosen: Mask, predictor: str) -> DistributionTally:
    at = np.flatnonzero(chosen)
    blocks = track.grid.blocks
    n_blocks = int(blocks[-1]) + 1 if len(blocks) else 0
    return tally(
        track.kind, track.observed[at], track.parameters[:, at], blocks[at], n_blocks,
        censored=predictor.endswith(CENSORED), positions=at,
    )  # fmt: skip


def _rows(track: JudgedTrack, region: str, predictor: str, total: DistributionTally) -> Iterator[Row]:
    n = int(total.n.sum())
    single = "fewer than two blocks of the genome: no standard error" if np.count_nonzero(total.n) < 2 else ""
    for name, (value, error) in scores(total).items():
        if n and total.kind == "counts" and name == "interval_error":
            note = "discrete: an interval holds more than its level even of a perfect forecast; see pit_error"
        else:
            note = single if n else "no bins"
        yield track.row(region, predictor, name, value, error, n, note)


def _scale_rows(track: JudgedTrack, kept: Mask, predictor: str) -> Iterator[Row]:
    """Yield the CRPS that is left when the scale of the mean is made right, and what a wrong scale costs."""
    n = int(kept.sum())
    if not n:
        return
    split = oracle_scaled(
        track.kind, track.observed[kept], track.parameters[:, kept], censored=predictor.endswith(CENSORED)
    )
    for name in ("crps_oracle_scaled", "scale_error"):
        yield track.row(GENOME, predictor, name, getattr(split, _SPLIT[name]), math.nan, n)


def _delivered_rows(track: JudgedTrack, kept: Mask, predictor: str) -> Iterator[Row]:
    """Yield how many bins lie in the intervals that would be written as tracks: those of the recalibrated levels."""
    n = int(kept.sum())
    if track.levels is None or not n or predictor.endswith(CENSORED):
        return
    observed, parameters = track.observed[kept].astype(np.float64), track.parameters[:, kept].astype(np.float64)
    cdf = negative_binomial_cdf if track.kind == "counts" else censored_normal_cdf  # no bound is below 0
    inside = critical_levels(cdf(observed, *parameters))
    blocks = track.grid.blocks[kept]
    for level in SHOWN_LEVELS:
        value, error = mean_with_error(inside <= track.levels.at(level, parameters[0]), blocks)
        yield track.row(GENOME, predictor, f"delivered_coverage_{round(100 * level)}", value, error, n)


_SPLIT = {"crps_oracle_scaled": "at_best_scale", "scale_error": "scale_error"}
_PEAK_SCORES = {
    "brier": brier, "log_loss": log_loss, "ece": ece, "ece_equal_mass": lambda each: ece(each, equal_mass=True),
    "auroc": auroc, "auprc": auprc, "base_rate": base_rate,
}  # fmt: skip


def _of_peaks(track: JudgedTrack, masks: Mapping[str, Mask], predictor: str) -> Calibration:
    found: list[Row] = []
    curve = None
    for name, mask in masks.items():
        chosen = mask & track.known
        blocks = track.grid.blocks[chosen]
        observed, logit = track.observed[chosen] > 0, track.parameters[0, chosen]
        whole = PeakTally.of(observed, logit)
        values = {score: of(whole) for score, of in _PEAK_SCORES.items()}
        errors = _jackknife(whole, observed, logit, blocks)
        for score, value in values.items():
            note = ("all bins are alike: peaks, or none" if whole.n else "no bins") if math.isnan(value) else ""
            found.append(track.row(name, predictor, score, value, errors[score], whole.n, note))
        if name == GENOME:
            curve = reliability_curve(whole, equal_mass=True)
    return Calibration(found, {}, curve)


def _jackknife(
    whole: PeakTally, observed: NDArray[np.bool_], logit: NDArray[np.float32], blocks: NDArray[np.int32]
) -> dict[str, float]:
    """Return the delete-one-block standard error of each score; NaN with fewer than two blocks."""
    edges = np.flatnonzero(np.diff(blocks, prepend=-1, append=-1))
    left_out: dict[str, list[float]] = {score: [] for score in _PEAK_SCORES}
    for start, end in pairwise(edges.tolist()):
        rest = whole - PeakTally.of(observed[start:end], logit[start:end])
        for score, of in _PEAK_SCORES.items():
            left_out[score].append(of(rest))
    return {score: jackknife_error(values) for score, values in left_out.items()}
