"""CRPS against its definition: direct sums, numerical integration, closed forms, and simulations."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ive
from scipy.stats import nbinom, norm

from candi_cli.evaluation.crps import (
    OracleScaled,
    bernoulli_crps,
    censored_normal_crps,
    crps,
    exact_gini,
    gaussian_crps,
    negative_binomial_crps,
    negative_binomial_gini,
    oracle_scaled,
)
from candi_cli.evaluation.distributions import negative_binomial_cdf


def summed(y, mean, n, last=40_000):
    """The definition: the sum of squared distances of the two distribution functions, over all whole numbers."""
    k = np.arange(last)
    return np.square(nbinom.cdf(k, n, n / (n + mean)) - (y <= k)).sum()


@pytest.mark.parametrize(
    ("n", "mean", "y", "value"),
    [
        (2, 0.5, 0, 0.141203703703704),
        (0.7, 8, 3, 1.894129490412374),
        (50, 100, 130, 21.103591887524),
        (1, 3, 2, 0.660714285714286),
    ],
)
def test_negative_binomial_crps_of_known_values(n, mean, y, value):
    assert negative_binomial_crps(y, np.log(mean), np.log(n)) == pytest.approx(value, rel=1e-6)


def test_negative_binomial_crps_is_the_sum_of_its_definition(rng):
    for mean, n in zip(np.exp(rng.uniform(-4, 5, 40)), np.exp(rng.uniform(-1.5, 5, 40)), strict=True):
        for y in (0, 1, int(mean), int(4 * mean) + 3):
            expected = summed(y, mean, n)
            assert negative_binomial_crps(y, np.log(mean), np.log(n)) == pytest.approx(expected, rel=2e-6, abs=1e-7)


def test_a_known_cumulative_saves_its_computation_and_changes_nothing(rng):
    y, log_mean, log_n = rng.integers(0, 300, 500), rng.normal(2, 2, 500), rng.normal(0, 2, 500)
    cumulative = negative_binomial_cdf(y, log_mean, log_n)
    known = negative_binomial_crps(y, log_mean, log_n, cumulative=cumulative)
    np.testing.assert_allclose(known, negative_binomial_crps(y, log_mean, log_n), rtol=1e-9, atol=1e-9)


def test_the_gini_difference_is_the_hypergeometric_function():
    for log_n in (-7.0, -2.0, 0.5, 3.0, 10.0):
        for log_mean in (-14.0, -3.0, 0.0, 2.5, 6.0):
            with mpmath.workdps(40):
                n, mean = mpmath.exp(log_n), mpmath.exp(log_mean)
                q = mean / (n + mean)
                w = 4 * q / (1 + q) ** 2
                expected = float(2 * mean / (1 + q) * mpmath.hyp2f1(mpmath.mpf(1) / 2, 1 - n, 2, w))
            assert exact_gini(log_mean, log_n) == pytest.approx(expected, rel=1e-12)


def test_the_gini_difference_of_a_geometric_distribution():
    mean = np.exp(np.linspace(-10, 10, 50))
    q = mean / (1 + mean)
    np.testing.assert_allclose(exact_gini(np.log(mean), 0.0), 2 * q * (1 + mean) / (1 + q), rtol=1e-12)
    assert exact_gini(np.log(3), 0.0) == pytest.approx(24 / 7, rel=1e-13)


def test_the_gini_difference_of_a_huge_n_is_that_of_a_poisson():
    mean = np.exp(np.linspace(-8, 8, 40))
    poisson = 2 * mean * (ive(0, 2 * mean) + ive(1, 2 * mean))
    np.testing.assert_allclose(exact_gini(np.log(mean), 40.0), poisson, rtol=1e-11)


def test_the_table_of_the_gini_difference_is_exact_to_a_millionth_and_ends_in_the_exact_form(rng):
    log_mean, log_n = rng.uniform(-16.9, 16.9, (2, 4000))
    np.testing.assert_allclose(negative_binomial_gini(log_mean, log_n), exact_gini(log_mean, log_n), rtol=1e-6)
    outside = np.array([[-30.0, 18.0, 0.0, 3.0], [0.0, 2.0, 25.0, 30.0]])
    np.testing.assert_array_equal(negative_binomial_gini(*outside), exact_gini(*outside))
    assert np.isnan(negative_binomial_gini([np.nan, 1.0], [0.0, np.nan])).all()


def test_gaussian_crps_where_it_is_known():
    assert gaussian_crps(2.0, 2.0, 3.0) == pytest.approx(3 * (math.sqrt(2) - 1) / math.sqrt(math.pi))
    np.testing.assert_allclose(gaussian_crps([1.0, 5.0, -3.0], 1.5, 1e-12), [0.5, 3.5, 4.5], atol=1e-11)


def integrated(y, cdf, low, high):
    def squared(x):
        return (cdf(x) - (y <= x)) ** 2

    inside = sorted({low, *(edge for edge in (y,) if low < edge < high), high})
    return sum(quad(squared, a, b, epsabs=1e-12, limit=200)[0] for a, b in itertools.pairwise(inside))


@pytest.mark.parametrize(("y", "mean", "sd"), [(0.0, 0.0, 1.0), (2.0, 0.3, 0.4), (-1.0, 3.0, 2.0), (0.1, 0.0, 5.0)])
def test_gaussian_crps_is_the_integral_of_its_definition(y, mean, sd):
    expected = integrated(y, lambda x: norm.cdf(x, mean, sd), mean - 12 * sd, mean + 12 * sd)
    assert gaussian_crps(y, mean, sd) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("y", [0.0, 0.2, 1.5, 6.0])
@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (1.0, 0.5), (-0.7, 0.4), (-3.0, 0.5), (2.0, 3.0), (4.0, 0.3)])
def test_censored_normal_crps_is_the_integral_of_its_definition(y, mean, sd):
    expected = integrated(y, lambda x: norm.cdf(x, mean, sd), 0.0, max(y, mean, 0) + 12 * sd)
    assert censored_normal_crps(y, mean, sd) == pytest.approx(expected, abs=1e-9)


def test_a_censored_normal_far_above_0_is_a_gaussian_and_far_below_a_certain_0():
    y = np.array([0.0, 1.0, 30.0])
    np.testing.assert_allclose(censored_normal_crps(y, 30.0, 1.0), gaussian_crps(y, 30.0, 1.0), rtol=1e-12)
    np.testing.assert_allclose(censored_normal_crps(y, -30.0, 1.0), y, atol=1e-12)


def test_the_crps_of_a_perfect_forecast_is_half_its_mean_difference(rng):
    n, mean = np.full(200_000, 2.0), np.full(200_000, 5.0)
    y = rng.negative_binomial(2, 2 / 7, 200_000)
    fair = exact_gini(np.log(5), np.log(2)) / 2
    assert negative_binomial_crps(y, np.log(mean), np.log(n)).mean() == pytest.approx(fair, abs=0.02)
    assert gaussian_crps(rng.normal(1, 2, 200_000), 1.0, 2.0).mean() == pytest.approx(2 / math.sqrt(math.pi), abs=0.01)


@pytest.mark.parametrize(("mean", "n"), [(0.3, 0.8), (4.0, 2.0), (30.0, 10.0)])
def test_the_true_negative_binomial_has_the_least_expected_crps(mean, n):
    y = np.arange(3000)
    weight = nbinom.pmf(y, n, n / (n + mean))

    def expected(mean_factor, n_factor):
        return (weight * negative_binomial_crps(y, np.log(mean * mean_factor), np.log(n * n_factor))).sum()

    wrong = [expected(a, b) for a in (0.8, 1, 1.25) for b in (0.5, 1, 2) if (a, b) != (1, 1)]
    assert expected(1, 1) < min(wrong) - 1e-4 * expected(1, 1)


def test_the_true_normals_have_the_least_mean_crps(rng):
    latent = rng.normal(0.5, 1.0, 400_000)
    for score, values in ((gaussian_crps, latent), (censored_normal_crps, np.maximum(0, latent))):
        wrong = [score(values, 0.5 + a, b).mean() for a in (-0.2, 0, 0.2) for b in (0.7, 1, 1.4) if (a, b) != (0, 1)]
        assert score(values, 0.5, 1.0).mean() < min(wrong) - 0.001


def test_the_crps_of_peaks_is_the_brier_score():
    np.testing.assert_allclose(bernoulli_crps([0, 1, 1], np.log([1, 3, 1e-9])), [0.25, 0.0625, 1], atol=1e-8)


def test_each_kind_of_track_has_its_own_crps():
    y = np.array([0.0, 2.0])
    np.testing.assert_array_equal(crps("counts", y, ([1, 1], [0, 0])), negative_binomial_crps(y, 1, 0))
    np.testing.assert_array_equal(crps("signal", y, ([1, 1], [2, 2])), gaussian_crps(y, 1, 2))
    np.testing.assert_array_equal(crps("signal", y, ([1, 1], [2, 2]), censored=True), censored_normal_crps(y, 1, 2))
    np.testing.assert_array_equal(crps("peaks", [0, 1], ([1, 1],)), bernoulli_crps([0, 1], 1))
    with pytest.raises(ValueError, match="no CRPS of 'reads'"):
        crps("reads", y, (y, y))


def test_the_error_of_scale_of_counts_is_what_their_factor_costs(rng):
    mean = np.exp(rng.normal(1, 1, 120_000))
    y = rng.poisson(rng.gamma(2, mean / 2))
    log_n = np.full(len(y), np.log(2))
    split = oracle_scaled("counts", y, (np.log(mean / 1.6), log_n))
    assert split.scale == pytest.approx(1.6, rel=0.03)
    assert split.at_best_scale == pytest.approx(negative_binomial_crps(y, np.log(mean), log_n).mean(), rel=1e-3)
    assert split.scale_error == pytest.approx(split.crps - split.at_best_scale, abs=1e-12)
    assert split.scale_error > 0.03 * split.crps
    right = oracle_scaled("counts", y, (np.log(mean), log_n))
    assert 0 <= right.scale_error < 1e-3 * right.crps


@pytest.mark.parametrize("censored", [False, True])
def test_the_error_of_scale_of_signal_is_what_their_offset_costs(rng, censored):
    mean = rng.normal(1.5, 1, 20_000)
    values = rng.normal(mean, 0.5)
    values = np.maximum(0, values) if censored else values
    split = oracle_scaled("signal", values, (mean - 0.4, np.full(20_000, 0.5)), censored=censored)
    assert split.scale == pytest.approx(0.4, abs=0.03)
    assert split.scale_error > 0.1 * split.crps


def test_scale_exists_for_bins_of_counts_and_signal_only():
    assert all(math.isnan(value) for value in oracle_scaled("counts", [], ([], [])))
    assert isinstance(oracle_scaled("signal", [1.0], ([1.0], [1.0])), OracleScaled)
    with pytest.raises(ValueError, match="'peaks' have no scale"):
        oracle_scaled("peaks", [1], ([1.0], [1.0]))
