"""What `candi calibrate --fit` learned of a model's errors, as it travels in the model card and is applied.

A fit is of one assay, one kind of track and one pool: predictions of an assay that the model could not see (`imputed`)
err in another way than those of one whose reads it saw (`denoised`). It has two parts. Each parameter of the predicted
distribution becomes `scale * parameter + shift`. And the level of a central interval is replaced by the level that
covered as much as was asked for on the data that it was fit to, at each strength of prediction.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candi_cli.evaluation.levels import Levels
from candi_cli.evaluation.tracks import LOG_LIMIT
from candi_cli.model.values import is_number, is_whole
from candi_cli.store.predictions import PARAMETERS

_POOLS = ("denoised", "imputed")
_MOST_SCALE, _MOST_SHIFT = 1e3, 1e3
_MOST_FITS = 10_000


@dataclass(frozen=True)
class Fit:
    """The recalibration of one assay's track.

    Attributes
    ----------
    parameters : scale and shift of each parameter of the distribution, by name
    levels : of central intervals, as `evaluation.levels.Levels` keeps them; None for peaks, which have none
    note : how it was found
    n_bins : that it was fit to
    before, after : scores on the data that it was fit to
    """

    assay: str
    pool: str
    kind: str
    parameters: dict[str, tuple[float, float]]
    levels: list[list[float]] | None
    n_bins: int
    note: str = ""
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Any) -> "Fit":
        """Rebuild a fit; raise ValueError when it is not one."""
        names = {"assay", "pool", "kind", "parameters", "levels", "n_bins", "note", "before", "after"}
        if not isinstance(values, dict) or set(values) != names:
            raise ValueError("recalibration: a fit lacks a field, or has one that this program does not know")
        kind, pool = values["kind"], values["pool"]
        if not all(isinstance(each, str) for each in (kind, pool, values["assay"])):
            raise ValueError("recalibration: a fit is of no known track")
        if kind not in PARAMETERS or pool not in _POOLS:
            raise ValueError("recalibration: a fit is of no known track")
        factors = values["parameters"]
        if not isinstance(factors, dict) or set(factors) != set(PARAMETERS[kind]):
            raise ValueError(f"recalibration: the parameters of {kind} are not {', '.join(PARAMETERS[kind])}")
        parameters = {name: _factors(found) for name, found in factors.items()}
        levels = None if values["levels"] is None else Levels.from_json(kind, values["levels"]).to_json()
        n_bins, note = values["n_bins"], values["note"]
        if not is_whole(n_bins, 0, math.inf) or not isinstance(note, str):
            raise ValueError("recalibration: a fit does not say what it was fitted to")
        scores = [_scores(values[name]) for name in ("before", "after")]
        return cls(values["assay"], pool, kind, parameters, levels, n_bins, note, *scores)


@dataclass(frozen=True)
class Recalibration:
    """The fits of a model, and the data that they were fit to.

    Attributes
    ----------
    fitted_on : regions, biosamples and the rest, for the record
    """

    fits: tuple[Fit, ...]
    fitted_on: dict[str, Any]

    @classmethod
    def from_json(cls, values: Any) -> "Recalibration":
        """Rebuild a recalibration; raise ValueError when it is not one."""
        if not isinstance(values, dict) or set(values) != {"fits", "fitted_on"}:
            raise ValueError("recalibration: not fits and what they were fitted on")
        if not isinstance(values["fits"], list) or len(values["fits"]) > _MOST_FITS:
            raise ValueError("recalibration: fits are no list")
        if not isinstance(values["fitted_on"], dict):
            raise ValueError("recalibration: what it was fitted on is no JSON object")
        fits = tuple(Fit.from_json(each) for each in values["fits"])
        if len({(fit.assay, fit.pool, fit.kind) for fit in fits}) < len(fits):
            raise ValueError("recalibration: a track is there twice")
        return cls(fits, values["fitted_on"])

    def of(self, assay: str, pool: str, parameters: Mapping[str, Any] | list[str]) -> dict[str, Any] | None:
        """Return how the parameters of a track are changed, as plain JSON values; None where they are not.

        Parameters
        ----------
        parameters : the names of those that are predicted
        """
        found = [
            fit
            for fit in self.fits
            if (fit.assay, fit.pool) == (assay, pool) and set(fit.parameters) <= set(parameters)
        ]
        if not found:
            return None
        return {
            "parameters": {name: list(factors) for fit in found for name, factors in fit.parameters.items()},
            "levels": {fit.kind: fit.levels for fit in found if fit.levels is not None},
        }

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def correct(
    values: NDArray[np.float32], names: Sequence[str], factors: Sequence[Sequence[float]]
) -> NDArray[np.float32]:
    """Return parameters scaled and shifted, those of counts no further than quantiles reach: shape (L, P).

    Parameters
    ----------
    values : shape (L, P)
    names : of the P parameters; factors : a scale and a shift of each
    """
    scale, shift = np.array(factors, dtype=np.float32).T
    most = np.array([LOG_LIMIT if name in PARAMETERS["counts"] else np.inf for name in names], dtype=np.float32)
    return np.clip(values * scale + shift, -most, most)


def _factors(values: Any) -> tuple[float, float]:
    if not isinstance(values, list | tuple) or len(values) != 2:
        raise ValueError("recalibration: a parameter has no scale and shift")
    scale, shift = values
    if not (is_number(scale) and is_number(shift)):
        raise ValueError("recalibration: a scale or shift is no number")
    if not (0 < scale <= _MOST_SCALE and abs(shift) <= _MOST_SHIFT):
        raise ValueError("recalibration: a scale or a shift is beyond any fit's")
    return float(scale), float(shift)


def _scores(values: Any) -> dict[str, float]:
    if not isinstance(values, dict) or not all(
        isinstance(name, str) and is_number(value) for name, value in values.items()
    ):
        raise ValueError("recalibration: scores are no numbers by name")
    return {name: float(value) for name, value in values.items()}
