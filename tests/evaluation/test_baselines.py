"""The baselines find what made the data, and stay defined where there are none."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import nbinom, poisson

from candi_cli.evaluation.baselines import (
    LOG_DISPERSION_BOUNDS,
    Marginal,
    ScaledTrack,
    fit_marginal,
    fit_scaled_track,
    mean_of_others,
)


def draw(rng, mean, n):
    return rng.poisson(rng.gamma(n, mean / n))


def test_the_marginal_finds_rate_and_dispersion_through_unlike_depths(rng):
    log_depth = rng.choice(np.log([0.25, 1.0, 4.0]), 200_000)
    counts = draw(rng, 1.7 * np.exp(log_depth), 0.6)
    fitted = fit_marginal(counts, log_depth)
    assert np.exp(fitted.log_rate) == pytest.approx(1.7, rel=0.02)
    assert np.exp(fitted.log_dispersion) == pytest.approx(0.6, rel=0.02)


def test_the_marginal_is_the_maximum_that_another_search_finds_with_scipys_likelihood(rng):
    log_depth = rng.normal(0, 0.5, 500)
    counts = draw(rng, 3 * np.exp(log_depth), 1.5)

    def loss(parameters):
        mean, n = np.exp(parameters[0] + log_depth), np.exp(parameters[1])
        return -nbinom.logpmf(counts, n, n / (n + mean)).sum()

    search = minimize(loss, (0.0, 0.0), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8})
    np.testing.assert_allclose(fit_marginal(counts, log_depth), search.x, atol=1e-3)


def test_without_depths_the_fitted_rate_is_the_mean(rng):
    counts = draw(rng, np.full(5000, 2.0), 0.8)
    assert np.exp(fit_marginal(counts).log_rate) == pytest.approx(counts.mean(), rel=1e-4)


def test_held_out_likelihood_is_scipys_at_the_held_out_depth(rng):
    fitted = Marginal(np.log(2.0), np.log(0.5))
    held_out = draw(rng, np.full(100, 6.0), 0.5)
    np.testing.assert_allclose(
        fitted.log_likelihood(held_out, np.log(3.0)), nbinom.logpmf(held_out, 0.5, 0.5 / 6.5), rtol=1e-10
    )


def test_no_other_marginal_is_better_on_its_training_counts(rng):
    counts = draw(rng, np.full(3000, 0.8), 2.0)
    fitted = fit_marginal(counts)
    best = fitted.log_likelihood(counts).sum()
    for shift in ((0.05, 0), (-0.05, 0), (0, 0.1), (0, -0.1)):
        other = Marginal(*(np.array(fitted) + shift))
        assert other.log_likelihood(counts).sum() < best


@pytest.mark.parametrize("counts", [np.zeros(1000), np.full(1000, 4), np.array([7]), np.array([0, 500_000])])
def test_counts_without_spread_still_have_a_finite_marginal(counts):
    fitted = fit_marginal(counts)
    assert np.isfinite(fitted).all()
    assert LOG_DISPERSION_BOUNDS[0] <= fitted.log_dispersion <= LOG_DISPERSION_BOUNDS[1]
    assert np.isfinite(fitted.log_likelihood([0, 1, 1000])).all()


def test_no_read_at_all_counts_as_half_a_read():
    assert np.exp(fit_marginal(np.zeros(1000)).log_rate) == pytest.approx(0.5 / 1000)


def test_poisson_counts_get_a_dispersion_that_makes_no_difference(rng):
    counts = rng.poisson(3.0, 20_000)
    fitted = fit_marginal(counts)
    difference = fitted.log_likelihood(counts).mean() - poisson.logpmf(counts, counts.mean()).mean()
    assert abs(difference) < 1e-3


def test_the_thinned_input_predicts_the_rest_of_its_reads_and_beats_the_marginal(rng):
    rate = np.exp(rng.normal(0, 1.5, 50_000))
    seen, rest = rng.poisson(rate), rng.poisson(3 * rate)
    copy, marginal = fit_scaled_track(rest, seen, np.log(3)), fit_marginal(rest)
    held_rate = np.exp(rng.normal(0, 1.5, 50_000))
    held_seen, held_rest = rng.poisson(held_rate), rng.poisson(3 * held_rate)
    ours = copy.log_likelihood(held_rest, held_seen, np.log(3)).mean()
    assert ours > marginal.log_likelihood(held_rest).mean() + 0.3
    assert 0 < copy.pseudo_count < 2
    # neither another pseudo-count nor another dispersion is better
    best = copy.log_likelihood(rest, seen, np.log(3)).sum()
    for pseudo, log_n in ((1.1, 0), (0.9, 0), (1, 0.1), (1, -0.1)):
        other = ScaledTrack(copy.pseudo_count * pseudo, copy.log_dispersion + log_n)
        assert other.log_likelihood(rest, seen, np.log(3)).sum() < best


def test_a_track_that_is_the_true_rate_needs_no_pseudo_count(rng):
    rate = np.exp(rng.normal(0, 1, 20_000))
    fitted = fit_scaled_track(draw(rng, 2 * rate, 4.0), rate, np.log(2))
    assert fitted.pseudo_count < 0.02
    assert np.exp(fitted.log_dispersion) == pytest.approx(4, rel=0.1)


def test_an_input_without_reads_predicts_the_mean(rng):
    counts = rng.poisson(0.7, 4000)
    assert fit_scaled_track(counts, np.zeros(4000)).pseudo_count == pytest.approx(counts.mean(), rel=1e-3)


def test_the_order_of_training_bins_changes_nothing(rng):
    counts, log_depth = rng.poisson(2, 999), rng.normal(size=999)
    order = rng.permutation(999)
    np.testing.assert_allclose(fit_marginal(counts[order], log_depth[order]), fit_marginal(counts, log_depth))


def test_without_training_counts_there_is_no_fit():
    with pytest.raises(ValueError, match="no training counts"):
        fit_marginal([])


def test_the_mean_of_others_holds_nothing_of_ones_own(rng):
    tracks = rng.normal(size=(4, 50))
    changed = tracks.copy()
    changed[2] = 1e12
    np.testing.assert_array_equal(mean_of_others(tracks)[2], mean_of_others(changed)[2])
    np.testing.assert_allclose(mean_of_others(tracks)[0], tracks[1:].mean(axis=0))


def test_what_was_not_measured_is_not_averaged():
    nan = np.nan
    means = mean_of_others([[1.0, nan], [3.0, 5.0], [nan, 7.0]])
    np.testing.assert_array_equal(means, [[3.0, 6.0], [1.0, 7.0], [2.0, 5.0]])
    assert np.isnan(mean_of_others([[1.0, 2.0]])).all()
