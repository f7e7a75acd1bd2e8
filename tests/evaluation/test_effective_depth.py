"""Effective depth against the closed form, and against Poisson reads whose answer is known."""

import numpy as np
import pytest

from candi_cli.evaluation.effective_depth import DepthCurve, effective_depth, fit_depth_curve

DEPTHS = np.array([1 / 8, 1 / 4, 1 / 2, 1])


def simulated(seed, n_bins=200_000, mean=2.0):
    """A gamma distributed rate of shape 0.5 with runs of 20 equal bins: k = mean / variance = 0.5 / mean."""
    rng = np.random.default_rng(seed)
    rate = np.repeat(rng.gamma(0.5, 2 * mean, n_bins // 20), 20)
    return rng, rate, np.arange(n_bins) * 40 // n_bins


@pytest.mark.parametrize(("ceiling", "half_depth"), [(0.9, 0.2), (0.5, 3.0), (1.0, 1.0), (0.97, 0.01)])
def test_the_curve_is_found_again_from_its_own_points(ceiling, half_depth):
    points = ceiling * np.sqrt(DEPTHS / (DEPTHS + half_depth))
    curve = fit_depth_curve(DEPTHS, points)
    assert float(curve.ceiling) == pytest.approx(ceiling, rel=0.01)
    assert float(curve.half_depth) == pytest.approx(half_depth, rel=0.03)
    assert curve.correlation(DEPTHS) == pytest.approx(points, rel=1e-3)


def test_several_curves_are_fitted_as_each_alone():
    rng = np.random.default_rng(1)
    curves = np.sort(rng.uniform(0.2, 0.9, (5, len(DEPTHS))), axis=1)
    together = fit_depth_curve(DEPTHS, curves)
    for row, points in enumerate(curves):
        alone = fit_depth_curve(DEPTHS, points)
        assert (float(together.ceiling[row]), float(together.half_depth[row])) == (*map(float, alone),)


def test_depth_inverts_correlation_and_is_infinite_from_the_ceiling_on():
    curve = DepthCurve(np.array(0.8), np.array(0.7))
    depths = np.array([0.01, 1.0, 30.0])
    assert curve.depth(curve.correlation(depths)) == pytest.approx(depths)
    assert curve.depth([0.8, 0.9]).tolist() == [np.inf, np.inf]
    assert curve.depth([0.0, -0.3]).tolist() == [0, 0]


@pytest.mark.parametrize("multiple", [0.5, 2.0, 4.0])
def test_counts_of_another_depth_are_worth_that_depth(multiple):
    rng, rate, blocks = simulated(int(10 * multiple))
    counts, truth, deeper = rng.poisson(rate), rng.poisson(rate), rng.poisson(multiple * rate)
    found = effective_depth(counts, deeper, truth, blocks, seed=0, n_resamples=200)
    assert found.multiple == pytest.approx(multiple, rel=0.15)
    assert found.low < multiple < found.high
    assert not found.note
    # in closed form: k = mean / variance of the rate, C^2 = 1 / (1 + k) of a truth as deep as the input
    k = rate.mean() / rate.var()
    assert float(found.curve.half_depth) == pytest.approx(k, rel=0.15)
    assert float(found.curve.ceiling) == pytest.approx((1 + k) ** -0.5, rel=0.01)


def test_the_counts_themselves_are_worth_their_own_depth():
    rng, rate, blocks = simulated(3)
    counts, truth = rng.poisson(rate), rng.poisson(rate)
    found = effective_depth(counts, 7 * counts + 3, truth, blocks, seed=0, n_resamples=100)
    assert found.multiple == pytest.approx(1, rel=0.02)
    assert found.correlations[-1] == pytest.approx(found.correlation)


def test_the_rate_itself_is_worth_depths_beyond_the_curve():
    rng, rate, blocks = simulated(4, mean=0.5)
    found = effective_depth(rng.poisson(rate), rate, rng.poisson(rate), blocks, seed=0, n_resamples=200)
    assert found.high == np.inf
    assert found.low > 5
    above = effective_depth(rng.poisson(rate), truth := rng.poisson(rate), truth, blocks, seed=0, n_resamples=50)
    assert above.multiple == np.inf
    assert "above" in above.note


def test_noise_is_worth_no_reads():
    rng, rate, blocks = simulated(5, n_bins=40_000)
    noise = rng.normal(size=len(rate))
    found = effective_depth(rng.poisson(rate), noise, rng.poisson(rate), blocks, seed=0, n_resamples=100)
    assert found.multiple < 0.01
    assert found.low < 1e-4


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    inside = 0
    for seed in range(40):
        rng, rate, blocks = simulated(100 + seed, n_bins=20_000)
        deeper = rng.poisson(2 * rate)
        found = effective_depth(rng.poisson(rate), deeper, rng.poisson(rate), blocks, seed=seed, n_resamples=100)
        inside += found.low <= 2 <= found.high
    assert 33 <= inside <= 40


def test_the_same_seed_gives_the_same_numbers():
    rng, rate, blocks = simulated(6, n_bins=20_000)
    counts, truth = rng.poisson(rate), rng.poisson(rate)
    one, other = (effective_depth(counts, rate, truth, blocks, seed=9, n_resamples=50) for _ in range(2))
    assert (one.multiple, one.low, one.high) == (other.multiple, other.low, other.high)
