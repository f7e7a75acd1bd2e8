"""How deep one would have to sequence for raw counts to be as good as a denoised track: its effective depth.

Of reads that fall at a rate L into bins, let x ~ Poisson(d L) be counts at depth d and y an independent experiment.
Then, over bins,

    corr(x, y)^2 = C^2 d / (d + k),    k = mean(L) / var(L),

where C, the ceiling, is the correlation of the rate itself with y, which no depth exceeds. C and k are fitted to the
correlations of thinned counts, a curve that is measured, and the curve is inverted at the correlation of the denoised
track. Counts must be of points, one bin for each read or fragment: of reads that are counted in all bins that they
overlap, adjacent bins share noise, which binomial thinning of bins does not imitate.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
_HALF_DEPTHS = np.geomspace(1e-4, 1e5, 2_001)  # k that are tried: 1 % apart
_RESAMPLES_AT_ONCE = 100


class DepthCurve(NamedTuple):
    """How the correlation with an independent experiment rises with depth.

    Attributes
    ----------
    ceiling : C, the correlation at infinite depth
    half_depth : k, the depth at which half of the squared ceiling is reached, in units of the input's depth
    """

    ceiling: Array
    half_depth: Array

    def correlation(self, depth: ArrayLike) -> Array:
        """Return the correlation at a depth, in units of the input's depth."""
        depth = np.asarray(depth, dtype=np.float64)
        return np.asarray(self.ceiling * np.sqrt(depth / (depth + self.half_depth)))

    def depth(self, correlation: ArrayLike) -> Array:
        """Return the depth at which a correlation is reached: 0 where it is not positive, infinite from C on."""
        square = np.square(np.maximum(np.asarray(correlation, dtype=np.float64), 0))
        left = np.square(self.ceiling) - square
        reached = np.divide(self.half_depth * square, left, out=np.full(np.shape(left), np.inf), where=left > 0)
        return np.asarray(reached)


class EffectiveDepth(NamedTuple):
    """The depth that raw counts would need, in units of the input's depth.

    Attributes
    ----------
    multiple : infinite where the denoised track is above the ceiling of the curve
    low, high : 95 % percentile interval in resamples of blocks; a bound may be infinite, or 0
    curve : as fitted to all bins
    correlation : of the denoised track
    shares, correlations : shape (S,), of the input's reads, and the correlation of counts thinned to them
    note : what must be said of it, else empty
    """

    multiple: float
    low: float
    high: float
    curve: DepthCurve
    correlation: float
    shares: Array
    correlations: Array
    note: str = ""


def fit_depth_curve(depths: ArrayLike, correlations: ArrayLike) -> DepthCurve:
    """Fit ceiling and half depth to correlations at some depths, by least squares of their squares; C is at most 1.

    Parameters
    ----------
    depths : shape (S,), above 0
    correlations : shape (..., S), a curve in each row

    Returns
    -------
    DepthCurve
        Each of shape (...).
    """
    depths, square = np.asarray(depths, dtype=np.float64), np.square(np.asarray(correlations, dtype=np.float64))
    rise = depths / (depths + _HALF_DEPTHS[:, None])  # (K, S)
    ceiling = np.clip((square @ rise.T) / np.square(rise).sum(axis=1), 0, 1)  # (..., K), squared
    error = np.square(ceiling[..., None] * rise - square[..., None, :]).sum(axis=-1)
    best = error.argmin(axis=-1)
    found = np.take_along_axis(ceiling, np.expand_dims(best, -1), axis=-1)[..., 0]
    return DepthCurve(np.sqrt(found), _HALF_DEPTHS[best])


def effective_depth(
    counts: ArrayLike,
    denoised: ArrayLike,
    truth: ArrayLike,
    blocks: ArrayLike,
    *,
    seed: int,
    shares: Sequence[float] = SHARES,
    n_thinnings: int = 10,
    n_resamples: int = 1_000,
) -> EffectiveDepth:
    """Return the depth at which raw counts would correlate with the truth as a denoised track does.

    Parameters
    ----------
    counts : shape (L,), whole numbers: what was denoised, a read or fragment in one bin
    denoised : shape (L,), the track made from them
    truth : shape (L,), counts of other reads of the same experiment
    blocks : shape (L,), the number of the genomic block of each bin, from 0 on
    seed : of thinnings and resamples
    shares : of the counts that the curve is measured at
    n_thinnings : whose mean correlation is taken at each share below 1
    """
    rng = np.random.default_rng(seed)
    drawn, y = np.asarray(counts).astype(np.int64), np.asarray(truth, dtype=np.float64)
    tracks = [np.asarray(denoised, dtype=np.float64)]
    rows = []  # of `tracks`, by share
    for share in shares:
        several = [drawn] if share >= 1 else [rng.binomial(drawn, share) for _ in range(n_thinnings)]
        rows.append(slice(len(tracks), len(tracks) + len(several)))
        tracks += [each.astype(np.float64) for each in several]
    sums = _block_sums(tracks, y, np.asarray(blocks, dtype=np.int64))  # (T, 6, G)
    n_blocks = sums.shape[-1]
    own, measured = _summarised(_correlations(sums.sum(axis=-1)), rows)
    curve = fit_depth_curve(shares, measured)
    weights = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n_resamples)  # (R, G)
    resampled = []
    for start in range(0, n_resamples, _RESAMPLES_AT_ONCE):
        drawn_sums = np.einsum("tsg,rg->rts", sums, weights[start : start + _RESAMPLES_AT_ONCE])
        each, curves = _summarised(_correlations(drawn_sums), rows)
        resampled.append(fit_depth_curve(shares, curves).depth(each))
    low, high = np.quantile(np.concatenate(resampled), [0.025, 0.975], method="inverted_cdf")
    multiple = float(curve.depth(own))
    note = "" if np.isfinite(multiple) else "above what raw counts of any depth would reach, by the fitted curve"
    return EffectiveDepth(
        multiple, float(low), float(high), curve, float(own), np.asarray(shares, dtype=np.float64), measured, note
    )


def _block_sums(tracks: Sequence[Array], truth: Array, blocks: NDArray[np.int64]) -> Array:
    """Return n, sums of x, y, xx, yy and xy of each track in each block: shape (T, 6, G), about the means of all."""
    n_blocks = int(blocks.max()) + 1
    y = truth - truth.mean()

    def summed(values: Array) -> Array:
        return np.bincount(blocks, values, n_blocks).astype(np.float64)

    shared = [summed(np.ones_like(y)), summed(y), summed(y * y)]
    found = []
    for track in tracks:
        x = track - track.mean()
        found.append([*shared, summed(x), summed(x * x), summed(x * y)])
    return np.array(found)


def _correlations(sums: Array) -> Array:
    """Return the correlation of sums (..., 6); 0 where a track is constant."""
    n, y, yy, x, xx, xy = np.moveaxis(sums, -1, 0)
    spread = np.sqrt(np.maximum(xx - x * x / n, 0) * np.maximum(yy - y * y / n, 0))
    return np.asarray(np.divide(xy - x * y / n, spread, out=np.zeros_like(spread), where=spread > 0))


def _summarised(correlations: Array, rows: Sequence[slice]) -> tuple[Array, Array]:
    """Return the correlation of the denoised track (...,), and the mean one of each share (..., S)."""
    return correlations[..., 0], np.stack([correlations[..., each].mean(axis=-1) for each in rows], axis=-1)
