"""Scores of peaks against all pairs, plain loops over thresholds, and simulations."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from scipy.stats import mannwhitneyu

from candi_cli.evaluation.reliability import (
    PeakTally,
    auprc,
    auroc,
    base_rate,
    brier,
    ece,
    f1,
    log_loss,
    logit_codes,
    precision,
    recall,
    reliability_curve,
)

RANKS = (auroc, auprc, precision, recall, f1)


def bfloat16(values):
    return torch.tensor(np.asarray(values), dtype=torch.float32).bfloat16().double().numpy()


@pytest.fixture
def peaks(rng):
    """Peaks and logits that are bfloat16 numbers, many of them tied."""
    logits = bfloat16(np.round(rng.normal(-2, 2, 3000), 1))
    return (rng.random(3000) < expit(logits + rng.normal(0, 1, 3000))).astype(int), logits


def average_precision(observed, scores):
    """One threshold after the other, from the highest: precision there times the recall that it adds."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        now = observed[called].sum() / observed.sum()
        total += (now - before) * observed[called].mean()
        before = now
    return total


def test_codes_are_in_the_order_of_bfloat16_numbers(rng):
    values = np.concatenate(
        [rng.normal(0, 5, 5000), rng.normal(0, 1e-30, 200), [0.0, -0.0, 3e38, -3e38, 1e300, -1e300]]
    )
    rounded = bfloat16(np.clip(values, -3.3e38, 3.3e38)) + 0.0
    order = np.unique(rounded, return_inverse=True)[1]
    assert (np.unique(logit_codes(values), return_inverse=True)[1] == order).all()
    assert logit_codes([0.0]) == logit_codes([-0.0]) == 0x8000


def test_a_logit_halfway_between_two_bfloat16_numbers_goes_to_the_even_one():
    spacing = 2.0**-7  # from 1 to 2
    assert logit_codes([1 + spacing / 2]) == logit_codes([1.0])
    assert logit_codes([1 + 1.5 * spacing]) == logit_codes([1 + 2 * spacing])
    assert logit_codes([1 + 0.49 * spacing]) == logit_codes([1.0])
    assert logit_codes([1 + 0.51 * spacing]) == logit_codes([1 + spacing])


def test_auroc_is_the_fraction_of_pairs_in_the_right_order(peaks):
    observed, logits = peaks
    difference = logits[observed == 1][:, None] - logits[observed == 0]
    pairs = (difference > 0).mean() + (difference == 0).mean() / 2
    assert auroc(PeakTally.of(observed, logits)) == pytest.approx(pairs, abs=1e-14)
    statistic = mannwhitneyu(logits[observed == 1], logits[observed == 0]).statistic
    assert auroc(PeakTally.of(observed, logits)) == pytest.approx(statistic / difference.size, abs=1e-14)


def test_auprc_is_the_sum_over_thresholds(peaks):
    assert auprc(PeakTally.of(*peaks)) == pytest.approx(average_precision(*peaks), abs=1e-13)


def test_auroc_and_auprc_of_small_cases():
    tally = PeakTally.of([0, 0, 1, 1], logit([0.1, 0.4, 0.35, 0.8]))
    assert auroc(tally) == 0.75
    assert auprc(tally) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    tied = PeakTally.of([0, 1, 0, 0], np.zeros(4))
    assert auroc(tied) == 0.5
    assert auprc(tied) == base_rate(tied) == 0.25
    assert auprc(PeakTally.of([1, 1, 0], [3, 2, 1])) == auroc(PeakTally.of([1, 1, 0], [3, 2, 1])) == 1


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_precision_recall_and_f1_count_bins_at_or_above_a_probability(peaks, threshold):
    observed, logits = peaks
    tally, called = PeakTally.of(*peaks), logits >= np.log(threshold / (1 - threshold))
    assert precision(tally, threshold) == pytest.approx(observed[called].mean())
    assert recall(tally, threshold) == pytest.approx(called[observed == 1].mean())
    p, r = observed[called].mean(), called[observed == 1].mean()
    assert f1(tally, threshold) == pytest.approx(2 * p * r / (p + r))


def test_a_probability_of_a_half_is_called_at_a_half():
    tally = PeakTally.of([1, 0, 0], [0.0, 0.0, -1e-3])
    assert (precision(tally), recall(tally)) == (0.5, 1)
    assert precision(tally, 0.0) == pytest.approx(1 / 3)
    assert math.isnan(precision(tally, 1.0))
    assert f1(tally, 1.0) == recall(tally, 1.0) == 0
    with pytest.raises(ValueError, match=r"threshold 1\.5"):
        precision(tally, 1.5)


def test_brier_score_and_log_loss_are_of_the_logits_as_predicted(rng):
    logits = rng.normal(0, 3, 1000)
    observed = rng.integers(0, 2, 1000)
    p = 1 / (1 + np.exp(-logits))
    tally = PeakTally.of(observed, logits)
    assert brier(tally) == pytest.approx(np.square(p - observed).mean(), rel=1e-12)
    assert log_loss(tally) == pytest.approx(-np.log(np.where(observed == 1, p, 1 - p)).mean(), rel=1e-12)


def test_peaks_drawn_from_their_own_probability_are_calibrated(rng):
    logits = rng.normal(-1, 2, 400_000)
    tally = PeakTally.of(rng.random(400_000) < expit(logits), logits)
    assert ece(tally) < 0.003
    assert ece(tally, equal_mass=True) < 0.003
    curve = reliability_curve(tally)
    np.testing.assert_allclose(curve.observed, curve.probability, atol=0.02)


def test_overconfident_peaks_are_not_calibrated(rng):
    logits = rng.normal(-1, 2, 100_000)
    tally = PeakTally.of(rng.random(100_000) < expit(logits), 3 * logits)
    assert ece(tally) > 0.05
    assert ece(tally, equal_mass=True) > 0.05


@pytest.mark.parametrize("equal_mass", [False, True])
def test_the_reliability_curve_is_that_of_plain_groups(peaks, equal_mass):
    observed, logits = peaks
    p = expit(logits)
    if equal_mass:
        middle = [(logits < each).sum() + (logits == each).sum() / 2 for each in logits]
        group = np.floor(np.array(middle) * 15 / len(p)).astype(int)
    else:
        group = np.minimum(np.floor(p * 15), 14).astype(int)
    curve = reliability_curve(PeakTally.of(*peaks), equal_mass=equal_mass)
    error = 0.0
    for number in range(15):
        chosen = group == number
        assert curve.n[number] == chosen.sum()
        if chosen.any():
            assert curve.probability[number] == pytest.approx(p[chosen].mean())
            assert curve.observed[number] == pytest.approx(observed[chosen].mean())
            error += chosen.mean() * abs(p[chosen].mean() - observed[chosen].mean())
        else:
            assert math.isnan(curve.observed[number])
    assert ece(PeakTally.of(*peaks), equal_mass=equal_mass) == pytest.approx(error)


def test_groups_of_equal_mass_hold_equally_many_bins(rng):
    curve = reliability_curve(PeakTally.of(np.zeros(30_000), rng.normal(0, 1, 30_000)), equal_mass=True)
    assert np.abs(curve.n - 2000).max() < 200
    assert curve.n.sum() == 30_000


def test_tallies_of_chunks_add_up_and_can_be_left_out_again(peaks):
    observed, logits = peaks
    whole = PeakTally.of(observed, logits)
    parts = [PeakTally.of(observed[part::3], logits[part::3]) for part in range(3)]
    total = sum(parts, PeakTally.empty())
    for tally in (total, parts[2] + parts[0] + parts[1], total + parts[0] - parts[0]):
        np.testing.assert_array_equal(tally.positives, whole.positives)
        np.testing.assert_array_equal(tally.negatives, whole.negatives)
        assert brier(tally) == pytest.approx(brier(whole), rel=1e-12)
        assert log_loss(tally) == pytest.approx(log_loss(whole), rel=1e-12)
        assert auroc(tally) == auroc(whole)


@pytest.mark.parametrize("observed", [np.zeros(4), np.ones(4), np.zeros(0)])
def test_ranks_need_bins_in_and_out_of_peaks(observed):
    tally = PeakTally.of(observed, np.linspace(-1, 1, len(observed)))
    assert all(math.isnan(score(tally)) for score in RANKS)
    assert all(math.isnan(score(tally)) == (not len(observed)) for score in (brier, log_loss, base_rate, ece))


@pytest.mark.parametrize(
    ("observed", "logits", "fact"),
    [([0, 2], [0, 0], "neither 0 nor 1"), ([0, 1], [0, np.nan], "not finite"), ([0], [0, 1], r"shape \(1,\)")],
)
def test_what_is_no_peak_or_no_logit_is_refused(observed, logits, fact):
    with pytest.raises(ValueError, match=fact):
        PeakTally.of(observed, logits)
