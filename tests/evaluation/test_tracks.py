"""Tracks against scipy's quantiles, simulations, mpmath and plain loops."""

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import nbinom, norm, poisson

from candi_cli.evaluation.tracks import (
    call_peaks,
    coefficient_of_variation,
    negative_binomial_quantiles,
    negative_binomial_sd,
    signal_quantiles,
    signal_sd,
)

LEVELS = np.array([0.001, 0.05, 0.5, 0.95, 0.999])
NAN = np.nan


def scipy_quantiles(levels, log_mean, log_n):
    mean, n = np.exp(log_mean), np.exp(log_n)
    return nbinom.ppf(np.reshape(levels, (-1, *(1,) * np.ndim(mean + n))), n, n / (n + mean))


@pytest.mark.parametrize(
    ("log_means", "log_ns"),
    [((-4, 4), (-1, 3)), ((-14, 14), (-7, 10)), ((3, 6), (-1, 3)), ((3, 14), (6, 10)), ((3, 14), (-7, -2))],
    ids=["bins", "whole-range", "deep", "nearly-poisson", "very-dispersed"],
)
def test_quantiles_equal_scipy(rng, log_means, log_ns):
    log_mean, log_n = rng.uniform(*log_means, 3000), rng.uniform(*log_ns, 3000)
    ours = negative_binomial_quantiles(LEVELS, log_mean, log_n)
    np.testing.assert_array_equal(ours, scipy_quantiles(LEVELS, log_mean, log_n))


def test_quantiles_equal_scipy_at_the_corners_of_the_range():
    log_mean, log_n = np.meshgrid([-14.0, -1.0, 0.5, 4.0, 6.7, 14.0], [-7.0, -0.1, 2.0, 6.0, 10.0])
    ours = negative_binomial_quantiles(LEVELS, log_mean, log_n)
    np.testing.assert_array_equal(ours, scipy_quantiles(LEVELS, log_mean, log_n))


@given(st.floats(1e-6, 1 - 1e-6), st.floats(-14, 14), st.floats(-7, 10))
@example(0.5, 0.0, 0.0)  # P(Y <= 0) is 0.5
@example(0.999999, -14.0, -7.0)
def test_a_quantile_is_the_first_count_to_reach_its_level(level, log_mean, log_n):
    quantile = float(negative_binomial_quantiles([level], log_mean, log_n)[0])
    n, mean = np.exp(log_n), np.exp(log_mean)
    assert quantile == np.floor(quantile) >= 0
    assert nbinom.cdf(quantile, n, n / (n + mean)) >= level - 1e-11
    assert quantile == 0 or nbinom.cdf(quantile - 1, n, n / (n + mean)) < level + 1e-11


def test_quantiles_have_no_seam_where_their_method_changes():
    mean = np.arange(30.0, 100.0, 0.01)
    for log_n in (-1.0, 2.0, 5.0, 9.0):
        ours = negative_binomial_quantiles(LEVELS, np.log(mean), log_n)
        assert (np.diff(ours, axis=1) >= 0).all()
        np.testing.assert_array_equal(ours, scipy_quantiles(LEVELS, np.log(mean), np.full(len(mean), log_n)))


def test_levels_may_come_in_any_order_and_lie_close_together(rng):
    levels = np.array([0.9, 0.001, 0.5000001, 0.9, 0.5, 1e-9, 1 - 1e-9])
    log_mean, log_n = rng.normal(2, 2, 2000), rng.uniform(-1, 3, 2000)
    ours = negative_binomial_quantiles(levels, log_mean, log_n)
    np.testing.assert_array_equal(ours, scipy_quantiles(levels, log_mean, log_n))


def test_geometric_quantiles_have_a_closed_form():
    levels, mean = np.linspace(0.01, 0.99, 37), np.array([0.3, 3.0, 70.0, 4000.0])
    expected = np.ceil(np.log1p(-levels[:, None]) / np.log(mean / (1 + mean)) - 1)
    np.testing.assert_array_equal(negative_binomial_quantiles(levels, np.log(mean), 0.0), np.maximum(0, expected))


def test_without_dispersion_quantiles_are_those_of_poisson():
    mean = np.array([0.01, 2.0, 30.0, 55.5])
    ours = negative_binomial_quantiles(LEVELS, np.log(mean), 16.0)
    np.testing.assert_array_equal(ours, poisson.ppf(LEVELS[:, None], mean))


def test_quantiles_broadcast_and_cross_chunks(rng):
    log_mean, log_n = rng.normal(0, 2, (40_000, 1)), np.array([-1.0, 2.0])
    ours = negative_binomial_quantiles(LEVELS, log_mean, log_n)
    assert ours.shape == (5, 40_000, 2)
    assert ours.dtype == np.float64
    for column, single in enumerate(log_n):
        alone = negative_binomial_quantiles(LEVELS, log_mean[::-1, 0], single)
        np.testing.assert_array_equal(ours[:, ::-1, column], alone)
    assert negative_binomial_quantiles([0.5], 0.0, 1.0).shape == (1,)


def test_quantiles_of_nothing_are_empty():
    assert negative_binomial_quantiles(LEVELS, [], []).shape == (5, 0)
    assert negative_binomial_quantiles([], [0.0, 1.0], 0.0).shape == (0, 2)
    assert signal_quantiles(LEVELS, np.empty((0, 3)), 1.0).shape == (5, 0, 3)


def test_what_is_not_predicted_has_no_quantile():
    ours = negative_binomial_quantiles([0.05, 0.95], [NAN, 1.0, 9.0, 1.0], [0.0, NAN, 0.0, 0.0])
    assert np.isnan(ours[:, :2]).all()
    np.testing.assert_array_equal(ours[:, 2:], scipy_quantiles([0.05, 0.95], np.array([9.0, 1.0]), np.zeros(2)))


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, NAN])
def test_a_level_outside_of_its_range_is_an_error(level):
    with pytest.raises(ValueError, match="levels"):
        negative_binomial_quantiles([0.5, level], 0.0, 0.0)


@pytest.mark.parametrize(("log_mean", "log_n"), [(16.5, 0.0), (0.0, -17.0)])
def test_parameters_beyond_whole_floats_are_an_error(log_mean, log_n):
    with pytest.raises(ValueError, match="outside"):
        negative_binomial_quantiles([0.5], log_mean, log_n)


def test_sd_of_counts_equals_scipy_over_the_whole_range():
    log_mean, log_n = np.meshgrid(np.linspace(-14, 14, 15), np.linspace(-7, 10, 9))
    mean, n = np.exp(log_mean), np.exp(log_n)
    np.testing.assert_allclose(negative_binomial_sd(log_mean, log_n), np.sqrt(mean + mean**2 / n), rtol=1e-13)
    np.testing.assert_allclose(
        negative_binomial_sd(log_mean[:, 4:11], log_n[:, 4:11]),
        nbinom.std(n[:, 4:11], n[:, 4:11] / (n + mean)[:, 4:11]),
        rtol=1e-7,
    )


def test_sd_of_counts_is_that_of_a_simulation(rng):
    draws = rng.poisson(rng.gamma(2.0, 5.0 / 2.0, 400_000))
    assert negative_binomial_sd(np.log(5.0), np.log(2.0)) == pytest.approx(draws.std(), rel=0.01)


def test_signal_quantiles_are_those_of_a_simulation(rng):
    mean, sd = np.array([-1.0, 0.2, 3.0]), np.array([0.5, 0.7, 0.1])
    draws = np.maximum(0, np.sinh(rng.normal(mean, sd, (400_000, 3))))
    levels = [0.05, 0.5, 0.95]
    np.testing.assert_allclose(signal_quantiles(levels, mean, sd), np.quantile(draws, levels, axis=0), rtol=0.02)


def test_signal_quantiles_are_never_negative_and_rise_with_their_level(rng):
    quantiles = signal_quantiles(LEVELS, rng.normal(0, 2, (50, 1)), rng.uniform(0.05, 3, 7))
    assert quantiles.shape == (5, 50, 7)
    assert (quantiles >= 0).all()
    assert (np.diff(quantiles, axis=0) >= 0).all()
    assert signal_quantiles([0.9], 2.0, 0.5) == pytest.approx(np.sinh(norm.ppf(0.9, 2.0, 0.5)))


@pytest.mark.parametrize("mean", [-20.0, -1.5, 0.0, 1e-9, 0.3, 6.0, 20.0])
@pytest.mark.parametrize("sd", [0.05, 0.4, 1.0, 3.0])
def test_signal_sd_equals_its_moments_in_many_digits(mean, sd):
    with mpmath.workdps(80):
        m, variance = mpmath.mpf(mean), mpmath.mpf(sd) ** 2
        first = mpmath.exp(variance / 2) * mpmath.sinh(m)
        second = (mpmath.exp(2 * variance) * mpmath.cosh(2 * m) - 1) / 2
        exact = float(mpmath.sqrt(second - first**2))
    assert float(signal_sd(mean, sd)) == pytest.approx(exact, rel=1e-14)


def test_signal_sd_is_that_of_a_simulation(rng):
    mean, sd = np.array([-0.5, 0.0, 2.0, 5.0]), np.array([0.3, 1.0, 0.6, 0.05])
    draws = np.sinh(rng.normal(mean, sd, (1_000_000, 4)))
    np.testing.assert_allclose(signal_sd(mean, sd), draws.std(axis=0), rtol=0.01)


def test_coefficient_of_variation_of_counts_has_a_closed_form():
    log_mean, log_n = np.meshgrid(np.linspace(-14, 14, 8), np.linspace(-7, 10, 6))
    ratio = coefficient_of_variation(np.exp(log_mean), negative_binomial_sd(log_mean, log_n))
    np.testing.assert_allclose(ratio, np.sqrt(np.exp(-log_mean) + np.exp(-log_n)), rtol=1e-13)


def test_coefficient_of_variation_is_finite_wherever_there_is_a_prediction():
    mean, sd = [0.0, -1.0, 5e-324, 2.0, NAN, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0, NAN, NAN]
    expected = [0, 0, np.finfo(float).max, 0.5, NAN, NAN, NAN]
    np.testing.assert_array_equal(coefficient_of_variation(mean, sd), expected)
    assert coefficient_of_variation(np.ones((3, 1)), np.ones(2)).shape == (3, 2)


def looped_peaks(probability, threshold):
    """Peaks found one bin at a time."""
    peaks, bin_ = [], 0
    while bin_ < len(probability):
        end = bin_
        while end < len(probability) and probability[end] >= threshold:
            end += 1
        if end > bin_:
            height = max(probability[bin_:end])
            first = last = next(at for at in range(bin_, end) if probability[at] == height)
            while last + 1 < end and probability[last + 1] == height:
                last += 1
            peaks.append((bin_, end, (first + last) // 2, height))
        bin_ = max(end, bin_ + 1)
    return peaks


@given(arrays(np.float64, st.integers(0, 40), elements=st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.9, NAN])))
def test_peaks_equal_those_of_a_plain_loop(probability):
    peaks = call_peaks(probability, 0.5)
    assert list(zip(*(part.tolist() for part in peaks), strict=True)) == looped_peaks(probability, 0.5)


def test_peaks_of_many_bins_equal_those_of_a_plain_loop(rng):
    probability = np.round(rng.random(20_000), 1)
    probability[rng.random(20_000) < 0.05] = NAN
    peaks = call_peaks(probability, 0.3)
    assert list(zip(*(part.tolist() for part in peaks), strict=True)) == looped_peaks(probability, 0.3)


def test_a_summit_is_the_lower_middle_of_the_first_plateau():
    even = [0.1, 0.6, 0.9, 0.9, 0.9, 0.9, 0.6, 0.9, 0.1]
    assert call_peaks(even, 0.5) == (1, 8, 3, 0.9)
    assert call_peaks([0.9, 0.9, 0.9], 0.5) == (0, 3, 1, 0.9)


def test_bins_without_a_prediction_end_a_peak():
    peaks = call_peaks([NAN, 0.8, 0.8, NAN, 0.8, NAN], 0.5)
    assert peaks.start.tolist() == [1, 4]
    assert peaks.end.tolist() == [3, 5]


def looped_calls(probability, threshold, max_gap, min_length):
    """Peaks as one who reads bin by bin calls them: a peak goes on until a gap is too wide or a bin is not known."""
    calls, start, last = [], None, None
    for bin_, value in [*enumerate(probability), (len(probability), NAN)]:
        if start is not None and (np.isnan(value) or bin_ - last > max_gap + (value >= threshold)):
            calls.append((start, last + 1))
            start = None
        if value >= threshold:
            start, last = (bin_ if start is None else start), bin_
    return [(start, end) for start, end in calls if end - start >= min_length]


@given(
    arrays(np.float64, st.integers(0, 60), elements=st.sampled_from([0.0, 0.3, 0.4, 0.6, 0.7, 0.9, NAN])),
    st.integers(0, 4),
    st.integers(1, 6),
)
def test_peaks_with_narrow_gaps_equal_those_of_a_reader_of_bins(probability, max_gap, min_length):
    peaks = call_peaks(probability, 0.5, max_gap=max_gap, min_length=min_length)
    spans = list(zip(peaks.start.tolist(), peaks.end.tolist(), strict=True))
    assert spans == looped_calls(probability, 0.5, max_gap, min_length)
    for (start, end), summit, height in zip(spans, peaks.summit, peaks.height, strict=True):
        assert start <= summit < end
        assert height == probability[summit] == probability[start:end].max()


def test_a_gap_of_the_most_bins_is_closed_and_one_more_is_not():
    probability = [0.9, 0.1, 0.1, 0.6, 0.1, 0.1, 0.1, 0.7]
    peaks = call_peaks(probability, 0.5, max_gap=2)
    assert list(zip(peaks.start.tolist(), peaks.end.tolist(), strict=True)) == [(0, 4), (7, 8)]
    assert call_peaks(probability, 0.5, max_gap=3).end.tolist() == [8]


def test_runs_are_joined_before_what_is_short_is_left_out():
    probability = [0.9, 0.9, 0.1, 0.8, 0.1, 0.1, 0.9, 0.9]
    assert call_peaks(probability, 0.5, max_gap=1, min_length=4) == (0, 4, 0, 0.9)


def test_a_gap_without_a_prediction_is_never_closed():
    assert call_peaks([0.9, NAN, 0.9, 0.1, 0.9], 0.5, max_gap=5).start.tolist() == [0, 2]


@pytest.mark.parametrize("probability", [[], [0.1], [NAN, NAN], [0.1, 0.2, NAN]])
def test_no_bin_at_the_threshold_means_no_peak(probability):
    assert [part.shape for part in call_peaks(probability, 0.5)] == [(0,)] * 4
