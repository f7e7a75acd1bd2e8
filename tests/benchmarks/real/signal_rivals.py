"""What an imputed track must beat: other cells' average in several forms, and regressions on neighbourhoods.

Every rival learns from chr1-19 of the other cells only, or of a known cell as well, and gives a Gaussian: its sd is
looked up by the predicted mean among residuals of cells that it did not learn from (each of the others in turn, from
those that remain).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from candi_cli.evaluation.baselines import quantile_matched

Float = NDArray[np.float32]
Array = NDArray[np.float64]
Tracks = Mapping[str, Mapping[str, Float]]  # of each cell, of each mark: shape (L,)
WIDTHS = (1, 3, 11, 41, 161, 641)  # bins, of the means around a bin
SMOOTHED = 11
N_ROWS = 200_000  # that are learned from
N_RESIDUALS = 60_000  # of each cell that was left out, for the sd
N_STRATA = 40  # of the predicted mean, of equal numbers of bins
ALPHA = 100.0


class Setting(NamedTuple):
    """What rivals may use.

    Attributes
    ----------
    tracks : arcsinh(-log10 p) of cells; the mark to be predicted is looked up in the others alone
    edges : shape (R + 1,), where regions begin, and the last one ends
    train : shape (L,), bins that may be learned from
    marks : of all cells
    seed : of what is drawn
    known : the cell itself may be learned from, too
    """

    tracks: Tracks
    edges: NDArray[np.int64]
    train: NDArray[np.bool_]
    marks: Sequence[str]
    seed: int
    known: bool = False


Rows = NDArray[np.int64]
Rival = Callable[[Setting, str, str, Sequence[str], Rows], Float]


def box(track: NDArray, width: int, edges: NDArray[np.int64]) -> Float:
    """Return the mean over `width` bins around each bin, within its region."""
    if width == 1:
        return track.astype(np.float32)
    pieces = [uniform_filter1d(track[start:end], width, mode="reflect") for start, end in pairwise(edges)]
    return np.concatenate(pieces).astype(np.float32)


def average(setting: Setting, cell: str, mark: str, others: Sequence[str], rows: Rows) -> Float:
    """Return the mean of the other cells, of some bins."""
    return _average(setting, mark, others)[rows]


def _average(setting: Setting, mark: str, others: Sequence[str]) -> Float:
    return np.mean([setting.tracks[other][mark] for other in others], axis=0, dtype=np.float32)


def matched(setting: Setting, cell: str, mark: str, others: Sequence[str], rows: Rows) -> Float:
    """Return their mean with the distribution of their values."""
    values = np.concatenate([setting.tracks[other][mark][setting.train] for other in others])
    return quantile_matched(_average(setting, mark, others), values)[rows].astype(np.float32)


def smoothed_average(setting: Setting, cell: str, mark: str, others: Sequence[str], rows: Rows) -> Float:
    """Return their mean, smoothed over 11 bins."""
    return box(_average(setting, mark, others), SMOOTHED, setting.edges)[rows]


def ridge(setting: Setting, cell: str, mark: str, others: Sequence[str], rows: Rows) -> Float:
    """Return a ridge regression on z-scored means of several widths of the cell's marks and the others' average."""
    x, y = _learned_from(setting, cell, mark, others)
    linear = Ridge(alpha=ALPHA).fit(x, y)
    return linear.predict(_features(setting, cell, mark, others)[rows]).astype(np.float32)


def boosted_ridge(setting: Setting, cell: str, mark: str, others: Sequence[str], rows: Rows) -> Float:
    """Return the same, with boosted trees on what it leaves."""
    x, y = _learned_from(setting, cell, mark, others)
    linear = Ridge(alpha=ALPHA).fit(x, y)
    trees = HistGradientBoostingRegressor(
        max_iter=100, learning_rate=0.1, max_leaf_nodes=31, min_samples_leaf=100, early_stopping=False,
        random_state=setting.seed,
    ).fit(x, y - linear.predict(x))  # fmt: skip
    own = _features(setting, cell, mark, others)[rows]
    return (linear.predict(own) + trees.predict(own)).astype(np.float32)


def _learned_from(setting: Setting, cell: str, mark: str, others: Sequence[str]) -> tuple[Float, Float]:
    """Return features and values of the mark in each of the others, by its own other marks and those that remain.

    A known cell joins them, by the average of all others.
    """
    rng = np.random.default_rng(setting.seed)
    parts, values = [], []
    learned = (*others, cell) if setting.known else tuple(others)
    for other in learned:
        rows = _drawn(setting, N_ROWS // len(learned), rng)
        rest = [name for name in others if name != other]
        parts.append(_features(setting, other, mark, rest)[rows])
        values.append(setting.tracks[other][mark][rows])
    return np.concatenate(parts), np.concatenate(values)


def _drawn(setting: Setting, n: int, rng: np.random.Generator) -> Rows:
    """Return some bins that may be learned from, in order."""
    rows = np.flatnonzero(setting.train)
    return np.sort(rng.choice(rows, min(len(rows), n), replace=False))


def _features(setting: Setting, cell: str, mark: str, others: Sequence[str]) -> Float:
    """Return means of several widths of each track, z-scored by the track's own bins that are learned from: (L, F)."""
    tracks = [setting.tracks[cell][name] for name in setting.marks if name != mark]
    tracks.append(_average(setting, mark, others))
    columns = []
    for track in tracks:
        known = track[setting.train]
        scaled = (track - known.mean()) / max(float(known.std()), 1e-6)
        columns += [box(scaled, width, setting.edges) for width in WIDTHS]
    return np.stack(columns, axis=1)


RIVALS: dict[str, Rival] = {
    "average of others": average,
    "average, quantile-matched": matched,
    "average, smoothed": smoothed_average,
    "z-ridge": ridge,
    "boosting on z-ridge": boosted_ridge,
}
LEARNING = ("z-ridge", "boosting on z-ridge")


def with_spread(rival: Rival, setting: Setting, cell: str, mark: str, others: Sequence[str], rows: Rows) -> Float:
    """Return a rival's mean and sd in some bins: shape (2, rows)."""
    mean = rival(setting, cell, mark, others, rows)
    setting = setting._replace(known=False)
    rng = np.random.default_rng(setting.seed)
    predicted, residual = [], []
    for other in others:
        drawn = _drawn(setting, N_RESIDUALS, rng)
        found = rival(setting, other, mark, [name for name in others if name != other], drawn)
        predicted.append(found)
        residual.append(setting.tracks[other][mark][drawn] - found)
    return np.stack([mean, spread_of(np.concatenate(predicted), np.concatenate(residual), mean)])


def spread_of(predicted: NDArray, residual: NDArray, mean: NDArray) -> Float:
    """Return the root mean square of residuals whose predictions are in the same stratum: shape of `mean`."""
    edges = np.unique(np.quantile(predicted, np.arange(1, N_STRATA) / N_STRATA))
    stratum = np.searchsorted(edges, predicted, side="right")
    n = np.bincount(stratum, minlength=len(edges) + 1)
    square = np.bincount(stratum, np.square(residual, dtype=np.float64), minlength=len(edges) + 1)
    spread = np.sqrt(square / np.maximum(n, 1))
    return np.maximum(spread, 1e-3)[np.searchsorted(edges, mean, side="right")].astype(np.float32)
