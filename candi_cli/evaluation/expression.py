"""Do the features of genes tell how much they are expressed? The paper's validation by RNA-seq.

Methods, "RNA-seq Prediction as Biological Validation": ridge and lasso regressions of the principal components of the
standardised features predict log expression, log(1 + TPM), in a nested cross-validation of 5 outer and 4 inner folds.
Here the genes of a fold are in no other one, in whatever biosample, and alpha is chosen as the variance is.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from candi_cli.errors import RequestError
from candi_cli.evaluation.metrics import pearson, r2, spearman

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
REGRESSIONS = ("ridge", "lasso")
VARIANCES = (0.5, 0.7, 0.8, 0.9)  # fractions that the principal components keep
ALPHAS = {"ridge": (0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0), "lasso": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)}
OUTER_FOLDS, INNER_FOLDS = 5, 4
SCORES: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {"pearson": pearson, "spearman": spearman, "r2": r2}
_LASSO_SWEEPS = 10_000


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
    RequestError
        scikit-learn is not installed.
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
        components = _Components(features[train])
        projected = components.of(features[held_out])
        for name, (variance, alpha) in chosen.items():
            n = components.count(variance)
            model = _fit(name, alpha, components.train[:, :n], target[train])
            found[name].values[held_out] = model.predict(projected[:, :n])
            found[name].splits.append(Split(variance, n, alpha))
    return found


def _choose(features: Array, target: Array, gene: NDArray, seed: int) -> dict[str, tuple[float, float]]:
    """Return each regression's variance and alpha of the least squared error over inner folds; of equals the first."""
    error = {name: np.zeros((len(VARIANCES), len(ALPHAS[name]))) for name in REGRESSIONS}
    fold = gene_folds(gene, INNER_FOLDS, seed=~seed)  # another hash than that of the outer folds
    for held_out in _held_out(fold, INNER_FOLDS):
        components = _Components(features[~held_out])
        projected = components.of(features[held_out])
        for row, variance in enumerate(VARIANCES):
            n = components.count(variance)
            for name in REGRESSIONS:
                for column, alpha in enumerate(ALPHAS[name]):
                    model = _fit(name, alpha, components.train[:, :n], target[~held_out])
                    error[name][row, column] += np.square(model.predict(projected[:, :n]) - target[held_out]).sum()
    best = {name: np.unravel_index(errors.argmin(), errors.shape) for name, errors in error.items()}
    return {name: (VARIANCES[row], ALPHAS[name][column]) for name, (row, column) in best.items()}


def _held_out(fold: Integers, n_folds: int) -> list[NDArray[np.bool_]]:
    """Return which rows each fold holds out."""
    masks = [fold == number for number in range(n_folds)]
    if not all(mask.any() for mask in masks):
        raise ValueError(f"{len(fold)} rows are too few: one of {n_folds} folds has none; take more genes")
    return masks


class _Components:
    """Principal components of standardised features, by the training rows alone.

    Attributes
    ----------
    train : shape (N, C), the training rows' coordinates
    """

    def __init__(self, features: Array) -> None:
        decomposition, preprocessing = _scikit_learn("decomposition"), _scikit_learn("preprocessing")
        n_rows, n_columns = features.shape
        self._scaler = preprocessing.StandardScaler()
        self._pca = decomposition.PCA(svd_solver="covariance_eigh" if n_rows > n_columns else "full")
        with np.errstate(invalid="ignore"):  # of features without any variance
            self.train: Array = self._pca.fit_transform(self._scaler.fit_transform(features))

    def count(self, variance: float) -> int:
        """Return how many components keep a fraction of the variance: the fewest that keep more than it."""
        kept = np.cumsum(self._pca.explained_variance_ratio_)
        return min(int(np.searchsorted(kept, variance, side="right")) + 1, len(kept))

    def of(self, features: Array) -> Array:
        """Return the coordinates of other rows."""
        return self._pca.transform(self._scaler.transform(features))


def _fit(regression: str, alpha: float, features: Array, target: Array) -> Any:
    linear = _scikit_learn("linear_model")
    if regression == "ridge":
        return linear.Ridge(alpha=alpha).fit(features, target)
    return linear.Lasso(alpha=alpha, precompute=True, max_iter=_LASSO_SWEEPS).fit(features, target)


def _scikit_learn(module: str) -> Any:
    try:
        import sklearn.decomposition
        import sklearn.linear_model
        import sklearn.preprocessing
    except ImportError as error:
        raise RequestError(
            "--expression: scikit-learn is not installed; install it with pip install 'candi[expression]'"
        ) from error
    return getattr(sklearn, module)


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
