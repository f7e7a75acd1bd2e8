"""The nine measures of the ENCODE Imputation Challenge, with the quirks of its organisers' scorer.

They are computed on -log10 p in bins of 25 bp, not transformed, over the chromosomes one after the other (Schreiber et
al. 2023, Genome Biology 24:79). What the scorer does that one would not expect, and what is done here as well:

- a gene, promoter or enhancer counts each time it is listed: bins that several of them share weigh more;
- an annotation [start, end) in bp is the bins start // 25 up to and with end // 25, one more where end is on an edge;
- a promoter that begins before the chromosome adds no error, but its 80 bins are divided by all the same, as are those
  bins of any annotation that lie after the end of the chromosome;
- the highest 1 % are all bins that reach the int(0.01 L)-th highest value, ties with it included.

Assumed, as it is not written down anywhere: the 80 bins of a promoter lie upstream of the gene, before its first bin on
the forward strand and after its last on the reverse; ties are all in. One difference is meant: where a measure does not
exist it is NaN here, such as `msevar` without variances, which the scorer reports as 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from candi_cli.evaluation.metrics import mse, pearson, spearman
from candi_cli.evaluation.scores import in_top

Array = NDArray[np.float64]
Bins = NDArray[np.int64]
BIN_BP = 25
PROMOTER_BINS = 80
TOP_SHARE = 0.01
NAN = float("nan")


class Annotations(NamedTuple):
    """Bins of annotations: for each chromosome half-open pairs, shape (K, 2), neither merged nor clipped."""

    promoters: Sequence[Bins]
    genes: Sequence[Bins]
    enhancers: Sequence[Bins]


class ChallengeScores(NamedTuple):
    """The nine measures, by the names the challenge gave them; NaN where one does not exist."""

    mse: float
    gwcorr: float
    gwspear: float
    mseprom: float
    msegene: float
    mseenh: float
    msevar: float
    mse1obs: float
    mse1imp: float


def annotated_bins(starts: ArrayLike, ends: ArrayLike) -> Bins:
    """Return the bins of genes or enhancers, shape (K, 2).

    Parameters
    ----------
    starts, ends : shape (K,), in bp, 0-based, half-open
    """
    first, last = np.asarray(starts, dtype=np.int64) // BIN_BP, np.asarray(ends, dtype=np.int64) // BIN_BP
    return np.stack([first, last + 1], axis=1)


def promoter_bins(starts: ArrayLike, ends: ArrayLike, reverse: ArrayLike) -> Bins:
    """Return the 80 bins upstream of each gene, shape (K, 2); they may reach out of the chromosome.

    Parameters
    ----------
    starts, ends : shape (K,), of genes, in bp, 0-based, half-open
    reverse : shape (K,), true where a gene is on the reverse strand
    """
    genes = annotated_bins(starts, ends)
    first = np.where(np.asarray(reverse, dtype=bool), genes[:, 1], genes[:, 0] - PROMOTER_BINS)
    return np.stack([first, first + PROMOTER_BINS], axis=1)


def challenge_scores(
    observed: ArrayLike,
    predicted: ArrayLike,
    offsets: ArrayLike,
    annotations: Annotations,
    variance: ArrayLike | None = None,
) -> ChallengeScores:
    """Return the nine measures of one track.

    Parameters
    ----------
    observed, predicted : shape (L,), -log10 p in bins of 25 bp, whole chromosomes one after the other, without NaN
    offsets : shape (C + 1,), where each chromosome begins, and L
    annotations : of the same chromosomes
    variance : shape (L,), of the training biosamples' tracks of the assay in each bin, the weights of `msevar`
    """
    one, other = np.asarray(observed, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    offsets = np.asarray(offsets, dtype=np.int64)
    if one.shape != other.shape or offsets[-1] != len(one):
        raise ValueError(f"tracks of shape {one.shape} and {other.shape}; both must be ({offsets[-1]},)")
    squares = np.square(one - other)
    return ChallengeScores(
        mse=mse(one, other),
        gwcorr=pearson(one, other),
        gwspear=spearman(one, other),
        mseprom=annotated_error(squares, offsets, annotations.promoters),
        msegene=annotated_error(squares, offsets, annotations.genes),
        mseenh=annotated_error(squares, offsets, annotations.enhancers),
        msevar=NAN if variance is None else _weighted_error(squares, np.asarray(variance, dtype=np.float64)),
        mse1obs=_mean(squares[in_top(one, TOP_SHARE)]),
        mse1imp=_mean(squares[in_top(other, TOP_SHARE)]),
    )


def annotated_error(squares: ArrayLike, offsets: ArrayLike, intervals: Sequence[Bins]) -> float:
    """Return the sum of squared errors over all annotations by the sum of their widths; NaN without any.

    Parameters
    ----------
    squares : shape (L,), squared errors; offsets : shape (C + 1,), where each chromosome begins, and L
    intervals : for each chromosome, shape (K, 2)
    """
    squares, offsets = np.asarray(squares, dtype=np.float64), np.asarray(offsets, dtype=np.int64)
    total, n = 0.0, 0
    for first, last, pairs in zip(offsets[:-1], offsets[1:], intervals, strict=True):
        pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        total += float((_times_covered(pairs, int(last - first)) * squares[first:last]).sum())
        n += int((pairs[:, 1] - pairs[:, 0]).sum())
    return total / n if n else NAN


def _times_covered(pairs: Bins, n_bins: int) -> Bins:
    """Return how many intervals hold each bin; one that begins before the first bin holds none."""
    start, end = np.minimum(pairs[pairs[:, 0] >= 0], n_bins).T
    change = np.bincount(start, minlength=n_bins + 1) - np.bincount(end, minlength=n_bins + 1)
    return np.cumsum(change)[:-1]


def _weighted_error(squares: Array, weights: Array) -> float:
    if weights.shape != squares.shape:
        raise ValueError(f"variances of shape {weights.shape}; they must be {squares.shape}")
    total = float(weights.sum())
    return float((weights * squares).sum()) / total if total else NAN


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else NAN
