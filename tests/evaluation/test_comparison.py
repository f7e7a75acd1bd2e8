"""Gains against leaving out tracks by hand, closed forms of the sign test, and known coverage."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from candi_cli.evaluation.comparison import Gain, gain


def test_the_error_is_that_of_leaving_out_a_track_at_a_time(rng):
    model, baseline = rng.normal(size=(2, 17))
    found = gain(model, baseline, seed=0)
    left = np.array([np.delete(model - baseline, track).mean() for track in range(17)])
    assert found.mean == pytest.approx(model.mean() - baseline.mean())
    assert found.se == pytest.approx(math.sqrt(16 / 17 * ((left - left.mean()) ** 2).sum()))
    assert (found.n, found.note) == (17, "")


def test_the_interval_is_scipys_percentile_bootstrap(rng):
    model, baseline = rng.exponential(size=(2, 25))
    found = gain(model, baseline, seed=3)
    theirs = bootstrap((model - baseline,), np.mean, n_resamples=10_000, method="percentile", rng=1)
    low, high = theirs.confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    assert found.low < found.mean < found.high


def test_of_many_tracks_the_interval_is_the_normal_one(rng):
    found = gain(rng.normal(0.3, 1, 2000), np.zeros(2000), seed=0)
    z = norm.ppf(0.975)
    assert found.low == pytest.approx(found.mean - z * found.se, abs=0.1 * found.se)
    assert found.high == pytest.approx(found.mean + z * found.se, abs=0.1 * found.se)


def test_the_same_seed_gives_the_same_interval_and_another_another(rng):
    model = rng.normal(size=9)
    assert gain(model, np.zeros(9), seed=5) == gain(model, np.zeros(9), seed=5)
    assert gain(model, np.zeros(9), seed=5).low != gain(model, np.zeros(9), seed=6).low


def test_the_sign_test_is_a_sum_of_binomial_coefficients():
    model = np.array([1.0] * 8 + [-1.0] * 2 + [0.0] * 4)
    found = gain(model, np.zeros(14), seed=0)
    assert (found.n, found.n_better, found.n_worse) == (14, 8, 2)
    assert found.sign_p == pytest.approx(2 * sum(math.comb(10, k) for k in range(3)) / 2**10)
    assert gain(np.ones(6), np.zeros(6), seed=0).sign_p == pytest.approx(2 / 2**6)


def test_of_errors_the_lower_is_the_better():
    model, baseline = [1.0, 2.0, 3.0], [2.0, 5.0, 2.5]
    lower, higher = gain(model, baseline, seed=0, lower_is_better=True), gain(model, baseline, seed=0)
    assert (lower.mean, lower.n_better, lower.n_worse) == (pytest.approx(3.5 / 3), 2, 1)
    assert (higher.mean, higher.n_better, higher.n_worse) == (pytest.approx(-3.5 / 3), 1, 2)


def test_a_track_without_one_of_the_scores_is_left_out():
    found = gain([1.0, np.nan, 3.0, 4.0], [0.0, 0.0, np.nan, 1.0], seed=0)
    assert (found.n, found.mean) == (2, 2.0)


def test_a_single_track_has_a_gain_without_spread():
    found = gain([3.0], [1.0], seed=0)
    assert (found.mean, found.n, found.n_better) == (2.0, 1, 1)
    assert np.isnan([found.se, found.low, found.high, found.sign_p]).all()
    assert found.note == "a single track has no spread between tracks"
    none = gain([np.nan], [1.0], seed=0)
    assert np.isnan([none.mean, none.se, none.low, none.high, none.sign_p]).all()
    assert (none.n, none.note) == (0, "no tracks")


def test_equal_scores_have_no_sign():
    found = gain([1.0, 2.0], [1.0, 2.0], seed=0)
    assert found == Gain(0.0, 0.0, 0.0, 0.0, 2, 0, 0, pytest.approx(math.nan, nan_ok=True), found.note)
    assert found.note == "the scores are equal on every track"


def test_resamples_are_the_same_in_chunks_of_any_size(rng, monkeypatch):
    model = rng.normal(size=11)
    whole = gain(model, np.zeros(11), seed=2, n_resamples=100)
    monkeypatch.setattr("candi_cli.evaluation.comparison._CHUNK", 30)
    assert gain(model, np.zeros(11), seed=2, n_resamples=100) == whole


def test_scores_of_unlike_length_are_refused():
    with pytest.raises(ValueError, match="shape"):
        gain([1.0, 2.0], [1.0], seed=0)
