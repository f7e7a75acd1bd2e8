"""Learning a model's errors from tracks that it was not shown: what `candi calibrate --fit` keeps of them, and fits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from candi_cli.evaluation.calibration import critical_levels, pit_error
from candi_cli.evaluation.crps import crps
from candi_cli.evaluation.distributions import (
    bernoulli_log_pmf,
    censored_normal_cdf,
    negative_binomial_cdf,
)
from candi_cli.evaluation.levels import Levels, fit_levels
from candi_cli.evaluation.recalibration import (
    CountFactors,
    PeakFactors,
    SignalFactors,
    fit_count_factors,
    fit_peak_factors,
    fit_signal_factors,
)
from candi_cli.judging.classes import GENOME, Mask
from candi_cli.judging.tracks import JudgedTrack
from candi_cli.model.recalibration import Fit, correct
from candi_cli.store.predictions import PARAMETERS

MOST_BINS = 1 << 20  # kept of one track: biosamples count alike, whatever their size
Key = tuple[str, str, str]  # assay, pool, kind
Factors = CountFactors | SignalFactors | PeakFactors


@dataclass
class Collected:
    """Bins of the tracks that a recalibration is fitted to, by assay, pool and kind; biosamples are taken together."""

    seed: int
    names: list[str] = field(default_factory=list)
    _bins: dict[Key, list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = field(default_factory=dict)

    def add(self, track: JudgedTrack, masks: Mapping[str, Mask]) -> None:
        """Keep the bins of a track, at most `MOST_BINS` of them, drawn at random."""
        at = np.flatnonzero(masks[GENOME] & track.known)
        if len(at) > MOST_BINS:
            at = np.sort(np.random.default_rng(self.seed).choice(at, MOST_BINS, replace=False))
        self.names.append(f"{track.biosample}/{track.assay} {track.kind} {track.pool}")
        key = (track.assay, track.pool, track.kind)
        self._bins.setdefault(key, []).append((track.observed[at], track.parameters[:, at]))

    def fits(self, note: Callable[[str], None]) -> list[Fit]:
        """Return a fit of each assay, pool and kind; what could not be fitted is noted."""
        found = []
        for (assay, pool, kind), parts in self._bins.items():
            observed = np.concatenate([part for part, _ in parts])
            parameters = np.concatenate([part for _, part in parts], axis=1)
            factors, affine = _fit(kind, observed, parameters, self.seed)
            if factors.note.startswith("unchanged") and factors.note != "unchanged":
                note(f"{kind} of {assay} ({pool}): {factors.note}")
            after = factors.apply(parameters)
            levels = None
            if kind != "peaks" and len(observed):
                levels = fit_levels(kind, _critical(kind, observed, after), after[0]).to_json()
            scores = [_scores(kind, observed, each) for each in (parameters, after)]
            found.append(Fit(assay, pool, kind, affine, levels, len(observed), factors.note, *scores))
        return found


def _fit(
    kind: str, observed: NDArray[np.float32], parameters: NDArray[np.float32], seed: int
) -> tuple[Factors, dict[str, tuple[float, float]]]:
    """Return the factors, and the same as scale and shift of each parameter."""
    names = PARAMETERS[kind]
    if kind == "counts":
        counts = fit_count_factors(observed, parameters, seed=seed)
        return counts, {names[0]: (1.0, counts.log_mean_shift), names[1]: (1.0, counts.log_dispersion_shift)}
    if kind == "signal":
        signal = fit_signal_factors(observed, parameters, censored=True, seed=seed)
        return signal, {names[0]: (1.0, signal.offset), names[1]: (signal.temperature, 0.0)}
    peaks = fit_peak_factors(observed, parameters)
    return peaks, {names[0]: (peaks.slope, peaks.intercept)}


def _critical(kind: str, observed: NDArray[np.float32], parameters: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the level of the narrowest interval, as it is written, that holds each observation."""
    cdf = negative_binomial_cdf if kind == "counts" else censored_normal_cdf
    return critical_levels(cdf(observed, *parameters))


def _scores(kind: str, observed: NDArray[np.float32], parameters: NDArray[np.float32]) -> dict[str, float]:
    """Return what a fit is to lower, on the bins that it is fitted to."""
    if not len(observed):
        return {}
    if kind == "peaks":
        return {"log_loss": -float(bernoulli_log_pmf(observed, parameters[0]).mean())}
    cdf = negative_binomial_cdf if kind == "counts" else censored_normal_cdf
    score = crps(kind, observed, parameters, censored=kind == "signal")
    return {"crps": float(score.mean()), "pit_error": pit_error(cdf(observed, *parameters))}


def recalibrated(track: JudgedTrack, fit: Fit) -> JudgedTrack:
    """Return a track as the recalibrated model would predict it."""
    names = PARAMETERS[track.kind]
    parameters = correct(track.parameters.T, names, [fit.parameters[name] for name in names]).T
    levels = Levels.from_json(fit.kind, fit.levels) if fit.levels is not None else None
    return replace(track, parameters=np.ascontiguousarray(parameters), levels=levels)
