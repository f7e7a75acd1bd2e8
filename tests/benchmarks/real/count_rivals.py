"""What denoised counts must beat: the input itself, kernels, pile-ups, and regressions on the track's neighbourhood.

All are fitted to the training part alone. Each is a mean, at the depth of the truth; the dispersion of its negative
binomial is the one that fits its errors on the training part best.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from fragments import RESOLUTION, Fragments, covering, extended
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from scipy.optimize import minimize_scalar
from scipy.stats import poisson
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import PoissonRegressor
from sklearn.preprocessing import StandardScaler

from candi_cli.evaluation.distributions import negative_binomial_log_pmf
from candi_cli.evaluation.metrics import pearson

Array = NDArray[np.float64]
BANDWIDTHS_BP = (25, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200, 1600, 3200)
FEATURE_BP = (0, 25, 50, 100, 200, 400, 800, 1600, 3200, 6400)
LAMBDAS_BP = (1_000, 5_000, 10_000)
EXTENSION_BP = 200
PSEUDO_COUNT = 0.1  # of the input's mean
STRENGTHS = np.geomspace(0.02, 50, 14)  # of the prior of the gamma-Poisson kernel
LEAST = 1e-3


class Denoising:
    """Input and truth of one experiment, of which the rivals are made.

    Parameters
    ----------
    source : the input's fragments
    x, y : shape (L,), counts of input and truth
    train : shape (L,), which bins may be learned from
    span : of the bins, in bp
    seed : of what is drawn
    """

    def __init__(
        self, source: Fragments, x: Array, y: Array, train: NDArray[np.bool_], span: tuple[int, int], seed: int
    ) -> None:
        self.source, self.x, self.y, self.train, self.span, self.seed = source, x, y, train, span, seed
        self.ratio = float(y.sum() / x.sum())

    def at_depth(self, track: Array) -> Array:
        """Return a track whose total is that of the truth."""
        return np.maximum(track * (self.y.sum() / track.sum()), LEAST)

    def smooth(self, bandwidth_bp: float) -> Array:
        """Return the input smoothed by a Gaussian, at the truth's depth."""
        if not bandwidth_bp:
            return self.ratio * self.x
        return self.ratio * gaussian_filter1d(self.x, bandwidth_bp / RESOLUTION, mode="reflect")

    def log_loss(self, mean: Array) -> float:
        """Return the Poisson log-loss on the training part, in nats per bin."""
        return float(-poisson.logpmf(self.y[self.train], np.maximum(mean, LEAST)[self.train]).mean())

    def fit(self, mean: Array) -> float:
        """Return Pearson's correlation on the training part."""
        return pearson(self.y[self.train], mean[self.train])

    @cached_property
    def features(self) -> Array:
        """Logs of the input at several bandwidths: shape (L, F)."""
        return np.log(np.stack([self.smooth(bp) for bp in FEATURE_BP], axis=1) + 0.05)


def copy(given: Denoising) -> Array:
    """Return the input with a pseudo-count, which its total pays for."""
    return given.ratio * (given.x + PSEUDO_COUNT * given.x.mean()) / (1 + PSEUDO_COUNT)


def best_gaussian(given: Denoising, loss: Callable[[Array], float]) -> Array:
    """Return the Gaussian whose bandwidth has the least loss on the training part."""
    return np.maximum(min((given.smooth(bp) for bp in BANDWIDTHS_BP), key=loss), LEAST)


def pile_up(given: Denoising) -> Array:
    """Return coverage by fragments; of single reads, by reads extended to 200 bp."""
    if not given.source.read_length:
        return extended_reads(given)
    return given.at_depth(covering(given.source.start, given.source.end, given.span))


def extended_reads(given: Denoising) -> Array:
    """Return coverage by reads that are extended to 200 bp, as MACS does."""
    return given.at_depth(extended(given.source, EXTENSION_BP, given.span))


def local_lambda(given: Denoising) -> Array:
    """Return the largest of the means over 1, 5 and 10 kb, and over all."""
    means = [uniform_filter1d(given.x, round(bp / RESOLUTION), mode="reflect") for bp in LAMBDAS_BP]
    return np.maximum(given.ratio * np.max([*means, np.full_like(given.x, given.x.mean())], axis=0), LEAST)


def gamma_poisson(given: Denoising) -> Array:
    """Return the posterior mean of a rate whose gamma prior has the mean of a wide kernel, seen through a narrow one.

    Both bandwidths and the prior's shape have the least log-loss on the training part.
    """
    smooth = {bp: np.maximum(given.smooth(bp), LEAST) for bp in BANDWIDTHS_BP}
    best, least = smooth[BANDWIDTHS_BP[0]], np.inf
    for narrow in BANDWIDTHS_BP[:8]:
        n_bins = max(2 * np.sqrt(np.pi) * narrow / RESOLUTION, 1.0)  # that the kernel is worth: 1 / sum of its squares
        for wide in (bp for bp in BANDWIDTHS_BP if bp >= 2 * narrow):
            prior, seen = smooth[wide] / given.ratio, smooth[narrow] / given.ratio
            for strength in STRENGTHS:
                mean = given.ratio * (strength + n_bins * seen) / (strength / prior + n_bins)
                loss = given.log_loss(mean)
                if loss < least:
                    best, least = mean, loss
    return best


def glm(given: Denoising) -> Array:
    """Return a Poisson regression on the track at several bandwidths."""
    x = StandardScaler().fit(given.features[given.train]).transform(given.features)
    model = PoissonRegressor(alpha=1e-4, max_iter=500).fit(x[given.train], given.y[given.train])
    return np.maximum(model.predict(x), LEAST)


def boosting(given: Denoising) -> Array:
    """Return Poisson boosted trees on the track at several bandwidths."""
    model = HistGradientBoostingRegressor(
        loss="poisson", max_iter=150, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=200,
        l2_regularization=1.0, early_stopping=False, random_state=given.seed,
    )  # fmt: skip
    model.fit(given.features[given.train], given.y[given.train])
    return np.maximum(model.predict(given.features), LEAST)


RIVALS: dict[str, Callable[[Denoising], Array]] = {
    "input copy": copy,
    "Gaussian (best Pearson)": lambda given: best_gaussian(given, lambda mean: -given.fit(mean)),
    "Gaussian (best log-loss)": lambda given: best_gaussian(given, given.log_loss),
    "fragment pile-up": pile_up,
    "200 bp extension": extended_reads,
    "local lambda": local_lambda,
    "gamma-Poisson kernel": gamma_poisson,
    "Poisson GLM": glm,
    "boosting": boosting,
}


def log_dispersion(truth: Array, mean: Array) -> float:
    """Return the log of the one dispersion that fits errors best."""

    def loss(log_n: float) -> float:
        return -float(negative_binomial_log_pmf(truth, np.log(mean), log_n).mean())

    return float(minimize_scalar(loss, bounds=(-4, 8), method="bounded").x)
