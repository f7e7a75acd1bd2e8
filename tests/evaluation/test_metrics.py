"""The metrics against scipy, against formulas, and where they do not exist."""

import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from candi_cli.evaluation.metrics import mse, pearson, r2, spearman

METRICS = [pearson, spearman, mse, r2]


@pytest.fixture
def tracks(rng):
    rate = np.exp(rng.normal(size=2000))
    return rng.poisson(rate), rate + rng.normal(size=2000).round(1)


def test_correlations_equal_scipy(tracks):
    assert pearson(*tracks) == pytest.approx(pearsonr(*tracks)[0], abs=1e-12)


def test_ties_have_their_mean_rank(tracks):
    counts, predicted = tracks
    assert np.unique(counts).size < 50
    assert spearman(counts, predicted) == pytest.approx(spearmanr(counts, predicted)[0], abs=1e-12)
    assert spearman([0, 0, 0, 5], [1, 2, 3, 4]) == pytest.approx(spearmanr([0, 0, 0, 5], [1, 2, 3, 4])[0])


def test_errors_equal_their_definitions(tracks):
    counts, predicted = tracks
    assert mse(counts, predicted) == pytest.approx(np.mean((counts - predicted) ** 2))
    assert r2(counts, predicted) == pytest.approx(1 - np.mean((counts - predicted) ** 2) / np.var(counts))


def test_r2_of_the_observed_mean_is_zero_and_of_the_truth_one(tracks):
    counts, _ = tracks
    assert r2(counts, np.full(len(counts), counts.mean())) == pytest.approx(0, abs=1e-12)
    assert r2(counts, counts) == 1
    assert r2(counts, 10 * counts) < -1


def test_rank_correlation_stays_under_a_monotone_map_and_pearson_under_a_line(tracks):
    counts, predicted = tracks
    assert spearman(counts, np.exp(predicted / 4)) == pytest.approx(spearman(counts, predicted))
    assert pearson(counts, 3 * predicted - 7) == pytest.approx(pearson(counts, predicted))
    assert pearson(counts, -predicted) == pytest.approx(-pearson(counts, predicted))


@pytest.mark.parametrize("constant", [0, 0.1, 1e6 / 3])
def test_a_constant_track_has_no_correlation(constant, rng):
    track, other = np.full(999, constant), rng.normal(size=999)
    for metric in (pearson, spearman):
        assert math.isnan(metric(track, other))
        assert math.isnan(metric(other, track))
    assert math.isnan(r2(track, other))


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_empty_or_not_a_number_has_no_score(metric):
    assert math.isnan(metric([], []))
    assert math.isnan(metric([1.0, 2.0, np.nan], [1.0, 2.0, 3.0]))


@pytest.mark.parametrize("metric", METRICS)
def test_tracks_of_unlike_length_are_refused(metric):
    with pytest.raises(ValueError, match="shape"):
        metric([1, 2, 3], [1, 2])


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_pearson_has_no_scale(scale, tracks):
    counts, predicted = tracks
    assert pearson(counts * scale, predicted) == pytest.approx(pearson(counts, predicted), abs=1e-9)


def test_pearson_keeps_its_digits_far_from_zero(rng):
    track = rng.normal(size=1000)
    other = track + rng.normal(size=1000)
    assert pearson(track + 1e6, other) == pytest.approx(pearson(track, other), abs=1e-7)


@pytest.mark.parametrize("metric", METRICS)
def test_the_order_of_bins_changes_nothing(metric, rng, tracks):
    order = rng.permutation(2000)
    assert metric(*(track[order] for track in tracks)) == pytest.approx(metric(*tracks), abs=1e-12)
