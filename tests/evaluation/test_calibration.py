"""Calibration against simulation, exact sums, and the quantile route."""

import math

import numpy as np
import pytest
from scipy.stats import nbinom, norm

from candi_cli.evaluation.calibration import (
    INTERVAL_LEVELS,
    PIT_LEVELS,
    coverage,
    critical_levels,
    curve_error,
    interval_error,
    pit_curve,
    pit_error,
)
from candi_cli.evaluation.distributions import (
    Cumulative,
    censored_normal_cdf,
    gaussian_cdf,
    negative_binomial_cdf,
)

N = 60_000


@pytest.fixture
def counts(rng):
    """Counts of many means, n = 2: y, log mean, log n."""
    log_mean = rng.normal(0, 1.5, N)
    return rng.poisson(rng.gamma(2, np.exp(log_mean) / 2)), log_mean, np.log(2)


def test_a_perfect_negative_binomial_of_mean_1_fails_interval_coverage_but_not_the_pit(rng):
    y = rng.negative_binomial(2, 2 / 3, N)
    cumulative = negative_binomial_cdf(y, 0.0, np.log(2))
    assert interval_error(cumulative) == pytest.approx(0.287, abs=0.005)
    assert pit_error(cumulative) < 0.002


@pytest.mark.parametrize(
    ("mean", "covered", "error"),
    [
        (0.05, [0.952, 0.952, 0.952, 0.952, 0.998], 0.454),
        (0.5, [0.640, 0.896, 0.973, 0.973, 0.993], 0.346),
        (1, [0.296, 0.889, 0.955, 0.955, 0.982], 0.287),
        (5, [0.197, 0.579, 0.840, 0.955, 0.981], 0.078),
        (20, [0.120, 0.525, 0.808, 0.909, 0.952], 0.020),
        (100, [0.105, 0.502, 0.802, 0.903, 0.953], 0.004),
    ],
)
def test_coverage_of_a_perfect_count_forecast_is_what_its_discreteness_makes_it(mean, covered, error):
    # exact: each count weighs what it is likely to be, and 300,000 of them stand for the distribution
    y = np.arange(3000)
    weight = np.rint(nbinom.pmf(y, 2, 2 / (2 + mean)) * 3e5).astype(int)
    cumulative = negative_binomial_cdf(np.repeat(y, weight), np.log(mean), np.log(2))
    curve = coverage(critical_levels(cumulative), [0.1, 0.5, 0.8, 0.9, 0.95])
    np.testing.assert_allclose(curve, covered, atol=0.001)
    assert interval_error(cumulative) == pytest.approx(error, abs=0.001)
    assert pit_error(cumulative) < 1e-4


def test_an_overconfident_count_forecast_has_the_smaller_interval_error_but_the_larger_pit_error(counts):
    y, log_mean, log_n = counts
    perfect, overconfident = (negative_binomial_cdf(y, log_mean, log_n + shift) for shift in (0, np.log(4)))
    assert interval_error(overconfident) < interval_error(perfect) - 0.04
    assert pit_error(perfect) < 0.003
    assert pit_error(overconfident) > 0.02


@pytest.mark.parametrize(("mean_factor", "n_factor"), [(1, 4), (1, 0.25), (1.5, 1), (1 / 1.5, 1)])
def test_the_pit_curve_of_a_wrong_count_forecast_is_its_exact_expectation(rng, mean_factor, n_factor):
    # F is a step function: its mean rise to each level, summed over what the counts truly are
    y, mean, n = np.arange(2000), 4.0, 2.0
    told_mean, told_n = mean * mean_factor, n * n_factor
    p = told_n / (told_n + told_mean)
    below, at = nbinom.cdf(y - 1, told_n, p), nbinom.cdf(y, told_n, p)
    truth = nbinom.pmf(y, n, n / (n + mean))
    risen = np.clip((PIT_LEVELS[:, None] - below) / np.maximum(at - below, 1e-300), 0, 1)
    drawn = negative_binomial_cdf(rng.negative_binomial(n, n / (n + mean), N), np.log(told_mean), np.log(told_n))
    np.testing.assert_allclose(pit_curve(drawn), risen @ truth, atol=0.004)
    assert pit_error(drawn) > 0.02


def test_the_pit_curve_is_the_mean_of_the_single_curves(rng):
    y = rng.poisson(3, 400)
    below, at = negative_binomial_cdf(y, 1.0, 0.5)
    single = [np.interp(PIT_LEVELS, [b, a], [0, 1]) for b, a in zip(below, at, strict=True)]
    np.testing.assert_allclose(pit_curve(Cumulative(below, at)), np.mean(single, axis=0), atol=1e-12)


def test_the_pit_curve_is_the_expectation_of_randomised_ones(rng, counts):
    below, at = negative_binomial_cdf(*counts)
    randomised = below + rng.random(N) * (at - below)
    curve = [(randomised <= level).mean() for level in PIT_LEVELS]
    np.testing.assert_allclose(pit_curve(Cumulative(below, at)), curve, atol=0.005)


def test_a_continuous_pit_curve_is_an_empirical_distribution_function(rng):
    uniform = rng.random(70_000)
    np.testing.assert_allclose(
        pit_curve(Cumulative(uniform, uniform)), [(uniform <= level).mean() for level in PIT_LEVELS], atol=1e-12
    )


def test_a_curve_ends_at_one_even_where_the_cdf_saturates():
    cumulative = negative_binomial_cdf([5000, 0, 3], np.log(2), np.log(5))
    assert cumulative.at[0] == 1
    assert pit_curve(cumulative)[-1] == 1
    assert pit_curve(cumulative)[0] == 0


def test_a_perfect_gaussian_is_calibrated_by_both_instruments(rng):
    mean, sd = rng.normal(size=N), rng.uniform(0.1, 3, N)
    cumulative = gaussian_cdf(rng.normal(mean, sd), mean, sd)
    assert pit_error(cumulative) < 0.003
    np.testing.assert_allclose(coverage(critical_levels(cumulative)), INTERVAL_LEVELS, atol=0.008)


def test_a_gaussian_three_times_too_wide_is_caught(rng):
    values = rng.normal(size=N)
    cumulative = gaussian_cdf(values, 0.0, 3.0)
    assert pit_error(cumulative) > 0.1
    levels = np.array([0.1, 0.5, 0.9])
    expected = 2 * norm.cdf(3 * norm.ppf((1 + levels) / 2)) - 1
    np.testing.assert_allclose(coverage(critical_levels(cumulative), levels), expected, atol=0.005)


def test_a_signal_with_a_point_mass_at_zero_is_calibrated_as_a_censored_normal_only(rng):
    mean = np.abs(rng.normal(0.8, 0.4, N))
    values = np.maximum(0, rng.normal(mean, 0.7))
    assert 0.1 < (values == 0).mean() < 0.25
    assert pit_error(censored_normal_cdf(values, mean, 0.7)) < 0.003
    assert pit_error(gaussian_cdf(values, mean, 0.7)) > 0.01


def test_critical_levels_equal_the_quantile_route(rng):
    n, mean = np.exp(rng.uniform(-1, 4, 3000)), np.exp(rng.uniform(-2, 4, 3000))
    p = n / (n + mean)
    y = rng.negative_binomial(n, p)
    critical = critical_levels(negative_binomial_cdf(y, np.log(mean), np.log(n)))
    for level in (0.1237, 0.5123, 0.8311, 0.9517):
        low, high = nbinom.ppf((1 - level) / 2, n, p), nbinom.ppf((1 + level) / 2, n, p)
        inside = (y >= low) & (y <= high)
        assert (inside == (critical <= level)).all()


def test_the_order_and_the_number_of_observations_change_nothing(rng, counts):
    below, at = negative_binomial_cdf(*counts)
    order = rng.permutation(N)
    assert pit_error(Cumulative(below[order], at[order])) == pytest.approx(pit_error(Cumulative(below, at)), abs=1e-9)
    twice = Cumulative(np.tile(below, 2), np.tile(at, 2))
    assert pit_error(twice) == pytest.approx(pit_error(Cumulative(below, at)), abs=1e-9)


def test_the_worst_forecasts_have_the_largest_error():
    never = Cumulative(np.zeros(10), np.zeros(10))  # every observation below what was thought possible
    assert pit_error(never) == pytest.approx(0.5)
    assert curve_error([0.2, 0.4], [0.1, 0.2]) == pytest.approx(0.15)


def test_without_observations_there_is_no_score():
    nothing = Cumulative(np.zeros(0), np.zeros(0))
    assert math.isnan(pit_error(nothing))
    assert math.isnan(interval_error(nothing))


def test_a_rise_too_small_for_its_inverse_is_a_jump():
    with np.errstate(all="raise"):
        curve = pit_curve(Cumulative(np.array([0.0, 0.25]), np.array([5e-324, 0.75])), [0.0, 0.5, 1.0])
    assert curve == pytest.approx([0.0, (1 + 0.5) / 2, 1.0])
