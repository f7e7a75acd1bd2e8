"""Corrections of predicted distributions that are fitted to held-out bins of one assay, and may be stored with a model.

- `CountFactors`: a factor of the mean, and one of n, by likelihood. For counts there is no map of the PIT: at 0 it
  jumps by half of the bins or more, which no monotone map can undo.
- `SignalFactors`: an offset of the mean, and a factor of the sd. The factor that the mean square of z asks for is too
  large where residuals have heavy tails, so it is one of four candidates, of which the least CRPS on bins that it was
  not fitted to decides.
- `PeakFactors`: slope and intercept of the logit (Platt).
- `LevelMap`: the level that a central interval must be asked for to cover what it says (conformal); right for
  whatever shape, discrete forecasts included. It ends at 1 - 1e-9, six predicted sds of a Gaussian: it is to be fitted
  after the other corrections, not instead of them.

Bins of one region resemble each other, so that they are worth fewer than they are: weights can say how much each
counts. Fits are deterministic. What they hold are plain numbers, which are checked when they are read from JSON.
"""

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import digamma, expit

from candi_cli.evaluation.crps import crps
from candi_cli.evaluation.distributions import bernoulli_log_pmf, negative_binomial_log_pmf
from candi_cli.evaluation.reliability import N_CODES, logit_codes
from candi_cli.evaluation.tracks import LOG_LIMIT

Array = NDArray[np.float64]
Float = NDArray[np.float32]
FIT_BINS = 1 << 18  # counts and signal are fitted to a random sample of at most so many bins
LEAST_BINS = 100  # fewer change nothing
LEAST_PEAKS = 20  # bins in a peak, and bins that are not
LEVEL_GRID = np.append(np.arange(100) / 100, [0.995, 1.0])
_LEVEL_MOST = 1 - 1e-9  # of an interval with ends
_ROUNDED_TO = 1e-9  # a level map's levels, upwards
_FOLD_RUNS = 20  # of adjacent bins, every other one in the same half
_LEAST_GAIN = 1e-4  # of the CRPS of signal, below which nothing is changed
_NORMAL_MAD = 0.6744897501960817  # median of |z| of a standard normal
_Fitted = TypeVar("_Fitted", bound="_Factors")


@dataclass(frozen=True)
class _Factors:
    """Plain numbers within limits, and a note of how they were chosen."""

    note: str = field(default="", kw_only=True)
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` makes the same of, of types that JSON has."""
        return asdict(self)

    @classmethod
    def from_json(cls: type[_Fitted], content: Mapping[str, Any]) -> _Fitted:
        """Return the factors that `to_json` told; a ValueError says what is wrong with them."""
        names = {each.name for each in fields(cls)}
        if not isinstance(content, Mapping) or set(content) != names:
            raise ValueError(f"{cls.__name__} must have {', '.join(sorted(names))}, and nothing else")
        if not isinstance(content["note"], str):
            raise ValueError(f"the note of {cls.__name__} is not text")
        numbers = {name: _number(content[name], name, *limits) for name, limits in cls.LIMITS.items()}
        return cls(**numbers, note=content["note"])


@dataclass(frozen=True)
class CountFactors(_Factors):
    """Of counts: what is added to the natural logs of the mean and of n."""

    log_mean_shift: float = 0.0
    log_dispersion_shift: float = 0.0
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "log_mean_shift": (-3.0, 3.0),
        "log_dispersion_shift": (-6.0, 6.0),
    }

    def apply(self, parameters: ArrayLike) -> Float:
        """Return the corrected log mean and log dispersion, at most 16 and at least -16; NaN stays.

        Parameters
        ----------
        parameters : shape (2, L), log mean and log dispersion
        """
        shift = np.array([[self.log_mean_shift], [self.log_dispersion_shift]], dtype=np.float32)
        return np.clip(np.asarray(parameters, dtype=np.float32) + shift, -LOG_LIMIT, LOG_LIMIT)


@dataclass(frozen=True)
class SignalFactors(_Factors):
    """Of signal: what is added to the mean, in arcsinh(-log10 p), and what the sd is multiplied by."""

    offset: float = 0.0
    temperature: float = 1.0
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"offset": (-5.0, 5.0), "temperature": (0.05, 20.0)}

    def apply(self, parameters: ArrayLike) -> Float:
        """Return the corrected mean and sd.

        Parameters
        ----------
        parameters : shape (2, L), mean and sd
        """
        mean, sd = np.asarray(parameters, dtype=np.float32)
        return np.stack([mean + np.float32(self.offset), sd * np.float32(self.temperature)])


@dataclass(frozen=True)
class PeakFactors(_Factors):
    """Of peaks: what the logit is multiplied by, and what is then added."""

    slope: float = 1.0
    intercept: float = 0.0
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"slope": (0.05, 20.0), "intercept": (-20.0, 20.0)}

    def apply(self, parameters: ArrayLike) -> Float:
        """Return the corrected logit.

        Parameters
        ----------
        parameters : shape (1, L), logit
        """
        return np.asarray(parameters, dtype=np.float32) * np.float32(self.slope) + np.float32(self.intercept)


@dataclass(frozen=True)
class LevelMap(_Factors):
    """Of central intervals: the level to ask for, at each of `LEVEL_GRID`."""

    levels: tuple[float, ...] = tuple(LEVEL_GRID.tolist())

    def apply(self, levels: ArrayLike) -> Array:
        """Return the levels to ask for, for intervals that are to cover these; linear between those of the grid.

        Below a level of 1, it is at most 1 - 1e-9, so that intervals have ends even where held-out bins ask for more.

        Parameters
        ----------
        levels : in [0, 1]
        """
        levels = np.asarray(levels, dtype=np.float64)
        if not ((levels >= 0) & (levels <= 1)).all():
            raise ValueError(f"levels {levels}; all must be from 0 to 1")
        asked = np.interp(levels, LEVEL_GRID, self.levels)
        return np.where(levels < 1, np.minimum(asked, _LEVEL_MOST), asked)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` makes the same of, of types that JSON has."""
        return {"note": self.note, "levels": list(self.levels)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "LevelMap":
        """Return the map that `to_json` told; a ValueError says what is wrong with it."""
        numbers = content.get("levels") if isinstance(content, Mapping) else None
        if not isinstance(numbers, list | tuple) or len(numbers) != len(LEVEL_GRID):
            raise ValueError(f"LevelMap must have {len(LEVEL_GRID)} levels")
        levels = tuple(_number(each, "a level", 0.0, 1.0) for each in numbers)
        if (np.diff(levels) < 0).any():
            raise ValueError("the levels of LevelMap fall")
        note = super().from_json(content).note
        return cls(note=note, levels=levels)


def _number(value: object, name: str, least: float, most: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:  # type: ignore[operator]
        raise ValueError(f"{name} is {reprlib.repr(value)}; it must be a number from {least:g} to {most:g}")
    return float(value)  # type: ignore[arg-type]


def fit_count_factors(
    counts: ArrayLike, parameters: ArrayLike, *, weights: ArrayLike | None = None, seed: int = 0
) -> CountFactors:
    """Fit the factors of mean and n by maximum likelihood, to a random sample of at most 262,144 bins.

    They change nothing where there are fewer than 100 bins, or no read.

    Parameters
    ----------
    counts : shape (L,), finite; parameters : shape (2, L), finite: log mean and log dispersion
    weights : shape (L,), > 0; seed : of the sample
    """
    y, (log_mean, log_n), weight = _sampled(counts, parameters, 2, weights, seed)
    if len(y) < LEAST_BINS:
        return CountFactors(note=f"unchanged: fewer than {LEAST_BINS} bins")
    if not y.any():
        return CountFactors(note="unchanged: no reads")

    def loss(shifts: Array) -> tuple[float, Array]:
        shifted, log_size = log_mean + shifts[0], log_n + shifts[1]
        mean, n = np.exp(shifted), np.exp(log_size)
        by_mean = (y - mean) * n / (n + mean)
        by_size = n * (digamma(n + y) - digamma(n) - np.log1p(mean / n) + (mean - y) / (n + mean))
        value = negative_binomial_log_pmf(y, shifted, log_size)
        total, *gradient = (float((weight * each).sum()) for each in (value, by_mean, by_size))
        return -total, -np.array(gradient)

    best = minimize(loss, (0.0, 0.0), jac=True, method="L-BFGS-B", bounds=tuple(CountFactors.LIMITS.values()))
    if not best.fun < loss(np.zeros(2))[0]:
        return CountFactors(note="unchanged: no factor has a higher likelihood")
    shifts = [float(shift) for shift in best.x]
    return CountFactors(*shifts, note="by likelihood")


def fit_signal_factors(
    observed: ArrayLike,
    parameters: ArrayLike,
    *,
    censored: bool = False,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> SignalFactors:
    """Fit offset and temperature to a random sample of at most 262,144 bins.

    The candidates are no change; the mean residual and mean square of z; the median residual and median |z|; and the
    least mean CRPS. Each is fitted to every other of 20 runs of bins and judged by its CRPS on the others, and the
    other way round; the best one is fitted to all. Nothing changes for less than 0.01 % of the CRPS, or of fewer
    than 100 bins.

    Parameters
    ----------
    observed : shape (L,), finite, in the order of the genome; parameters : shape (2, L), finite: mean and sd
    censored : read signal as a normal censored at 0
    weights : shape (L,), > 0; seed : of the sample
    """
    values, (mean, sd), weight = _sampled(observed, parameters, 2, weights, seed)
    bins = _SignalBins(values, mean, sd, weight, censored)
    n_bins = len(values)
    if n_bins < LEAST_BINS:
        return SignalFactors(note=f"unchanged: fewer than {LEAST_BINS} bins")
    half = (np.arange(n_bins) * _FOLD_RUNS // n_bins) % 2 == 0
    halves = bins.chosen(half), bins.chosen(~half)
    scores = {
        name: sum(judged.crps(*fit(fitted)) * judged.weight.sum() for fitted, judged in (halves, halves[::-1]))
        for name, fit in _CANDIDATES.items()
    }
    best = min(scores, key=lambda name: scores[name])
    if scores[best] >= scores["unchanged"] * (1 - _LEAST_GAIN):
        best = "unchanged"
    return SignalFactors(*_CANDIDATES[best](bins), note=best)


class _SignalBins(NamedTuple):
    """Bins of signal to fit to, each of shape (L,), and whether it is read as a normal censored at 0."""

    observed: Array
    mean: Array
    sd: Array
    weight: Array
    censored: bool

    def chosen(self, which: NDArray[np.bool_]) -> "_SignalBins":
        observed, mean, sd, weight = (each[which] for each in (self.observed, self.mean, self.sd, self.weight))
        return _SignalBins(observed, mean, sd, weight, self.censored)

    def crps(self, offset: float, temperature: float) -> float:
        """Return the mean CRPS after a correction."""
        corrected = (self.mean + offset, self.sd * temperature)
        return self.average(crps("signal", self.observed, corrected, censored=self.censored))

    def average(self, values: Array) -> float:
        return float((values * self.weight).sum() / self.weight.sum())


def _unchanged(_: _SignalBins) -> tuple[float, float]:
    return 0.0, 1.0


def _by_square(bins: _SignalBins) -> tuple[float, float]:
    """Return the offset and temperature of the highest Gaussian likelihood at that offset."""
    residual, precision = bins.observed - bins.mean, bins.sd**-2.0
    offset = bins.average(residual * precision) / bins.average(precision)
    return _limited(offset, math.sqrt(bins.average(np.square(residual - offset) * precision)))


def _by_median(bins: _SignalBins) -> tuple[float, float]:
    residual = bins.observed - bins.mean
    offset = _median(residual, bins.weight)
    return _limited(offset, _median(np.abs(residual - offset) / bins.sd, bins.weight) / _NORMAL_MAD)


def _by_crps(bins: _SignalBins) -> tuple[float, float]:
    offset_limits, temperature_limits = SignalFactors.LIMITS.values()
    best = minimize(
        lambda at: bins.crps(at[0], math.exp(at[1])),
        (0.0, 0.0),
        method="L-BFGS-B",
        bounds=(offset_limits, np.log(temperature_limits)),
    )
    return _limited(best.x[0], math.exp(best.x[1]))


_CANDIDATES: Mapping[str, Callable[[_SignalBins], tuple[float, float]]] = {
    "unchanged": _unchanged,
    "by mean z^2": _by_square,
    "by median |z|": _by_median,
    "by CRPS": _by_crps,
}


def _limited(offset: float, temperature: float) -> tuple[float, float]:
    """Return the nearest allowed offset and temperature."""
    limits = SignalFactors.LIMITS.values()
    first, second = (float(np.clip(each, *limit)) for each, limit in zip((offset, temperature), limits, strict=True))
    return first, second


def _median(values: Array, weight: Array) -> float:
    order = np.argsort(values)
    risen = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(risen, risen[-1] / 2)])


def fit_peak_factors(observed: ArrayLike, parameters: ArrayLike, *, weights: ArrayLike | None = None) -> PeakFactors:
    """Fit slope and intercept of the logit by maximum likelihood, to all bins.

    Bins of the same bfloat16 logit are taken together, at their mean logit. Nothing changes with fewer than 20 bins
    in a peak, or that are not.

    Parameters
    ----------
    observed : shape (L,), 0 or 1; parameters : shape (1, L), finite: logit
    weights : shape (L,), > 0
    """
    y, (logit,), weight = _sampled(observed, parameters, 1, weights, None)
    n_peaks = int((y > 0).sum())
    if min(n_peaks, len(y) - n_peaks) < LEAST_PEAKS:
        return PeakFactors(
            note=f"unchanged: {n_peaks} bins in a peak and {len(y) - n_peaks} not; {LEAST_PEAKS} of both are needed"
        )
    code, weight = logit_codes(logit), weight / weight.sum()
    total, in_peak, summed = (np.bincount(code, each, N_CODES) for each in (weight, weight * (y > 0), weight * logit))
    used = total > 0
    total, in_peak = total[used], in_peak[used]
    logit = summed[used] / total

    def loss(line: Array) -> tuple[float, Array]:
        corrected = line[0] * logit + line[1]
        value = in_peak * bernoulli_log_pmf(1, corrected) + (total - in_peak) * bernoulli_log_pmf(0, corrected)
        excess = total * expit(corrected) - in_peak
        return -float(value.sum()), np.array([(excess * logit).sum(), excess.sum()])

    bounds = tuple(PeakFactors.LIMITS.values())
    best = minimize(loss, (1.0, 0.0), jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-13, "gtol": 1e-9})
    slope, intercept = (float(each) for each in best.x)
    return PeakFactors(slope, intercept, note="by likelihood")


def fit_level_map(critical: ArrayLike, *, weights: ArrayLike | None = None) -> LevelMap:
    """Fit the levels of central intervals, of distributions that have been corrected otherwise already.

    To cover c, an interval is asked for at the k-th smallest of n critical levels, k = ceil((n + 1) c): then one more
    bin of the same kind is covered with a probability of at least c. 1 where k > n. Rounded upwards, to 1e-9.

    Parameters
    ----------
    critical : shape (L,), as `calibration.critical_levels` returns them
    weights : shape (L,), > 0; one more bin is taken to weigh their mean
    """
    levels = np.asarray(critical, dtype=np.float64)
    if not len(levels):
        return LevelMap(note="unchanged: no bins")
    weight = np.ones(len(levels)) if weights is None else np.asarray(weights, dtype=np.float64)
    _check(levels, levels[None], 1, weight)
    order = np.argsort(levels)
    share = np.cumsum(weight[order])
    share /= share[-1] * (1 + 1 / len(levels))
    place = np.searchsorted(share, LEVEL_GRID - 1e-12)
    rounded = np.ceil(np.append(levels[order], 1.0)[place] / _ROUNDED_TO) * _ROUNDED_TO
    mapped = np.where(LEVEL_GRID > 0, np.minimum(rounded, 1), 0)
    return LevelMap(tuple(np.round(mapped, 9).tolist()), note=f"conformal, {len(levels)} bins")


def _sampled(
    observed: ArrayLike, parameters: ArrayLike, n_parameters: int, weights: ArrayLike | None, seed: int | None
) -> tuple[Array, Array, Array]:
    """Return what is to be fitted to, in float64 and in order, and weights whose sum is 1; all of it without a seed."""
    observed, parameters = np.asarray(observed), np.asarray(parameters)
    weight = np.ones(observed.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    _check(observed, parameters, n_parameters, weight)
    if seed is not None and len(observed) > FIT_BINS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(observed), FIT_BINS, replace=False))
        observed, parameters, weight = observed[chosen], parameters[:, chosen], weight[chosen]
    return observed.astype(np.float64), parameters.astype(np.float64), weight / weight.sum()


def _check(observed: NDArray, parameters: NDArray, n_parameters: int, weight: Array) -> None:
    if observed.ndim != 1 or parameters.shape != (n_parameters, *observed.shape) or weight.shape != observed.shape:
        raise ValueError(
            f"{observed.shape} observed, parameters {parameters.shape}, weights {weight.shape}; "
            f"they must be (L,), ({n_parameters}, L) and (L,)"
        )
    if not (np.isfinite(observed).all() and np.isfinite(parameters).all()):
        raise ValueError("a bin is not finite; leave out what was not measured or predicted")
    if not ((weight > 0) & np.isfinite(weight)).all():
        raise ValueError("a weight is not above 0")
