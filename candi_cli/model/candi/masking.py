"""The three corruptions of self-supervised training (paper, "Learning Objectives and Training Strategy").

Everything is drawn from the generator it is given, so a seed makes it reproducible.

Thinning divides an experiment's reads in three: those that are seen, those that are the target, and those that are
neither. No read is on two sides, whatever the factors, so copying the input never lowers the loss. An input at factor d
holds 1/d of all reads; a target at factor e holds 1/e of what the input leaves. An input at factor 1 leaves nothing: an
observed experiment then has no target of counts in that window (the paper's text would hold it to its own input).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOCI_CHUNK_BINS = 40
LOCI_FRACTION = 0.2
UNUSED, SEEN, TARGET = 0, 1, 2  # the sides that a fold may be on
_SHARES = 8  # of counts without folds


@dataclass(frozen=True)
class Corruption:
    """What is done to a window in training; each probability is drawn anew for every window.

    Attributes
    ----------
    mask_assays, mask_loci, thin : probabilities of the three objectives of the paper
    input_factors : the input is thinned by one of these, the same for all experiments of a window; empty: each
        experiment shows any share of its reads
    target_factors : so is the target, of the reads that the input leaves; empty: all of them half of the time, else any
        share
    drop_sequence, drop_covariate : probabilities that the DNA, or a single covariate, is not known
    reverse_complement : probability that the window is read from the other strand
    drop_reference : probability that the mean signal of other biosamples is not known
    mask_most : assays that are hidden at a time, at most; None for all but one
    """

    mask_assays: float = 0.5
    mask_loci: float = 0.5
    thin: float = 0.9
    drop_sequence: float = 0.5
    drop_covariate: float = 0.1
    reverse_complement: float = 0.5
    input_factors: tuple[int, ...] = ()
    target_factors: tuple[int, ...] = ()
    drop_reference: float = 0.0
    mask_most: int | None = None

    def draw_thinning(self, rng: np.random.Generator) -> "Thinning":
        """Draw how one window is thinned."""
        on = bool(rng.random() < self.thin)
        input_factor = int(rng.choice(self.input_factors)) if self.input_factors else None
        target_factor = int(rng.choice(self.target_factors)) if self.target_factors else None
        return Thinning(on, input_factor, target_factor)


PAPER = Corruption(
    mask_assays=0.75, mask_loci=0.75, thin=1.0, drop_sequence=0.0, drop_covariate=0.0,
    input_factors=(1, 2, 4), target_factors=(1,),
)  # fmt: skip


@dataclass(frozen=True)
class Thinning:
    """How one window is thinned.

    Attributes
    ----------
    on : whether the input is thinned; else all reads of what is not hidden are seen
    input_factor, target_factor : None for a share of its own for each experiment
    """

    on: bool
    input_factor: int | None = None
    target_factor: int | None = None

    def sides(self, rng: np.random.Generator, n_folds: int, hidden: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Deal out the folds of experiments: shape (n, K) of UNUSED, SEEN, TARGET.

        Parameters
        ----------
        hidden : shape (n,), experiments that show nothing and have up to all of their reads as their target
        """
        n = len(hidden)
        place = rng.random((n, n_folds)).argsort(axis=1)
        any_number, any_rest = rng.integers(1, n_folds, size=n), rng.random((2, n))
        if not self.on:
            n_seen = np.full(n, n_folds)
        elif self.input_factor is None:
            n_seen = any_number
        else:
            n_seen = np.full(n, max(1, round(n_folds / self.input_factor)))
        left = n_folds - np.where(hidden, 0, n_seen)
        if self.target_factor is None:
            n_target = np.where(any_rest[0] < 0.5, left, 1 + (any_rest[1] * left).astype(np.int64))
        else:
            n_target = np.maximum(1, np.rint(left / self.target_factor).astype(np.int64))
        n_seen, n_target = n_folds - left, np.minimum(n_target, left)
        sides = np.where(place < (n_seen + n_target)[:, None], TARGET, UNUSED).astype(np.uint8)
        sides[place < n_seen[:, None]] = SEEN
        return sides

    def shares(self, rng: np.random.Generator, hidden: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
        """Draw, of experiments without folds, the share of reads seen and the target's share of the rest: (n,) each."""
        n = len(hidden)
        any_share = rng.integers(1, _SHARES, size=n) / _SHARES
        if not self.on:
            seen = np.ones(n)
        else:
            seen = any_share if self.input_factor is None else np.full(n, 1 / self.input_factor)
        return np.where(hidden, 0.0, seen), np.full(n, 1 / (self.target_factor or 1))


def thin_counts(
    rng: np.random.Generator, counts: NDArray[np.integer], seen_share: NDArray, target_share: NDArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split counts into what is seen and a disjoint target, bin by bin and binomially.

    Exact for `five-prime` and `midpoint` counts, where a read or a molecule is in one bin; with the other rules a read
    that spans bins may be split between the two. Mates are two reads of `five-prime`, and may part.

    Parameters
    ----------
    counts : shape (n, L)
    seen_share, target_share : shape (n,), of all reads, and of those that are not seen
    """
    seen, target = np.zeros(counts.shape, dtype=np.int64), np.zeros(counts.shape, dtype=np.int64)
    row, column = np.nonzero(counts)  # most bins are empty, and draws are dear
    whole = counts[row, column].astype(np.int64)
    seen[row, column] = shown = rng.binomial(whole, seen_share[row])
    target[row, column] = rng.binomial(whole - shown, target_share[row])
    return seen, target


def draw_masked_assays(
    rng: np.random.Generator, available: NDArray[np.bool_], most: int | None = None
) -> NDArray[np.bool_]:
    """Choose 1 to (available - 1) of the available assays to hide: at least one stays, none when there is but one.

    Parameters
    ----------
    available : shape (A,), the assays of a biosample; the control is not among them and never hidden
    most : to be hidden, >= 1
    """
    masked = np.zeros_like(available)
    where = np.flatnonzero(available)
    if len(where) > 1:
        after = len(where) if most is None else min(len(where), most + 1)
        masked[rng.choice(where, size=rng.integers(1, after), replace=False)] = True
    return masked


def draw_masked_loci(rng: np.random.Generator, n_bins: int) -> NDArray[np.bool_]:
    """Choose chunks of 40 bins (1 kb) that are hidden in all assays at once, until a fifth of the window is: (L,)."""
    masked = np.zeros(n_bins, dtype=np.bool_)
    chunk = min(LOCI_CHUNK_BINS, max(1, n_bins // 5))
    while np.count_nonzero(masked) < LOCI_FRACTION * n_bins:
        start = rng.integers(0, n_bins - chunk + 1)
        masked[start : start + chunk] = True
    return masked
