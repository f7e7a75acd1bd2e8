"""The distributions against scipy, direct sums, closed forms and their own limits."""

import mpmath
import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.special import logsumexp
from scipy.stats import bernoulli, nbinom, norm, poisson

from candi_cli.evaluation.distributions import (
    bernoulli_cdf,
    bernoulli_log_pmf,
    censored_normal_cdf,
    censored_normal_log_likelihood,
    gaussian_cdf,
    gaussian_log_pdf,
    negative_binomial_cdf,
    negative_binomial_log_pmf,
)


@pytest.fixture
def mixed(rng):
    """Counts from a wide range of negative binomials: y, log mean, log dispersion, and scipy's (n, p)."""
    log_mean, log_n = rng.uniform(-7, 8, 4000), rng.uniform(-4, 8, 4000)
    mean, n = np.exp(log_mean), np.exp(log_n)
    return rng.poisson(rng.gamma(n, mean / n)), log_mean, log_n, n, n / (n + mean)


def test_log_pmf_equals_scipy(mixed):
    y, log_mean, log_n, n, p = mixed
    np.testing.assert_allclose(
        negative_binomial_log_pmf(y, log_mean, log_n), nbinom.logpmf(y, n, p), rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("log_mean", [-14.0, 0.0, 14.0])
@pytest.mark.parametrize("n", [1e-3, 0.7, 99.9, 100.1, 1e4, 1e8, 1e12])
@pytest.mark.parametrize("y", [0, 1, 17, 500_000])
def test_log_pmf_has_its_digits_where_plain_forms_lose_them(y, n, log_mean):
    with mpmath.workdps(60):
        size, mean = mpmath.exp(mpmath.mpf(float(np.log(n)))), mpmath.exp(log_mean)
        exact = mpmath.loggamma(size + y) - mpmath.loggamma(size) - mpmath.loggamma(y + 1)
        exact += size * mpmath.log(size / (size + mean)) + y * mpmath.log(mean / (size + mean))
        exact = float(exact)
    error = abs(float(negative_binomial_log_pmf(y, log_mean, np.log(n))) - exact)
    assert error < 1e-13 * max(100, abs(exact), 100 * y)


@pytest.mark.parametrize(("log_mean", "log_n"), [(-3, 0), (1, -2), (3, 1), (4, 10)])
def test_probabilities_sum_to_one_and_have_the_stated_moments(log_mean, log_n):
    y = np.arange(40_000)
    log_pmf = negative_binomial_log_pmf(y, log_mean, log_n)
    assert logsumexp(log_pmf) == pytest.approx(0, abs=1e-8)
    mean = np.exp(log_mean)
    assert np.exp(log_pmf) @ y == pytest.approx(mean)
    assert np.exp(log_pmf) @ (y - mean) ** 2 == pytest.approx(mean + mean**2 / np.exp(log_n))


def test_cdf_is_the_sum_of_the_pmf():
    y = np.arange(300)
    for log_mean, log_n in [(-3, 0), (1, -2), (3, 1), (4, 10), (2, 25)]:
        below, at = negative_binomial_cdf(y, log_mean, log_n)
        sums = np.exp(negative_binomial_log_pmf(y, log_mean, log_n)).cumsum()
        np.testing.assert_allclose(at, sums, atol=1e-12)
        np.testing.assert_allclose(below, np.append(0, sums[:-1]), atol=1e-12)


def test_cdf_equals_scipy(mixed):
    y, log_mean, log_n, n, p = mixed
    below, at = negative_binomial_cdf(y, log_mean, log_n)
    np.testing.assert_allclose(at, nbinom.cdf(y, n, p), atol=1e-10)
    np.testing.assert_allclose(below, nbinom.cdf(y - 1, n, p), atol=1e-10)
    assert (below[y == 0] == 0).all()
    assert ((below >= 0) & (below <= at) & (at <= 1)).all()


def test_cdf_has_no_seam_where_its_method_changes(rng):
    y = np.arange(55, 75)
    for log_mean, log_n in [(4.1, -1), (4.1, 3), (4.1, 9), (6.5, 12), (-3, 2)]:
        below, at = negative_binomial_cdf(y, log_mean, log_n)
        np.testing.assert_allclose(below[1:], at[:-1], atol=1e-12)
        np.testing.assert_allclose(at - below, np.exp(negative_binomial_log_pmf(y, log_mean, log_n)), atol=1e-12)


def test_cdf_keeps_the_shape_and_order_of_its_counts(rng):
    y, log_mean = rng.integers(0, 200, (3, 4, 5)), rng.normal(3, 1, (4, 5))
    below, at = negative_binomial_cdf(y, log_mean, 0.5)
    assert at.shape == below.shape == (3, 4, 5)
    for index in np.ndindex(3, 4, 5):
        single = negative_binomial_cdf(y[index], log_mean[index[1:]], 0.5)
        assert single.at == pytest.approx(at[index], abs=1e-14)
        assert single.below == pytest.approx(below[index], abs=1e-14)


def test_geometric_counts_have_a_closed_form():
    y, mean = np.arange(50), 3.0
    below, at = negative_binomial_cdf(y, np.log(mean), 0.0)
    q = mean / (1 + mean)
    np.testing.assert_allclose(at, 1 - q ** (y + 1), rtol=1e-13)
    np.testing.assert_allclose(below, 1 - q**y, atol=1e-13)
    np.testing.assert_allclose(negative_binomial_log_pmf(y, np.log(mean), 0.0), np.log(1 - q) + y * np.log(q))


@pytest.mark.parametrize("log_n", [25.0, 40.0])
def test_without_dispersion_counts_are_poisson(log_n):
    y, mean = np.arange(60), 8.0
    np.testing.assert_allclose(
        negative_binomial_log_pmf(y, np.log(mean), log_n), poisson.logpmf(y, mean), rtol=1e-7, atol=1e-7
    )
    np.testing.assert_allclose(negative_binomial_cdf(y, np.log(mean), log_n).at, poisson.cdf(y, mean), atol=1e-8)


def test_gaussian_equals_scipy(rng):
    values, mean, sd = rng.normal(size=500), rng.normal(size=500), rng.uniform(0.01, 5, 500)
    np.testing.assert_allclose(gaussian_log_pdf(values, mean, sd), norm.logpdf(values, mean, sd), rtol=1e-12)
    below, at = gaussian_cdf(values, mean, sd)
    np.testing.assert_allclose(at, norm.cdf(values, mean, sd), rtol=1e-12)
    assert (below == at).all()


def test_a_censored_normal_has_its_mass_at_zero_and_is_the_normal_above(rng):
    mean, sd = 0.4, 0.9
    values = np.maximum(0, rng.normal(mean, sd, 200_000))
    below, at = censored_normal_cdf(values, mean, sd)
    zero = values == 0
    assert at[zero][0] == pytest.approx(norm.cdf(-mean / sd))
    assert zero.mean() == pytest.approx(at[zero][0], abs=0.005)
    assert not below[zero].any()
    assert (below[~zero] == at[~zero]).all()
    log_likelihood = censored_normal_log_likelihood(values, mean, sd)
    assert np.exp(log_likelihood[zero][0]) == pytest.approx(at[zero][0])
    np.testing.assert_allclose(log_likelihood[~zero], norm.logpdf(values[~zero], mean, sd))
    # mass and density together are one
    grid = np.linspace(1e-9, 8, 100_001)
    density = np.exp(censored_normal_log_likelihood(grid, mean, sd))
    assert trapezoid(density, grid) + at[zero][0] == pytest.approx(1, abs=1e-6)


def test_a_censored_normal_far_below_zero_has_a_finite_likelihood():
    assert np.isfinite(censored_normal_log_likelihood([0.0, 1.0], -50.0, 0.05)).all()
    assert censored_normal_log_likelihood(0.0, 50.0, 1.0) == pytest.approx(norm.logcdf(-50.0))


def test_peaks_equal_scipy_and_stay_finite(rng):
    peaks, logit = rng.integers(0, 2, 300), rng.normal(0, 4, 300)
    probability = 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(bernoulli_log_pmf(peaks, logit), bernoulli.logpmf(peaks, probability), rtol=1e-9)
    below, at = bernoulli_cdf(peaks, logit)
    np.testing.assert_allclose(at, bernoulli.cdf(peaks, probability), rtol=1e-12)
    np.testing.assert_allclose(at - below, bernoulli.pmf(peaks, probability), atol=1e-12)
    assert bernoulli_log_pmf(1, -1000.0) == -1000
    assert bernoulli_log_pmf(0, -1000.0) == 0
