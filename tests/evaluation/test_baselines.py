"""The baselines find what made the data, and stay defined where there are none."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import nbinom, norm, poisson

from candi_cli.evaluation.baselines import (
    LOG_DISPERSION_BOUNDS,
    Marginal,
    ScaledTrack,
    best_signal_smoothing,
    best_smoothing,
    fit_marginal,
    fit_matched_track,
    fit_scaled_track,
    mean_of_others,
    quantile_matched,
    smoothed,
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


def test_an_impulse_becomes_a_gaussian_with_the_sd_given():
    track = np.zeros(201)
    track[100] = 1
    smooth = smoothed(track, 5)
    # the kernel ends at 4 sd
    np.testing.assert_allclose(smooth, norm.pdf(np.arange(-100, 101), scale=5), atol=2e-5)


def test_smoothing_is_the_sum_over_the_mirrored_region(rng):
    track, sd = rng.exponential(size=30), 3.0
    mirrored = np.concatenate([track[::-1], track, track[::-1]])
    reach = np.arange(-12, 13)
    kernel = np.exp(-0.5 * (reach / sd) ** 2)
    by_hand = [(kernel * mirrored[30 + bin_ + reach]).sum() / kernel.sum() for bin_ in range(30)]
    np.testing.assert_allclose(smoothed(track, sd), by_hand)


def test_no_region_hears_of_another_and_each_keeps_its_sum(rng):
    track, offsets = rng.poisson(2.0, 400).astype(float), [0, 3, 3, 250, 400]
    smooth, changed = smoothed(track, 4, offsets), track.copy()
    for start, end in ((0, 3), (3, 250), (250, 400)):
        assert smooth[start:end].sum() == pytest.approx(track[start:end].sum())
    changed[250:] = 1e9
    np.testing.assert_array_equal(smoothed(changed, 4, offsets)[:250], smooth[:250])
    np.testing.assert_array_equal(smoothed(track, 0), track)
    with pytest.raises(ValueError, match="regions"):
        smoothed(track, 4, [0, 300])


def wavy_rate(rng, sd_bins, n_bins=20_000):
    wave = smoothed(rng.normal(size=n_bins), sd_bins)
    return np.exp(1.5 * wave / wave.std())


def test_the_best_bandwidth_follows_the_width_of_what_is_there(rng):
    chosen = []
    for width in (2, 30):
        rate = wavy_rate(rng, width)
        seen, rest = rng.poisson(0.3 * rate), rng.poisson(rate)
        best = best_smoothing(rest, seen, None, np.log(1 / 0.3))
        chosen.append(best.sd_bins)
        smooth = smoothed(seen, best.sd_bins)
        gained = best.scaled.log_likelihood(rest, smooth, np.log(1 / 0.3)).mean()
        plain = fit_scaled_track(rest, seen, np.log(1 / 0.3)).log_likelihood(rest, seen, np.log(1 / 0.3)).mean()
        assert gained > plain + 0.05
    assert 0 < chosen[0] < chosen[1]


def test_no_other_bandwidth_has_a_higher_likelihood(rng):
    rate = wavy_rate(rng, 5, 5000)
    seen, rest, offsets = rng.poisson(0.5 * rate), rng.poisson(rate), [0, 2000, 5000]
    best = best_smoothing(rest, seen, offsets, np.log(2), bandwidths=(0, 2, 4, 8))
    likelihoods = {}
    for sd in (0, 2, 4, 8):
        smooth = smoothed(seen, sd, offsets)
        log_mean = np.log(smooth + (fitted := fit_scaled_track(rest, smooth, np.log(2))).pseudo_count) + np.log(2)
        n = np.exp(fitted.log_dispersion)
        likelihoods[sd] = nbinom.logpmf(rest, n, n / (n + np.exp(log_mean))).sum()
    assert best.sd_bins == max(likelihoods, key=likelihoods.get)
    with pytest.raises(ValueError, match="no bandwidth"):
        best_smoothing(rest, seen, bandwidths=())


def test_bandwidths_are_compared_within_regions(rng):
    # regions of ten bins and one level: the widest kernel is the best, unless it reaches into the next region
    offsets = np.arange(0, 2010, 10)
    rate = np.repeat(np.where(np.arange(200) % 2, 0.2, 8.0), 10)
    seen, rest = rng.poisson(rate), rng.poisson(rate)
    assert best_smoothing(rest, seen, offsets, bandwidths=(0, 1, 20)).sd_bins == 20
    assert best_smoothing(rest, seen, bandwidths=(0, 1, 20)).sd_bins < 20
    assert best_signal_smoothing(rest, seen, offsets, bandwidths=(0, 1, 20)) == 20
    assert best_signal_smoothing(rest, seen, bandwidths=(0, 1, 20)) < 20


def test_of_many_bins_evenly_spread_ones_are_fitted(rng, monkeypatch):
    monkeypatch.setattr("candi_cli.evaluation.baselines._FITTED_BINS", 400)
    rate = wavy_rate(rng, 5, 1000)
    seen, rest = rng.poisson(rate), rng.poisson(rate)
    best, changed = best_smoothing(rest, seen), np.where(np.arange(1000) % 3, 1000, rest)
    assert best_smoothing(changed, seen) == best
    smooth = smoothed(seen, best.sd_bins)[::3]
    assert best.scaled == fit_scaled_track(rest[::3], smooth)


def test_a_track_that_holds_what_it_predicts_is_best_left_as_it_is(rng):
    track = rng.poisson(3.0, 5000)
    assert best_smoothing(track, track).sd_bins == 0
    assert best_signal_smoothing(track, track) == 0


def test_the_bandwidth_for_signal_has_the_least_error(rng):
    truth = smoothed(rng.normal(size=5000), 6) * 4
    observed, other = truth + rng.normal(size=(2, 5000))
    best = best_signal_smoothing(observed, other, [0, 5000])
    errors = {sd: np.mean((observed - smoothed(other, sd)) ** 2) for sd in (0, 0.5, 1, 2, 4, 8, 16, 32, 64)}
    assert best == min(errors, key=errors.get)
    assert 1 < best < 64


def test_quantile_matching_gives_the_values_of_the_reference_in_the_order_of_the_track(rng):
    track, reference = rng.normal(size=500), rng.exponential(size=500)
    matched = quantile_matched(track, reference)
    np.testing.assert_array_equal(np.sort(matched), np.sort(reference))
    np.testing.assert_array_equal(np.argsort(matched), np.argsort(track))
    np.testing.assert_allclose(quantile_matched(np.exp(track), reference), matched)


def test_a_track_matched_with_itself_is_itself_also_with_ties(rng):
    track = rng.poisson(1.0, 1001).astype(float)
    matched = quantile_matched(track, track)
    for value in np.unique(track):
        assert np.unique(matched[track == value]).size == 1
    np.testing.assert_allclose(matched, track)


def test_a_reference_of_another_length_gives_its_quantiles(rng):
    track, reference = rng.normal(size=999), rng.exponential(size=20_000)
    matched = quantile_matched(track, reference)
    levels = (np.argsort(np.argsort(track)) + 0.5) / 999
    np.testing.assert_allclose(matched, np.quantile(reference, levels, method="hazen"))
    assert quantile_matched([3.0, 1.0, 3.0, 2.0], [10.0, 20.0, 30.0, 40.0]).tolist() == [35.0, 10.0, 35.0, 20.0]
    with pytest.raises(ValueError, match="reference"):
        quantile_matched(track, [])


def test_a_matched_track_has_the_reads_that_there_are_and_the_highest_likelihood_of_those(rng):
    rate = np.exp(rng.normal(size=8000))
    seen, counts = rng.poisson(rate / 2).astype(float), draw(rng, 0.8 * rate + 0.3, 3.0)
    fitted, log_ratio = fit_matched_track(counts, seen)
    expected = np.exp(fitted.log_mean(seen, log_ratio))
    assert expected.sum() == pytest.approx(counts.sum(), rel=1e-9)

    def loss(at):  # two factors that are free, and the dispersion
        mean, n = np.exp(at[0]) * seen + np.exp(at[1]), np.exp(at[2])
        return -nbinom.logpmf(counts, n, n / (n + mean)).mean()

    free = minimize(loss, (0.0, 0.0, 0.0), method="Nelder-Mead", options={"maxiter": 2000})
    assert -fitted.log_likelihood(counts, seen, log_ratio).mean() == pytest.approx(free.fun, abs=3e-3)
    given = fit_scaled_track(counts, seen, np.log(counts.sum() / seen.sum()))
    by_depth = given.log_likelihood(counts, seen, np.log(counts.sum() / seen.sum())).mean()
    assert fitted.log_likelihood(counts, seen, log_ratio).mean() > by_depth + 0.01


def test_a_matched_track_of_no_reads_is_finite():
    fitted, log_ratio = fit_matched_track(np.zeros(1000), np.arange(1000) % 3)
    assert np.isfinite(fitted.log_mean([0, 1, 2], log_ratio)).all()


def test_bandwidths_are_chosen_on_known_bins_alone(rng):
    rate = smoothed(rng.exponential(size=4000), 20)
    seen, counts = rng.poisson(5 * rate).astype(float), rng.poisson(5 * rate).astype(float)
    known = np.arange(4000) < 3000
    changed = np.where(known, counts, 1000 * (np.arange(4000) % 2))
    for log_ratio in (0.0, None):
        found = [best_smoothing(each, seen, None, log_ratio, known=known) for each in (counts, changed)]
        assert found[0] == found[1]
        assert found[0].sd_bins >= 8
    assert best_signal_smoothing(counts, seen, known=known) == best_signal_smoothing(changed, seen, known=known) >= 8
