"""What a track shows of a predicted distribution: its centre, a bound of an interval, a spread."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from candi_cli.evaluation.levels import Levels
from candi_cli.evaluation.tracks import (
    coefficient_of_variation,
    negative_binomial_quantiles,
    negative_binomial_sd,
    signal_quantiles,
    signal_sd,
)
from candi_cli.store.predictions import PARAMETERS

Values = NDArray[np.float64]
_CENTRES = {"counts": "mean", "signal": "median", "peaks": "probability"}
_LARGEST = float(np.finfo(np.float32).max)  # that a track holds


class Quantity(NamedTuple):
    """One thing that a track shows.

    kind : of the track, `counts`, `signal` or `peaks`
    name : `mean` (the track itself; `statistic` says what it is), `lower`, `upper`, `sd`, `cv`, or of counts `n`, `p`
    level : of a bound, the probability that lies below it
    """

    kind: str
    name: str = "mean"
    level: float | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """What it is made from, in the order that `of` takes."""
        return PARAMETERS[self.kind]

    @property
    def statistic(self) -> str:
        """What it is of the distribution: the track of signal is a median, that of peaks a probability."""
        return _CENTRES[self.kind] if self.name == "mean" else self.name

    def of(self, parameters: NDArray[np.float32], levels: Levels | None = None) -> Values:
        """Return its values, from the parameters (P, L).

        Of counts, values are reads per bin at the covariates that were asked for. Of signal they are -log10 p, and the
        track is the median: the mean of its arcsinh taken back. Its cv is that of arcsinh(-log10 p), as in the paper.
        Of peaks, they are the probability.

        Parameters
        ----------
        levels : of a recalibrated model: what the level of a central interval is replaced by
        """
        values = [np.asarray(each, dtype=np.float64) for each in parameters]
        if levels is None or self.level is None:
            return _OF[self.kind, self.name](*values, self.level)
        found, which = np.full(values[0].shape, np.nan), levels.strata(values[0])
        for number, each in enumerate(levels.maps):
            here = which == number
            if here.any():
                central = float(each.apply([abs(1 - 2 * self.level)])[0])
                tail = (1 + central) / 2 if self.level > 0.5 else (1 - central) / 2
                found[here] = _OF[self.kind, self.name](*(value[here] for value in values), tail)
        return found


def levels_of(track: Mapping[str, Any], kind: str) -> Levels | None:
    """Return what a recalibrated model's central intervals of a described track are asked for with; None of others."""
    found = ((track.get("recalibration") or {}).get("levels") or {}).get(kind)
    return Levels.from_json(kind, found) if found else None


def quantities(
    kinds: Sequence[str], *, interval: float | None, sd: bool = False, cv: bool = False, nb: bool = False
) -> list[Quantity]:
    """Return what is to be shown: of each kind the track itself, and what else was asked for and it has.

    Parameters
    ----------
    interval : the probability of a central interval, whose bounds are shown too
    nb : show n and p of the negative binomial, in scipy's convention
    """
    found = []
    for kind in kinds:
        found.append(Quantity(kind))
        if kind == "peaks":
            continue
        if interval is not None:
            found += [Quantity(kind, "lower", (1 - interval) / 2), Quantity(kind, "upper", (1 + interval) / 2)]
        found += [Quantity(kind, name) for name, asked in (("sd", sd), ("cv", cv)) if asked]
        if kind == "counts" and nb:
            found += [Quantity(kind, "n"), Quantity(kind, "p")]
    return found


def _quantile_of_counts(log_mean: Values, log_dispersion: Values, level: float | None) -> Values:
    assert level is not None
    return negative_binomial_quantiles([level], log_mean, log_dispersion)[0]


def _quantile_of_signal(mean: Values, sd: Values, level: float | None) -> Values:
    assert level is not None
    return signal_quantiles([level], mean, sd)[0]


def _cv(mean: Values, sd: Values) -> Values:
    return np.minimum(coefficient_of_variation(mean, sd), _LARGEST)


_OF: dict[tuple[str, str], Callable[..., Values]] = {
    ("counts", "mean"): lambda log_mean, _n, _level: np.exp(log_mean),
    ("counts", "lower"): _quantile_of_counts,
    ("counts", "upper"): _quantile_of_counts,
    ("counts", "sd"): lambda log_mean, log_n, _level: negative_binomial_sd(log_mean, log_n),
    ("counts", "cv"): lambda log_mean, log_n, _level: _cv(np.exp(log_mean), negative_binomial_sd(log_mean, log_n)),
    ("counts", "n"): lambda _mean, log_n, _level: np.exp(log_n),
    ("counts", "p"): lambda log_mean, log_n, _level: expit(log_n - log_mean),
    ("signal", "mean"): lambda mean, _sd, _level: np.maximum(np.sinh(mean), 0),
    ("signal", "lower"): _quantile_of_signal,
    ("signal", "upper"): _quantile_of_signal,
    ("signal", "sd"): lambda mean, sd, _level: signal_sd(mean, sd),
    ("signal", "cv"): lambda mean, sd, _level: _cv(mean, sd),
    ("peaks", "mean"): lambda logit, _level: expit(logit),
}
