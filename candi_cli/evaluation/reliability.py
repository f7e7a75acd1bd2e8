"""Peaks: whether predicted probabilities rank bins rightly, and mean what they say.

All comes from a tally that can be added up over chunks, chromosomes and processes, and subtracted again to leave a
block out: how many bins that are in a peak, and that are not, have each of the 65,536 bfloat16 logits, which are the
predicted ones rounded to 8 significant bits. Ranks are exact for the rounded logits (bins that differ by less than
0.4 % of their logit are ties), and a threshold of probability is met by a bin whose rounded logit meets it. The Brier
score and log loss are summed up from the logits as predicted.

Scores that need both kinds of bins, in a peak and not, are NaN where one is missing; others are NaN without any bin.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.special import logit as log_odds

from candi_cli.evaluation.crps import bernoulli_crps
from candi_cli.evaluation.distributions import bernoulli_log_pmf

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
N_CODES = 1 << 16
N_BINS = 15  # of a reliability curve
_NAN = float("nan")


@dataclass(frozen=True, eq=False)
class PeakTally:
    """What the scores of predicted peaks need to know; tallies add up.

    Attributes
    ----------
    positives, negatives : shape (65536,), bins in a peak, and not in one, of each rounded logit, in rising order
    squared_error : sum over bins of (probability - observed)^2
    log_loss : sum over bins of the log loss, in nats
    """

    positives: Counts
    negatives: Counts
    squared_error: float
    log_loss: float

    @classmethod
    def of(cls, observed: ArrayLike, logit: ArrayLike) -> "PeakTally":
        """Return the tally of some bins.

        Parameters
        ----------
        observed : shape (L,), 0 or 1; logit : shape (L,), log odds of 1
        """
        observed, logit = np.asarray(observed), np.asarray(logit)
        if observed.ndim != 1 or observed.shape != logit.shape:
            raise ValueError(f"peaks of shape {observed.shape}, logits of shape {logit.shape}; both must be (L,)")
        if not ((observed == 0) | (observed == 1)).all():
            raise ValueError("an observed peak is neither 0 nor 1")
        if not np.isfinite(logit).all():
            raise ValueError("a logit is not finite")
        code = logit_codes(logit)
        in_peak = np.bincount(code[observed == 1], minlength=N_CODES)
        return cls(
            in_peak,
            np.bincount(code, minlength=N_CODES) - in_peak,
            float(bernoulli_crps(observed, logit).sum()),
            -float(bernoulli_log_pmf(observed, logit).sum()),
        )

    @classmethod
    def empty(cls) -> "PeakTally":
        """Return the tally of no bins."""
        return cls(np.zeros(N_CODES, dtype=np.int64), np.zeros(N_CODES, dtype=np.int64), 0.0, 0.0)

    def __add__(self, other: "PeakTally") -> "PeakTally":
        return self._combined(other, 1)

    def __sub__(self, other: "PeakTally") -> "PeakTally":
        return self._combined(other, -1)

    def _combined(self, other: "PeakTally", sign: int) -> "PeakTally":
        return PeakTally(
            self.positives + sign * other.positives,
            self.negatives + sign * other.negatives,
            self.squared_error + sign * other.squared_error,
            self.log_loss + sign * other.log_loss,
        )

    @cached_property
    def n_positive(self) -> int:
        """Bins in a peak."""
        return int(self.positives.sum())

    @cached_property
    def n_negative(self) -> int:
        """Bins not in a peak."""
        return int(self.negatives.sum())

    @property
    def n(self) -> int:
        """Bins."""
        return self.n_positive + self.n_negative

    @property
    def has_both(self) -> bool:
        """Whether there are bins in a peak, and bins that are not."""
        return self.n_positive > 0 and self.n_negative > 0


class ReliabilityCurve(NamedTuple):
    """How often bins are in a peak that are predicted to be at about the same probability; each of shape (K,).

    Attributes
    ----------
    probability : mean predicted one of each group of bins; NaN of an empty group
    observed : fraction of them that is in a peak; NaN of an empty group
    n : how many they are
    """

    probability: Array
    observed: Array
    n: Counts


def logit_codes(logit: ArrayLike) -> Counts:
    """Return the places of bfloat16 numbers in their order, 0 .. 65535, of logits rounded to the nearest; -0 is 0.

    Parameters
    ----------
    logit : shape (L,), finite
    """
    largest = _values()[_codes_of(np.uint32(0x7F7F))]
    rounded = np.clip(np.asarray(logit, dtype=np.float64), -largest, largest).astype(np.float32) + np.float32(0)
    bits = rounded.view(np.uint32)
    return _codes_of((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


def _codes_of(bits: NDArray[np.uint32] | np.uint32) -> Counts:
    """Return the order of bfloat16 numbers by their bits: those of negative ones rise as the numbers fall."""
    return np.where(bits >> 15, 0xFFFF - bits, bits | 0x8000).astype(np.int64)


def _values() -> Array:
    """Return the bfloat16 number at each place, shape (65536,); those beyond the largest are infinite."""
    code = np.arange(N_CODES, dtype=np.uint32)
    magnitude = np.minimum(np.where(code >> 15, code & 0x7FFF, 0x7FFF - code), 0x7F80).astype(np.uint32)
    bits = magnitude << np.uint32(16) | np.where(code >> 15, np.uint32(0), np.uint32(1 << 31))
    return bits.view(np.float32).astype(np.float64)


def brier(tally: PeakTally) -> float:
    """Return the mean squared error of the probability."""
    return tally.squared_error / tally.n if tally.n else _NAN


def log_loss(tally: PeakTally) -> float:
    """Return the mean negative log-likelihood, in nats."""
    return tally.log_loss / tally.n if tally.n else _NAN


def base_rate(tally: PeakTally) -> float:
    """Return the fraction of bins that is in a peak: the AUPRC of any forecast without knowledge."""
    return tally.n_positive / tally.n if tally.n else _NAN


def auroc(tally: PeakTally) -> float:
    """Return the probability that a bin in a peak has a higher logit than one that is not, ties counting half."""
    if not tally.has_both:
        return _NAN
    lower = np.cumsum(tally.negatives) - tally.negatives
    ranked = (tally.positives * (2 * lower + tally.negatives)).sum()  # twice the pairs: whole numbers
    return float(ranked / (2 * tally.n_positive * tally.n_negative))


def auprc(tally: PeakTally) -> float:
    """Return the average precision: over thresholds that fall, the sum of precision times the rise of recall."""
    if not tally.has_both:
        return _NAN
    hits = tally.positives[::-1]
    true, called = np.cumsum(hits), np.cumsum((tally.positives + tally.negatives)[::-1])
    rises = hits > 0
    return float((true[rises] / called[rises] * hits[rises]).sum() / tally.n_positive)


def precision(tally: PeakTally, threshold: float = 0.5) -> float:
    """Return the fraction of bins at or above a probability that is in a peak; NaN also where there are none."""
    true, called = _called(tally, threshold)
    return true / called if tally.has_both and called else _NAN


def recall(tally: PeakTally, threshold: float = 0.5) -> float:
    """Return the fraction of bins in a peak that is at or above a probability."""
    true, _ = _called(tally, threshold)
    return true / tally.n_positive if tally.has_both else _NAN


def f1(tally: PeakTally, threshold: float = 0.5) -> float:
    """Return the harmonic mean of precision and recall at a probability; 0 where no bin in a peak reaches it."""
    true, called = _called(tally, threshold)
    return 2 * true / (tally.n_positive + called) if tally.has_both else _NAN


def _called(tally: PeakTally, threshold: float) -> tuple[int, int]:
    """Return how many bins at or above a probability are in a peak, and how many they are."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold {threshold}; a probability is between 0 and 1")
    reached = _values() >= log_odds(threshold)
    true = int(tally.positives[reached].sum())
    return true, true + int(tally.negatives[reached].sum())


def reliability_curve(tally: PeakTally, *, n_bins: int = N_BINS, equal_mass: bool = False) -> ReliabilityCurve:
    """Return predicted probability and observed frequency in groups of bins.

    Parameters
    ----------
    n_bins : how many groups
    equal_mass : groups of about equally many bins, in the order of their probability; those of the same rounded logit
        stay together, so that groups may be empty. Otherwise of equally wide ranges of probability.
    """
    count = tally.positives + tally.negatives
    used = np.flatnonzero(count)
    count, probability = count[used], expit(_values()[used])
    if equal_mass:
        middle = np.cumsum(count) - count / 2
        group = np.minimum((middle * n_bins / max(tally.n, 1)).astype(np.int64), n_bins - 1)
    else:
        group = np.minimum((probability * n_bins).astype(np.int64), n_bins - 1)
    n = np.zeros(n_bins, dtype=np.int64)
    np.add.at(n, group, count)
    sums = (np.bincount(group, weights, n_bins) for weights in (count * probability, tally.positives[used]))
    predicted, observed = (np.divide(each, n, out=np.full(n_bins, _NAN), where=n > 0) for each in sums)
    return ReliabilityCurve(predicted, observed, n)


def ece(tally: PeakTally, *, n_bins: int = N_BINS, equal_mass: bool = False) -> float:
    """Return the expected calibration error: the mean over bins of |probability - frequency| of their group.

    Parameters
    ----------
    n_bins, equal_mass : as of `reliability_curve`
    """
    if not tally.n:
        return _NAN
    curve = reliability_curve(tally, n_bins=n_bins, equal_mass=equal_mass)
    return float(np.nansum(np.abs(curve.probability - curve.observed) * curve.n) / tally.n)
