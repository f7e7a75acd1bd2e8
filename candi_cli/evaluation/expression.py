"""Do the features of genes tell how much they are expressed? The paper's validation by RNA-seq.

Methods, "RNA-seq Prediction as Biological Validation": ridge and lasso regressions of the principal components of the
standardised features predict log expression, log(1 + TPM), in a nested cross-validation of 5 outer and 4 inner folds.
Here the genes of a fold are in no other one, in whatever biosample, and alpha is chosen as the variance is.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from candi_cli.evaluation.metrics import pearson, r2, spearman

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
REGRESSIONS = ("ridge", "lasso")
VARIANCES = (0.5, 0.7, 0.8, 0.9)  # fractions that the principal components keep
ALPHAS = {"ridge": (0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0), "lasso": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)}
OUTER_FOLDS, INNER_FOLDS = 5, 4
SCORES: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {"pearson": pearson, "spearman": spearman, "r2": r2}
_ROUNDING = 1e-10  # of a sum of squares: less is none


class Split(NamedTuple):
    """What one outer fold chose within its training genes: the variance kept, in how many components, and alpha."""

    variance: float
    n_components: int
    alpha: float


class Score(NamedTuple):
    """A score of held-out genes and how far it may be off.

    Attributes
    ----------
    value : of all held-out predictions together
    per_fold : shape (OUTER_FOLDS,)
    se_fold : standard error of the mean over folds, which share training genes
    biosample : shape (B,), the biosamples in order
    per_biosample : shape (B,)
    se_biosample : of `value`, by deleting one biosample at a time; NaN of fewer than two
    """

    value: float
    per_fold: Array
    se_fold: float
    biosample: NDArray
    per_biosample: Array
    se_biosample: float


class Prediction(NamedTuple):
    """Predictions of genes by a regression that has not seen them.

    Attributes
    ----------
    values : shape (N,), in the target's unit
    fold : shape (N,), the outer fold in which a row was held out
    splits : what each outer fold chose
    """

    values: Array
    fold: Integers
    splits: list[Split]


def gene_folds(gene: ArrayLike, n_folds: int, *, seed: int) -> Integers:
    """Return the fold of each row, shape (N,): a hash of its gene and the seed, so that it hangs on nothing else.

    Parameters
    ----------
    gene : shape (N,), identifiers
    """
    unique, which = np.unique(np.asarray(gene), return_inverse=True)
    digests = (hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest() for name in unique.tolist())
    folds = np.array([int.from_bytes(digest) % n_folds for digest in digests], dtype=np.int64)
    return folds[which]


def cross_validate(features: Array, target: Array, gene: ArrayLike, *, seed: int = 0) -> dict[str, Prediction]:
    """Return predictions of each row from the genes of other outer folds, by each of REGRESSIONS.

    Within those, inner folds choose the variance that the principal components of the standardised features keep, and
    alpha, by the least squared error of held-out genes. The rows of a gene are never in two folds.

    Parameters
    ----------
    features : shape (N, F), finite; a row is a gene in a biosample
    target : shape (N,), finite: log expression
    gene : shape (N,), identifiers

    Raises
    ------
    ValueError
        An outer or inner fold has no gene, or a value is not finite.
    """
    features, target, gene = np.asarray(features), np.asarray(target, dtype=np.float64), np.asarray(gene)
    if not (np.isfinite(features).all() and np.isfinite(target).all()):
        raise ValueError("features and target must be finite; leave out the genes that lack them")
    fold = gene_folds(gene, OUTER_FOLDS, seed=seed)
    found = {name: Prediction(np.full(len(target), np.nan), fold, []) for name in REGRESSIONS}
    for held_out in _held_out(fold, OUTER_FOLDS):
        train = ~held_out
        chosen = _choose(features[train], target[train], gene[train], seed)
        fit = _Fit(features[train], target[train])
        coordinates = fit.coordinates(features[held_out])
        for name, (variance, alpha) in chosen.items():
            n = fit.count(variance)
            found[name].values[held_out] = fit.predict(coordinates, name, n)[:, ALPHAS[name].index(alpha)]
            found[name].splits.append(Split(variance, n, alpha))
    return found


def _choose(features: Array, target: Array, gene: NDArray, seed: int) -> dict[str, tuple[float, float]]:
    """Return each regression's variance and alpha of the least squared error over inner folds; of equals the first."""
    error = {name: np.zeros((len(VARIANCES), len(ALPHAS[name]))) for name in REGRESSIONS}
    fold = gene_folds(gene, INNER_FOLDS, seed=~seed)  # another hash than that of the outer folds
    for held_out in _held_out(fold, INNER_FOLDS):
        fit = _Fit(features[~held_out], target[~held_out])
        coordinates = fit.coordinates(features[held_out])
        for name, errors in error.items():
            for row, variance in enumerate(VARIANCES):
                predicted = fit.predict(coordinates, name, fit.count(variance))
                errors[row] += np.square(predicted - target[held_out, None]).sum(axis=0)
    best = {name: np.unravel_index(errors.argmin(), errors.shape) for name, errors in error.items()}
    return {name: (VARIANCES[row], ALPHAS[name][column]) for name, (row, column) in best.items()}


def _held_out(fold: Integers, n_folds: int) -> list[NDArray[np.bool_]]:
    """Return which rows each fold holds out."""
    masks = [fold == number for number in range(n_folds)]
    if not all(mask.any() for mask in masks):
        raise ValueError(f"{len(fold)} rows are too few: one of {n_folds} folds has none; take more genes")
    return masks


class _Fit:
    """Regressions on the principal components of standardised features, by the training rows alone.

    The components are orthogonal, so that each has its weight whatever the others: ridge divides the product with the
    target by the component's square plus alpha, lasso first takes alpha N off the product, or all of it. Alpha is
    weighed against the squared error of ridge, |y - Zw|^2 + alpha |w|^2, and of lasso, |y - Zw|^2 / 2N + alpha |w|_1.
    """

    def __init__(self, features: Array, target: Array) -> None:
        self._mean, self._sd = features.mean(axis=0), features.std(axis=0)
        self._sd[self._sd <= np.abs(self._mean) * _ROUNDING] = np.inf  # a constant feature is 0 once standardised
        scaled = (features - self._mean) / self._sd
        self._axes, square, self._kept = _principal_axes(scaled)
        self._target_mean = target.mean()
        product = (scaled @ self._axes).T @ (target - self._target_mean)
        self._weights = {
            "ridge": product[:, None] / (square[:, None] + ALPHAS["ridge"]),
            "lasso": _towards_zero(product[:, None], len(target) * np.array(ALPHAS["lasso"])) / square[:, None],
        }  # (C, alphas)

    def count(self, variance: float) -> int:
        """Return how many components keep a fraction of the variance: the fewest that keep more than it."""
        return min(int(np.searchsorted(self._kept, variance, side="right")) + 1, len(self._kept))

    def coordinates(self, features: Array) -> Array:
        """Return other rows on the principal axes, shape (M, C)."""
        return ((features - self._mean) / self._sd) @ self._axes

    def predict(self, coordinates: Array, regression: str, n_components: int) -> Array:
        """Return predictions by the first components with each of ALPHAS, shape (M, alphas)."""
        return self._target_mean + coordinates[:, :n_components] @ self._weights[regression][:n_components]


def _principal_axes(scaled: Array) -> tuple[Array, Array, Array]:
    """Return the axes that keep the largest of VARIANCES, their sums of squares, and what they keep together.

    Parameters
    ----------
    scaled : shape (N, F), centred
    """
    n_rows, n_columns = scaled.shape
    wide = n_rows < n_columns
    square, vectors = np.linalg.eigh(scaled @ scaled.T if wide else scaled.T @ scaled)
    square, vectors = square[::-1], vectors[:, ::-1]
    there = square > square[0] * _ROUNDING if len(square) else square > 0
    kept = np.cumsum(square[there]) / np.sum(square[there])
    n = min(int(np.searchsorted(kept, max(VARIANCES), side="right")) + 1, len(kept))
    axes = vectors[:, :n]
    if wide:
        axes = scaled.T @ axes / np.sqrt(square[:n])
    return axes, square[:n], kept[:n]


def _towards_zero(values: Array, step: Array) -> Array:
    return np.sign(values) * np.maximum(np.abs(values) - step, 0)


def score_prediction(target: Array, prediction: Prediction, biosample: ArrayLike) -> dict[str, Score]:
    """Return each of SCORES of held-out genes: of all, by outer fold, and by biosample.

    Parameters
    ----------
    target : shape (N,), log expression
    biosample : shape (N,), of each row
    """
    biosample = np.asarray(biosample)
    return {name: _score(score, target, prediction, biosample) for name, score in SCORES.items()}


def _score(
    score: Callable[[ArrayLike, ArrayLike], float], target: Array, prediction: Prediction, biosample: NDArray
) -> Score:
    def of(rows: NDArray[np.bool_]) -> float:
        return score(target[rows], prediction.values[rows])

    names = np.unique(biosample)
    per_fold = np.array([of(prediction.fold == number) for number in range(OUTER_FOLDS)])
    se_fold = float(per_fold.std(ddof=1) / np.sqrt(OUTER_FOLDS))
    per_biosample = np.array([of(biosample == name) for name in names])
    se_biosample = float("nan")
    if len(names) > 1:
        without = np.array([of(biosample != name) for name in names])
        se_biosample = float(np.sqrt((len(names) - 1) * without.var()))
    return Score(score(target, prediction.values), per_fold, se_fold, names, per_biosample, se_biosample)
