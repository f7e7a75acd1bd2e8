"""The levels that central intervals must be asked for, to cover what they say, at each strength of prediction.

The interval of whole counts around a small mean holds far more than its level, that around a large one just its level.
One map for all bins would therefore be right on average alone: too narrow where the signal is, too wide elsewhere. So
bins are taken apart by what is expected in them, and each stratum has a conformal map of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from candi_cli.evaluation.recalibration import LEVEL_GRID, LevelMap, fit_level_map

Array = NDArray[np.float64]
EDGES = {  # of strata: of the log mean of counts (0.1 to 30 reads per bin), and of the mean of arcsinh(-log10 p)
    "counts": tuple(np.log([0.1, 0.3, 1.0, 3.0, 10.0, 30.0]).tolist()),
    "signal": (0.1, 0.25, 0.5, 1.0, 2.0, 3.0),
}
LEAST_BINS = 500  # of a stratum that has a map of its own


@dataclass(frozen=True)
class Levels:
    """Maps of the levels of central intervals.

    Attributes
    ----------
    kind : `counts` or `signal`
    maps : one of each stratum, in the order of `EDGES`
    """

    kind: str
    maps: tuple[LevelMap, ...]

    def at(self, level: float, location: ArrayLike) -> Array:
        """Return the level to ask for in each bin, for an interval that is to cover `level`: shape (L,).

        Parameters
        ----------
        location : shape (L,), the log mean of counts, or the mean of signal
        """
        return np.array([each.apply([level])[0] for each in self.maps])[self.strata(location)]

    def strata(self, location: ArrayLike) -> NDArray[np.intp]:
        """Return the stratum of each bin: shape (L,); NaN is in the last."""
        return strata(self.kind, location)

    def to_json(self) -> list[list[float]]:
        """Return the levels of each map."""
        return [list(each.levels) for each in self.maps]

    @classmethod
    def from_json(cls, kind: str, content: Any) -> "Levels":
        """Return what `to_json` told; a ValueError says what is wrong with it."""
        if kind not in EDGES or not isinstance(content, list | tuple) or len(content) != len(EDGES[kind]) + 1:
            raise ValueError(f"levels of {kind} are no list of one map for each stratum")
        return cls(kind, tuple(LevelMap.from_json({"note": "", "levels": each}) for each in content))


def strata(kind: str, location: ArrayLike) -> NDArray[np.intp]:
    """Return the stratum of each bin by what is expected in it: shape (L,)."""
    return np.searchsorted(EDGES[kind], np.asarray(location, dtype=np.float64), side="right")


def fit_levels(kind: str, critical: ArrayLike, location: ArrayLike) -> Levels:
    """Fit a map to each stratum that has at least `LEAST_BINS` bins.

    A stratum with fewer takes the map of the nearest one that has one, but no level below what is asked for: what was
    found where little is expected does not hold where much is.

    Parameters
    ----------
    critical : shape (L,), as `calibration.critical_levels` returns them, of held-out bins
    location : shape (L,), the log mean of counts, or the mean of signal
    """
    critical, which = np.asarray(critical, dtype=np.float64), strata(kind, location)
    n_strata = len(EDGES[kind]) + 1
    sizes = np.bincount(which, minlength=n_strata)
    filled = [number for number in range(n_strata) if sizes[number] >= LEAST_BINS]
    found = {number: fit_level_map(critical[which == number]) for number in filled}
    return Levels(kind, tuple(found.get(number) or _borrowed(number, filled, found) for number in range(n_strata)))


def _borrowed(number: int, filled: Sequence[int], found: dict[int, LevelMap]) -> LevelMap:
    if not filled:
        return LevelMap()
    nearest = min(filled, key=lambda other: abs(other - number))
    return LevelMap(levels=tuple(np.maximum(found[nearest].levels, LEVEL_GRID).tolist()))
