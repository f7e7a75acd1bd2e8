"""Everything that a table of calibration needs to know of one track, as sums over genomic blocks that add up.

A tally is made of any bins (a chunk, a chromosome, the promoters in it), and tallies of the same blocks add up to what
one tally of all the bins would be: whole numbers exactly, other sums to within rounding. Scores come with the standard
error of the delete-one-block jackknife, as neighbouring bins are not independent.

A discrete forecast covers more than it says: the interval of whole counts that holds at least 0.5 may hold 0.9. What a
perfect forecast of these very distributions would cover is the expected coverage, the mean over bins of F(upper) -
F(lower-) of their own intervals. It and the widths of intervals need quantiles, and so are of a sample: the 8,192 bins
with the lowest hash of their position and content. That choice does not depend on the order, or on how bins are
divided among tallies, as long as each bin is given the same position. It is random with respect to the genome, and
its standard error is part of that of the scores.

Signal is over arcsinh(-log10 p) throughout, and so are its sd and widths; read as a normal censored at 0, its mean and
sd are those of the distribution after censoring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from candi_cli.evaluation.calibration import INTERVAL_LEVELS, PIT_LEVELS, coverage, critical_levels, pit_curve
from candi_cli.evaluation.crps import censored_normal_crps, gaussian_crps, negative_binomial_crps
from candi_cli.evaluation.distributions import (
    Cumulative,
    censored_normal_cdf,
    censored_normal_log_likelihood,
    gaussian_cdf,
    gaussian_log_pdf,
    negative_binomial_cdf,
    negative_binomial_log_pmf,
)
from candi_cli.evaluation.tracks import LOG_LIMIT, negative_binomial_quantiles, negative_binomial_sd

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
LEVELS = np.append(INTERVAL_LEVELS, 0.99)  # of central intervals, rising
SHOWN_LEVELS = (0.5, 0.8, 0.9, 0.95)  # whose coverage is a score
WIDTH_LEVELS = (0.5, 0.9, 0.95)  # whose mean width is a score
SAMPLE_BINS = 8192
_CHUNK = 1 << 18  # bins at a time, which bounds memory


class Score(NamedTuple):
    """A score and its jackknife standard error; NaN where there is none: no bins, or fewer than two blocks of them."""

    value: float
    se: float


class Curves(NamedTuple):
    """Curves of calibration.

    Attributes
    ----------
    pit : shape (21,), mean distribution function of the PIT at `PIT_LEVELS`; these levels where the forecast is right
    coverage : shape (20,), fraction of bins inside their central interval of each of `LEVELS`
    expected : shape (20,), that fraction if the forecasts were right
    """

    pit: Array
    coverage: Array
    expected: Array


class Intervals(NamedTuple):
    """Of central intervals of predicted distributions, each of shape (C, L).

    Attributes
    ----------
    probability : that the distribution has in its own interval, F(upper) - F(lower-)
    width : upper - lower
    """

    probability: Array
    width: Array


class Sample(NamedTuple):
    """Some bins of a tally, in the order of their hashes.

    Attributes
    ----------
    key : shape (S,), hashes
    block : shape (S,)
    parameters : shape (2, S)
    """

    key: NDArray[np.uint64]
    block: Counts
    parameters: Array

    def lowest(self) -> "Sample":
        """Return at most SAMPLE_BINS bins: those of the lowest hashes."""
        chosen = np.arange(len(self.key))
        if len(chosen) > SAMPLE_BINS:
            chosen = np.argpartition(self.key, SAMPLE_BINS)[:SAMPLE_BINS]
        chosen = chosen[np.argsort(self.key[chosen], kind="stable")]
        return Sample(self.key[chosen], self.block[chosen], self.parameters[:, chosen])


@dataclass(frozen=True, eq=False)
class DistributionTally:
    """Sums over bins of each genomic block; B blocks.

    Attributes
    ----------
    kind : "counts" or "signal"
    censored : whether signal is read as a normal censored at 0
    n : shape (B,), bins
    log_likelihood, crps : shape (B,), in nats, and in the units of the track
    pit : shape (B, 21), distribution functions of the non-randomised PIT at `PIT_LEVELS`
    inside : shape (B, 20), bins inside their central interval of each of `LEVELS`
    observed, mean, sd : shape (B,), of what was observed, and of the predicted distributions
    sample : bins for what needs quantiles
    """

    kind: str
    censored: bool
    n: Counts
    log_likelihood: Array
    crps: Array
    pit: Array
    inside: Counts
    observed: Array
    mean: Array
    sd: Array
    sample: Sample

    def __add__(self, other: "DistributionTally") -> "DistributionTally":
        mine, others = ((each.kind, each.censored, len(each.n)) for each in (self, other))
        if mine != others:
            raise ValueError(f"tallies of (kind, censored, blocks) {mine} and {others} do not add up")
        pairs = zip(self.sample, other.sample, strict=True)
        sample = Sample(*(np.concatenate(pair, axis=-1) for pair in pairs)).lowest()
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMS}
        return DistributionTally(self.kind, self.censored, **sums, sample=sample)


_SUMS = ("n", "log_likelihood", "crps", "pit", "inside", "observed", "mean", "sd")


def tally(
    kind: str,
    observed: ArrayLike,
    parameters: Sequence[ArrayLike] | NDArray,
    blocks: ArrayLike,
    n_blocks: int,
    *,
    censored: bool = False,
    positions: ArrayLike | None = None,
) -> DistributionTally:
    """Return the tally of some bins.

    Parameters
    ----------
    kind : "counts" or "signal"
    observed : shape (L,), finite: leave out what was not measured first
    parameters : shape (2, L): log mean and log dispersion, or mean and sd
    blocks : shape (L,), the number of each bin's genomic block, 0 .. n_blocks - 1; fastest where they are in order
    censored : read signal as a normal censored at 0
    positions : shape (L,), whole numbers that tell each bin from all others, such as its number in the genome: the
        sample depends on them. By default 0, 1, ..., which do for bins that are all given at once.
    """
    if kind not in ("counts", "signal"):
        raise ValueError(f"no tally of distributions of {kind!r}; counts and signal have one")
    if censored and kind != "signal":
        raise ValueError("only signal can be read as censored at 0")
    observed = np.asarray(observed, dtype=np.float64)
    values = np.stack([np.broadcast_to(np.asarray(each, np.float64), observed.shape) for each in parameters])
    blocks = np.asarray(blocks, dtype=np.int64)
    places = np.arange(len(observed)) if positions is None else np.asarray(positions, dtype=np.int64)
    _check(observed, values, blocks, n_blocks, places)
    if (np.diff(blocks) < 0).any():
        order = np.argsort(blocks, kind="stable")
        observed, values, blocks, places = observed[order], values[:, order], blocks[order], places[order]
    total = _empty(kind, censored, n_blocks)
    for start in range(0, len(observed), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        _count_in(total, observed[chunk], values[:, chunk], blocks[chunk])
    keys = _hashes(places, observed, *values)
    sums = {name: getattr(total, name) for name in _SUMS}
    return DistributionTally(kind, censored, **sums, sample=Sample(keys, blocks, values).lowest())


def _check(observed: Array, parameters: Array, blocks: Counts, n_blocks: int, positions: Counts) -> None:
    if observed.ndim != 1 or parameters.shape != (2, *observed.shape):
        raise ValueError(f"{observed.shape} observed, parameters {parameters.shape}; they must be (L,) and (2, L)")
    if blocks.shape != observed.shape or positions.shape != observed.shape:
        raise ValueError(f"blocks {blocks.shape} and positions {positions.shape} of {observed.shape} bins")
    if len(blocks) and not (blocks.min() >= 0 and blocks.max() < n_blocks):
        raise ValueError(f"a block is not in 0 .. {n_blocks - 1}")
    if not (np.isfinite(observed).all() and np.isfinite(parameters).all()):
        raise ValueError("a bin is not finite; leave out what was not measured or predicted")


def _empty(kind: str, censored: bool, n_blocks: int) -> DistributionTally:
    def zeros(*shape: int) -> Array:
        return np.zeros((n_blocks, *shape))

    return DistributionTally(
        kind,
        censored,
        n=zeros().astype(np.int64),
        log_likelihood=zeros(),
        crps=zeros(),
        pit=zeros(len(PIT_LEVELS)),
        inside=zeros(len(LEVELS)).astype(np.int64),
        observed=zeros(),
        mean=zeros(),
        sd=zeros(),
        sample=Sample(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros((2, 0))),
    )


def _count_in(total: DistributionTally, observed: Array, parameters: Array, blocks: Counts) -> None:
    """Add bins, in the order of their blocks, to the sums of a tally."""
    cumulative, single = _judge(total.kind, observed, parameters, total.censored)
    critical = critical_levels(cumulative)
    edges = np.append(np.flatnonzero(np.diff(blocks, prepend=-1)), len(blocks))
    for start, end in pairwise(edges):
        block, n = blocks[start], end - start
        total.n[block] += n
        total.pit[block] += n * pit_curve(Cumulative(*(part[start:end] for part in cumulative)))
        total.inside[block] += np.rint(n * coverage(critical[start:end], LEVELS)).astype(np.int64)
        for name, each in single.items():
            getattr(total, name)[block] += each[start:end].sum()


def _judge(kind: str, observed: Array, parameters: Array, censored: bool) -> tuple[Cumulative, dict[str, Array]]:
    """Return the cumulative probabilities of bins, and what is to be summed up of them, by its name in a tally."""
    one, other = parameters
    if kind == "counts":
        cumulative = negative_binomial_cdf(observed, one, other)
        log_likelihood = negative_binomial_log_pmf(observed, one, other)
        crps = negative_binomial_crps(observed, one, other, cumulative=cumulative)
    elif censored:
        cumulative = censored_normal_cdf(observed, one, other)
        log_likelihood = censored_normal_log_likelihood(observed, one, other)
        crps = censored_normal_crps(observed, one, other)
    else:
        cumulative = gaussian_cdf(observed, one, other)
        log_likelihood = gaussian_log_pdf(observed, one, other)
        crps = gaussian_crps(observed, one, other)
    mean, sd = _moments(kind, parameters, censored)
    return cumulative, {
        "log_likelihood": log_likelihood,
        "crps": crps,
        "observed": observed,
        "mean": mean,
        "sd": sd,
    }


def _moments(kind: str, parameters: Array, censored: bool) -> tuple[Array, Array]:
    """Return the mean and sd of predicted distributions."""
    one, other = parameters
    if kind == "counts":
        return np.exp(one), negative_binomial_sd(one, other)
    return censored_normal_moments(one, other) if censored else (one, other)


def censored_normal_moments(mean: ArrayLike, sd: ArrayLike) -> tuple[Array, Array]:
    """Return the mean and sd of max(0, N(mean, sd)).

    Parameters
    ----------
    mean, sd : of the normal before it is censored, sd > 0
    """
    mean, sd = np.asarray(mean, dtype=np.float64), np.asarray(sd, dtype=np.float64)
    z = mean / sd
    above, density = ndtr(z), np.exp(-0.5 * np.square(z)) / np.sqrt(2 * np.pi)
    first = np.maximum(0, z * above + density)
    second = (np.square(z) + 1) * above + z * density
    return sd * first, sd * np.sqrt(np.maximum(0, second - np.square(first)))


def central_intervals(
    kind: str, parameters: Sequence[ArrayLike] | NDArray, levels: ArrayLike, *, censored: bool = False
) -> Intervals:
    """Return the probability that predicted distributions have in their own central intervals, and these' widths.

    Parameters
    ----------
    kind : "counts", whose log mean and log dispersion are taken for the nearest from -16 to 16; or "signal"
    parameters : shape (2, L)
    levels : shape (C,), in (0, 1)
    censored : read signal as a normal censored at 0
    """
    one, other = (np.asarray(each, dtype=np.float64) for each in parameters)
    levels = np.asarray(levels, dtype=np.float64)
    tails = np.concatenate([(1 - levels) / 2, (1 + levels) / 2])
    if kind == "counts":
        one, other = (np.clip(each, -LOG_LIMIT, LOG_LIMIT) for each in (one, other))
        lower, upper = np.split(negative_binomial_quantiles(tails, one, other), 2)
        probability = negative_binomial_cdf(upper, one, other).at - negative_binomial_cdf(lower, one, other).below
        return Intervals(probability, upper - lower)
    lower, upper = np.split(one + ndtri(tails)[:, None] * other, 2)
    cdf = gaussian_cdf
    if censored:
        lower, upper, cdf = np.maximum(0, lower), np.maximum(0, upper), censored_normal_cdf
    return Intervals(cdf(upper, one, other).at - cdf(lower, one, other).below, upper - lower)


def scores(total: DistributionTally) -> dict[str, Score]:
    """Return the scores of a tally, with their standard errors.

    - `nll` (nats per bin) and `crps` (units of the track), the less the better
    - `pit_error` and `pit_ks`: mean and largest distance of the PIT curve from the diagonal
    - `interval_error`: mean distance of coverage from its level, for continuous predictions only; `coverage_gap`: from
      the expected coverage, for discrete ones too; both over the levels 0.05, 0.10 .. 0.95
    - `coverage_50`, `_80`, `_90`, `_95`, and `expected_coverage_50` ...
    - `sharpness`: mean predicted sd; `width_50`, `_90`, `_95`: mean width of the central interval
    - `mean_observed`, `mean_predicted`, and `bias`, the second less the first
    """
    blocks = _block_sums(total)
    blocks = {name: each[total.n > 0] for name, each in blocks.items()}
    whole = {name: each.sum(axis=0, keepdims=True) for name, each in blocks.items()}
    values = _statistics(whole)
    n_blocks = len(blocks["n"])
    if n_blocks < 2:
        return {name: Score(float(value[0]), float("nan")) for name, value in values.items()}
    without = _statistics({name: whole[name] - each for name, each in blocks.items()})
    factor = (n_blocks - 1) / n_blocks
    return {
        name: Score(float(values[name][0]), float(np.sqrt(factor * np.square(each - each.mean()).sum())))
        for name, each in without.items()
    }


def curves(total: DistributionTally) -> Curves:
    """Return the curves of a tally; NaN where it has no bins."""
    whole = {name: each.sum(axis=0, keepdims=True) for name, each in _block_sums(total).items()}
    pit, inside, expected = (each[0] for each in _curves(whole))
    return Curves(pit, inside, expected)


def _block_sums(total: DistributionTally) -> dict[str, Array]:
    """Return all sums of each block, those of the sample among them, in float64."""
    sums = {name: np.asarray(getattr(total, name), dtype=np.float64) for name in _SUMS}
    sample, n_blocks = total.sample, len(total.n)
    intervals = central_intervals(total.kind, sample.parameters, LEVELS, censored=total.censored)

    def per_block(each: Array) -> Array:
        return np.bincount(sample.block, each, n_blocks).astype(np.float64)

    sums["sampled"] = per_block(np.ones(len(sample.block)))
    _, sd = _moments(total.kind, sample.parameters, total.censored)
    sums["sampled_sd"] = per_block(sd)
    for name, each in (("expected", intervals.probability), ("width", intervals.width)):
        sums[name] = np.stack([per_block(row) for row in each], axis=1)
    return sums


def _curves(sums: Mapping[str, Array]) -> tuple[Array, Array, Array]:
    """Return the PIT, the coverage and the expected coverage of sums over bins, each (G, levels)."""
    n, sampled = sums["n"][:, None], sums["sampled"][:, None]
    return _ratio(sums["pit"], n), _ratio(sums["inside"], n), _ratio(sums["expected"], sampled)


def _statistics(sums: Mapping[str, Array]) -> dict[str, Array]:
    """Return each score of each of G rows of sums, shape (G,)."""
    n = sums["n"]
    pit, inside, expected = _curves(sums)
    sharpness = _ratio(sums["sd"], n)
    width = sharpness[:, None] * _ratio(sums["width"], sums["sampled_sd"][:, None])
    distance = np.abs(pit - PIT_LEVELS)
    judged = slice(0, len(INTERVAL_LEVELS))
    statistics = {
        "nll": -_ratio(sums["log_likelihood"], n),
        "crps": _ratio(sums["crps"], n),
        "pit_error": distance.mean(axis=1),
        "pit_ks": distance.max(axis=1),
        "interval_error": np.abs(inside - LEVELS)[:, judged].mean(axis=1),
        "coverage_gap": np.abs(inside - expected)[:, judged].mean(axis=1),
        "sharpness": sharpness,
        "mean_observed": _ratio(sums["observed"], n),
        "mean_predicted": _ratio(sums["mean"], n),
        "bias": _ratio(sums["mean"] - sums["observed"], n),
    }
    named = (("coverage", inside, SHOWN_LEVELS), ("expected_coverage", expected, SHOWN_LEVELS))
    for name, curve, levels in (*named, ("width", width, WIDTH_LEVELS)):
        for level in levels:
            statistics[f"{name}_{round(100 * level)}"] = curve[:, np.abs(LEVELS - level).argmin()]
    return statistics


def _ratio(sums: Array, n: Array) -> Array:
    """Return sums / n; NaN where n is 0."""
    return np.divide(sums, n, out=np.full(sums.shape, np.nan), where=n > 0)


def _hashes(*columns: NDArray) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each row of columns of 64-bit numbers, by the finaliser of splitmix64."""
    hashes = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        hashes ^= np.ascontiguousarray(column).view(np.uint64)
        hashes += np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            hashes ^= hashes >> np.uint64(shift)
            hashes *= np.uint64(factor)
        hashes ^= hashes >> np.uint64(31)
    return hashes
