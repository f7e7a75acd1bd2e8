"""Concordance: how often a prediction puts two bins in the order in which they were observed.

Three statistics share the name. Of a pair of bins with different observed values, let z be the margin by which the
prediction puts the one observed higher above the other: for Gaussians (mean_hi - mean_lo) / sqrt(sd_hi^2 + sd_lo^2), so
that Phi(z) is the probability that an independent draw of each would be in the observed order; for counts the log odds
of that probability, a tie of the draws counting half. Over pairs, with z and z' those of two independent pairs,

    A = P(z + z' > 0) + P(z + z' = 0) / 2    `auc`, the paper's C-index: the area under the ROC curve of the predicted
                                             P(Y_i > Y_j) against the observed order, over pairs (i, j) either way round
    M = mean of P(hi above lo)               `oriented`: below 1 for every honest prediction that has any spread
    H = P(d > 0) + P(d = 0) / 2              `harrell`, of d = mean_hi - mean_lo: Harrell's C, which no sd changes

They differ: if mean and observation are bivariate normal with correlation r and every sd is the same, then
H = 1/2 + asin(r) / pi and A = 1/2 + (2 / pi) asin(r / sqrt 2). Tied observations have no order: left out.

Harrell, Lee & Mark (1996), Statistics in Medicine 15, 361; Kendall (1938), Biometrika 30, 81; A is the functional of
Wilcoxon (1945), Biometrics Bulletin 1, 80.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, ndtr
from scipy.stats import kendalltau

from candi_cli.evaluation.comparing_counts import log_odds_of_higher
from candi_cli.evaluation.pair_tally import BlockTally, PairTally

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
GROUPS = 16  # of pairs, whose scatter is the Monte Carlo error
_CHUNK = 1 << 17  # pairs at a time


class Concordance(NamedTuple):
    """The concordance of a predicted with an observed track; what does not exist is NaN, with the reason.

    auc : A, over pairs of predicted P(Y_i > Y_j) against observed order; auc_error : Monte Carlo standard error
    oriented : M, mean predicted probability of the observed order; oriented_error : as above
    harrell : H, over the same pairs; harrell_error : as above
    harrell_exact : H over all pairs, NaN if it was not asked for
    comparable : fraction of all pairs of bins whose observed values differ
    n_pairs : comparable pairs that were looked at
    auc_block_error : standard error of A over genomic blocks, which are deleted one at a time; NaN if none were given
    reason : why a number is NaN that was asked for, or empty
    """

    auc: float
    auc_error: float
    oriented: float
    oriented_error: float
    harrell: float
    harrell_error: float
    harrell_exact: float
    comparable: float
    n_pairs: int
    auc_block_error: float
    reason: str


class _Pairs(NamedTuple):
    """Comparable pairs: positions of the bin observed higher and of the other, each of shape (pairs,)."""

    group: int
    higher: Integers
    lower: Integers


Compare = Callable[[Integers, Integers], tuple[Array, Array, Array]]  # pairs -> margins, probabilities, differences


def gaussian_concordance(
    observed: ArrayLike,
    mean: ArrayLike,
    sd: ArrayLike,
    *,
    n_pairs: int = 2_000_000,
    seed: int = 0,
    blocks: ArrayLike | None = None,
    exact: bool = True,
) -> Concordance:
    """Return the concordance of Gaussian predictions.

    Pairs are those of a random order of the bins and itself shifted, for as many shifts as it takes: every bin comes
    equally often. All pairs are taken where they are at most twice as many as asked for; then there is no Monte Carlo
    error. With fewer pairs than bins the error is somewhat too large, at most by a third, as each group of pairs has
    bins of its own.

    Parameters
    ----------
    observed, mean, sd : shape (L,), in the same units, sd > 0
    n_pairs : pairs to draw, tied ones among them
    seed : of the order of the bins and the shifts
    blocks : shape (L,), labels of genomic blocks (such as of 1 Mb), whole numbers
    exact : count all pairs for `harrell_exact` as well
    """
    observed, mean, sd = _tracks(observed=observed, mean=mean, sd=sd)
    if (sd <= 0).any():
        raise ValueError("sd must be positive")

    def prepare(bins: slice | Integers) -> Compare:
        centre, width = mean[bins].astype(np.float64), sd[bins].astype(np.float64)
        variance = np.square(width)

        def compare(higher: Integers, lower: Integers) -> tuple[Array, Array, Array]:
            difference = centre[higher] - centre[lower]
            z = difference / np.sqrt(variance[higher] + variance[lower])
            return z, ndtr(z), difference

        return compare

    return _concordance(observed, mean, prepare, n_pairs, seed, blocks, exact)


def negative_binomial_concordance(
    observed: ArrayLike,
    log_mean: ArrayLike,
    log_dispersion: ArrayLike,
    *,
    n_pairs: int = 1_000_000,
    seed: int = 0,
    blocks: ArrayLike | None = None,
    exact: bool = True,
) -> Concordance:
    """Return the concordance of negative binomial predictions, with exact probabilities (`comparing_counts`).

    Parameters
    ----------
    observed : shape (L,), reads per bin
    log_mean, log_dispersion : shape (L,), natural logs, of reads per bin and of n
    n_pairs, seed, blocks, exact : as in `gaussian_concordance`
    """
    observed, log_mean, log_dispersion = _tracks(observed=observed, log_mean=log_mean, log_dispersion=log_dispersion)

    def prepare(bins: slice | Integers) -> Compare:
        parameters = np.stack([log_mean[bins], log_dispersion[bins]]).astype(np.float64)

        def compare(higher: Integers, lower: Integers) -> tuple[Array, Array, Array]:
            means, dispersions = (np.stack([track[higher], track[lower]]) for track in parameters)
            log_odds = log_odds_of_higher(means, dispersions)
            return log_odds, expit(log_odds), means[0] - means[1]

        return compare

    return _concordance(observed, log_mean, prepare, n_pairs, seed, blocks, exact)


def harrell_exact(observed: ArrayLike, predicted: ArrayLike) -> float:
    """Return Harrell's C over all pairs, 1/2 + (concordant - discordant) / (2 comparable); NaN if none is comparable.

    The difference is that of Kendall's tau_b, which is found in O(L log L).

    Parameters
    ----------
    observed, predicted : shape (L,); only the order of their values matters
    """
    observed, predicted = _tracks(observed=observed, predicted=predicted)
    return _harrell(observed, predicted, _tied_pairs(observed))


def _harrell(observed: NDArray, predicted: NDArray, tied_observed: int) -> float:
    pairs = math.comb(len(observed), 2)
    comparable, unequal = pairs - tied_observed, pairs - _tied_pairs(predicted)
    if not comparable:
        return math.nan
    if not unequal:
        return 0.5
    if len(observed) == 2:  # the variance of tau, found with it, does not exist
        return float((observed[0] < observed[1]) == (predicted[0] < predicted[1]))
    tau = kendalltau(observed, predicted, method="asymptotic").statistic
    return float(0.5 + 0.5 * tau * math.sqrt(unequal / comparable))


def _tied_pairs(track: NDArray) -> int:
    values = np.sort(track)
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
    runs = np.diff(ends, prepend=-1)
    return int((runs * (runs - 1) // 2).sum())


def _concordance(
    observed: NDArray,
    predicted: NDArray,
    prepare: Callable[[slice | Integers], Compare],
    n_pairs: int,
    seed: int,
    blocks: ArrayLike | None,
    exact: bool,
) -> Concordance:
    if n_pairs < 1:
        raise ValueError("n_pairs must be at least 1")
    numbers, n_blocks = _block_numbers(blocks, len(observed))
    all_pairs = math.comb(len(observed), 2)
    tied = _tied_pairs(observed)
    if tied == all_pairs:
        return _nothing(0.0, "the observed track is constant") if tied else _nothing(math.nan, "fewer than two bins")
    rng = np.random.default_rng(seed)
    exhaustive = n_pairs >= all_pairs / 2
    bins = slice(None) if exhaustive else _order_of_bins(len(observed), n_pairs, rng)
    tally, block_tally = PairTally.empty(GROUPS), BlockTally.empty(n_blocks)
    compare, numbers = prepare(bins), numbers[bins] if n_blocks else numbers
    for pairs in _comparable_pairs(observed[bins], n_pairs, rng):
        margin, probability, difference = compare(pairs.higher, pairs.lower)
        tally.add(pairs.group, margin, probability, difference)
        if n_blocks:
            block_tally.add(margin, numbers[pairs.higher], numbers[pairs.lower])
    found = _summarise(tally, exhaustive)
    block_error = block_tally.auc_error()
    if not found.reason and n_blocks and math.isnan(block_error):
        found = found._replace(reason="fewer than two blocks with different observed values")
    return found._replace(
        harrell_exact=_harrell(observed, predicted, tied) if exact else math.nan,
        comparable=1 - tied / all_pairs,
        auc_block_error=block_error,
    )


def _summarise(tally: PairTally, exhaustive: bool) -> Concordance:
    whole, groups = tally.pooled(), tally.n_pairs > 0

    def error(statistic: Array) -> float:
        scatter = statistic[groups]
        if exhaustive:
            return 0.0
        return math.sqrt(scatter.var(ddof=1) / len(scatter)) if len(scatter) > 1 else math.nan

    n_pairs, reason = int(whole.n_pairs[0]), ""
    if not n_pairs:
        reason = "no pair that was drawn has different observed values"
    elif not exhaustive and groups.sum() < 2:
        reason = "too few pairs that were drawn have different observed values"
    return _nothing(math.nan, reason)._replace(
        auc=float(whole.auc()[0]),
        auc_error=error(tally.auc()),
        oriented=float(whole.oriented()[0]),
        oriented_error=error(tally.oriented()),
        harrell=float(whole.harrell()[0]),
        harrell_error=error(tally.harrell()),
        n_pairs=n_pairs,
    )


def _nothing(comparable: float, reason: str) -> Concordance:
    nan = math.nan
    return Concordance(nan, nan, nan, nan, nan, nan, nan, comparable, 0, nan, reason)


def _order_of_bins(n_bins: int, n_pairs: int, rng: np.random.Generator) -> Integers:
    """Return the bins in random order, or, of many more bins than pairs, a random part of them."""
    if n_bins > 4 * n_pairs:
        return rng.permutation(np.unique(rng.integers(0, n_bins, 2 * n_pairs)))
    return rng.permutation(n_bins)


def _comparable_pairs(observed: NDArray, n_pairs: int, rng: np.random.Generator) -> Iterator[_Pairs]:
    """Draw pairs of a track in random order: each place with the one a shift further on, round and round.

    A shift and its complement make the same pairs, so that shifts go to half the track; all of them make all pairs.
    """
    n_bins = len(observed)
    all_pairs = math.comb(n_bins, 2)
    if n_pairs >= all_pairs / 2:
        n_pairs, shifts = all_pairs, np.arange(1, n_bins // 2 + 1)
    else:
        shifts = 1 + rng.choice((n_bins - 1) // 2, -(-n_pairs // n_bins), replace=False)
    ends = np.linspace(0, n_pairs, GROUPS + 1).astype(np.int64)
    for group in range(GROUPS):
        for start in range(ends[group], ends[group + 1], _CHUNK):
            turn, one = np.divmod(np.arange(start, min(start + _CHUNK, ends[group + 1])), n_bins)
            other = one + shifts[turn]
            other[other >= n_bins] -= n_bins
            differ = observed[one] != observed[other]
            one, other = one[differ], other[differ]
            rises = observed[one] > observed[other]
            yield _Pairs(group, np.where(rises, one, other), np.where(rises, other, one))


def _tracks(**tracks: ArrayLike) -> list[NDArray]:
    arrays = [np.asarray(track) for track in tracks.values()]
    for name, array in zip(tracks, arrays, strict=True):
        if array.ndim != 1 or array.shape != arrays[0].shape:
            raise ValueError(f"{name} of shape {array.shape}; all tracks must be of one shape (L,)")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite everywhere; leave out the bins that were not measured")
    return arrays


def _block_numbers(blocks: ArrayLike | None, n_bins: int) -> tuple[Integers, int]:
    """Return the blocks numbered from 0, and how many there are; neighbouring bins mostly have the same."""
    if blocks is None:
        return np.empty(0, dtype=np.int64), 0
    labels = np.asarray(blocks)
    if labels.shape != (n_bins,):
        raise ValueError(f"blocks of shape {labels.shape} for {n_bins} bins")
    starts = np.append(0, np.flatnonzero(labels[1:] != labels[:-1]) + 1)[:n_bins]
    distinct, numbers = np.unique(labels[starts], return_inverse=True)
    return np.repeat(numbers, np.diff(starts, append=n_bins)), len(distinct)
