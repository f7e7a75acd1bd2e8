"""Concordance against closed forms, brute force over all pairs, scipy's sums and its own invariants."""

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import nbinom, norm, poisson

from candi_cli.evaluation.comparing_counts import log_odds_of_higher
from candi_cli.evaluation.concordance import (
    gaussian_concordance,
    harrell_exact,
    negative_binomial_concordance,
)
from candi_cli.evaluation.pair_tally import MARGIN_BINS, PairTally, signed_rank_area

SIZES = (2, 3, 50, 400)


def rank_area(margins: np.ndarray) -> float:
    """P(z + z' > 0) + P(z + z' = 0) / 2 of all margins against all, by searching in the sorted ones."""
    ordered = np.sort(margins)
    below = len(margins) - np.searchsorted(ordered, -margins, side="right")
    ties = np.searchsorted(ordered, -margins, side="right") - np.searchsorted(ordered, -margins, side="left")
    return float((below + ties / 2).sum() / len(margins) ** 2)


def brute_force(observed, mean, sd) -> tuple[float, float, float]:
    """A, M and H as the definitions say, of all ordered pairs in an L x L table."""
    difference = mean[:, None] - mean[None, :]
    z = difference / np.sqrt(sd[:, None] ** 2 + sd[None, :] ** 2)
    higher = observed[:, None] > observed[None, :]
    probability = norm.cdf(z[higher])
    harrell = (difference[higher] > 0).mean() + (difference[higher] == 0).mean() / 2
    return rank_area(np.round(z[higher], 12)), probability.mean(), harrell


def closed_form(rho: float) -> tuple[float, float]:
    """H and A of bivariate normal means and observations with one sd."""
    return 0.5 + math.asin(rho) / math.pi, 0.5 + 2 / math.pi * math.asin(rho / math.sqrt(2))


def bivariate(rng, n_bins: int, rho: float) -> tuple[np.ndarray, np.ndarray]:
    mean = rng.normal(size=n_bins)
    return rho * mean + math.sqrt(1 - rho**2) * rng.normal(size=n_bins), mean


@pytest.mark.parametrize("rho", [0.3, 0.5, 0.8])
def test_bivariate_normal_has_its_closed_forms(rng, rho):
    observed, mean = bivariate(rng, 400_000, rho)
    found = gaussian_concordance(observed, mean, np.full(len(mean), 0.7))
    harrell, auc = closed_form(rho)
    oriented = 0.5 + math.asin(rho / math.sqrt(1 + 0.7**2)) / math.pi
    assert found.harrell == pytest.approx(harrell, abs=0.003)
    assert found.harrell_exact == pytest.approx(harrell, abs=0.002)
    assert found.auc == pytest.approx(auc, abs=0.003)
    assert found.oriented == pytest.approx(oriented, abs=0.002)
    assert auc - harrell > 0.03  # the paper's number is not Harrell's


def test_two_sds_independent_of_all_else_have_their_closed_form(rng):
    observed, mean = bivariate(rng, 400_000, 0.5)
    sds = np.array([0.2, 2.0])
    total = np.sqrt(sds[:, None] ** 2 + sds[None, :] ** 2).ravel()
    angle = np.arctan2(total[:, None], total[None, :])
    auc = (0.5 + (np.arcsin(0.5 * np.cos(angle)) + np.arcsin(0.5 * np.sin(angle))) / math.pi).mean()
    assert auc == pytest.approx(0.71253, abs=1e-5)
    found = gaussian_concordance(observed, mean, rng.choice(sds, len(mean)))
    assert found.auc == pytest.approx(auc, abs=0.003)
    assert found.harrell == pytest.approx(closed_form(0.5)[0], abs=0.003)


def test_large_margins_outweigh_many_small_ones():
    tally = PairTally.empty()
    tally.add(0, np.repeat([10.0, -1.0], [6, 4]), np.full(10, 0.25), np.repeat([1.0, -1.0], [6, 4]))
    assert tally.auc()[0] == pytest.approx(0.84, abs=1e-15)
    assert tally.harrell()[0] == pytest.approx(0.6, abs=1e-15)
    assert tally.oriented()[0] == pytest.approx(0.25, abs=1e-9)


@pytest.mark.parametrize("n_bins", SIZES)
@pytest.mark.parametrize("one_sd", [True, False])
def test_tied_whole_numbers_equal_brute_force(rng, n_bins, one_sd):
    observed = rng.integers(0, 4, n_bins)
    observed[:2] = 0, 1
    mean = rng.integers(0, 4, n_bins).astype(float)
    sd = np.full(n_bins, 0.7) if one_sd else rng.choice([0.5, 2.0], n_bins)
    auc, oriented, harrell = brute_force(observed, mean, sd)
    found = gaussian_concordance(observed, mean, sd)
    assert found.auc == pytest.approx(auc, abs=1e-12)
    assert found.harrell == pytest.approx(harrell, abs=1e-12)
    assert found.harrell_exact == pytest.approx(harrell, abs=1e-12)
    assert found.oriented == pytest.approx(oriented, abs=1e-9)
    assert (found.auc_error, found.harrell_error, found.oriented_error) == (0, 0, 0)
    higher = (observed[:, None] > observed[None, :]).sum()
    assert found.n_pairs == higher
    assert found.comparable == pytest.approx(higher / math.comb(n_bins, 2), abs=1e-15)


def test_the_bins_of_the_tally_cost_no_digit_that_counts(rng):
    observed, mean = bivariate(rng, 1000, 0.5)
    for unit in (1e-2, 1, 1e2):
        sd = unit * rng.uniform(0.3, 3, len(mean))
        auc, oriented, harrell = brute_force(observed, mean, sd)
        found = gaussian_concordance(observed, mean, sd)
        assert found.auc == pytest.approx(auc, abs=1e-6)
        assert found.oriented == pytest.approx(oriented, abs=1e-9)
        assert found.harrell == pytest.approx(harrell, abs=1e-12)
        assert found.harrell_exact == pytest.approx(harrell, abs=1e-12)


@pytest.mark.parametrize("n_bins", [2, 3, 2000, 50_000])
def test_a_perfect_order_is_1_its_reverse_0_and_no_order_a_half(n_bins):
    observed, sd = np.arange(n_bins) * 0.01, np.ones(n_bins)
    for sign, expected in ((1, 1.0), (-1, 0.0), (0, 0.5)):
        found = gaussian_concordance(observed, sign * observed, sd, n_pairs=200_000)
        assert (found.auc, found.harrell, found.harrell_exact) == (expected, expected, expected)
        counted = negative_binomial_concordance(observed, sign * observed / 100, sd, n_pairs=10_000)
        assert (counted.auc, counted.harrell, counted.harrell_exact) == (expected, expected, expected)
        if not sign:
            assert found.oriented == counted.oriented == 0.5


def test_an_honest_prediction_of_a_perfect_order_has_oriented_below_1(rng):
    mean = rng.normal(size=100_000)
    found = gaussian_concordance(mean, mean, np.full(len(mean), 0.7))
    assert (found.auc, found.harrell) == (1, 1)
    assert found.oriented == pytest.approx(0.5 + math.asin(1 / math.sqrt(1.49)) / math.pi, abs=0.003)


def test_units_monotone_maps_and_the_common_size_of_sds_do_not_matter(rng):
    observed, mean = bivariate(rng, 20_000, 0.6)
    observed, sd = np.maximum(observed, 0), rng.uniform(0.3, 3, len(mean))
    plain = gaussian_concordance(observed, mean, sd, n_pairs=300_000)
    moved = gaussian_concordance(observed, 7 + 3 * mean, 3 * sd, n_pairs=300_000)
    assert moved.auc == pytest.approx(plain.auc, abs=1e-7)
    assert moved.oriented == pytest.approx(plain.oriented, abs=1e-9)
    assert moved.harrell == plain.harrell
    for factor in (1e-3, 0.37, 1e3):
        scaled = gaussian_concordance(observed, mean, factor * sd, n_pairs=300_000)
        assert scaled.auc == pytest.approx(plain.auc, abs=1e-5)
    warped = gaussian_concordance(np.exp(observed), np.exp(mean), sd, n_pairs=300_000)
    assert (warped.harrell, warped.harrell_exact) == (plain.harrell, plain.harrell_exact)
    turned = gaussian_concordance(observed, -mean, sd, n_pairs=300_000)
    assert turned.harrell + plain.harrell == pytest.approx(1, abs=1e-15)
    assert turned.auc + plain.auc == pytest.approx(1, abs=1e-15)


def test_sds_that_know_which_means_are_right_raise_auc_alone(rng):
    mean = rng.normal(size=50_000)
    noise = rng.choice([0.1, 3.0], len(mean))
    observed = mean + noise * rng.normal(size=len(mean))
    knowing = gaussian_concordance(observed, mean, noise)
    plain = gaussian_concordance(observed, mean, np.ones(len(mean)))
    assert knowing.auc > plain.auc + 20 * plain.auc_error
    assert knowing.harrell == plain.harrell


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_monte_carlo_error_covers_the_exact_value(rng, rho):
    observed, mean = bivariate(rng, 1500, rho)
    observed, sd = np.maximum(observed, -0.2), rng.uniform(0.5, 2, len(mean))
    exact = gaussian_concordance(observed, mean, sd)
    assert exact.auc_error == 0
    drawn = [gaussian_concordance(observed, mean, sd, n_pairs=48_000, seed=seed, exact=False) for seed in range(200)]
    for name in ("auc", "harrell", "oriented"):
        values = np.array([getattr(one, name) for one in drawn])
        errors = np.array([getattr(one, f"{name}_error") for one in drawn])
        covered = np.abs(values - getattr(exact, name)) < 2.13 * errors  # Student's t of 15 degrees of freedom
        assert 0.90 <= covered.mean() < 1, name
        assert values.mean() == pytest.approx(getattr(exact, name), abs=4 * values.std() / math.sqrt(200))
        assert np.sqrt(np.square(errors).mean()) == pytest.approx(values.std(), rel=0.25)


def test_the_monte_carlo_error_of_one_shift_is_near_its_theory(rng):
    observed, mean = bivariate(rng, 300_000, 0.0)
    drawn = [gaussian_concordance(observed, mean, np.ones(len(mean)), n_pairs=160_000, seed=s) for s in range(8)]
    error = math.sqrt(np.mean([one.auc_error**2 for one in drawn]))
    assert error == pytest.approx(0.577 / math.sqrt(160_000), rel=0.2)
    assert abs(drawn[0].auc - 0.5) < 0.005


def test_a_seed_gives_the_same_number_and_another_seed_another(rng):
    observed, mean = bivariate(rng, 5000, 0.5)
    sd = rng.uniform(0.5, 2, len(mean))
    first, again, other = (gaussian_concordance(observed, mean, sd, n_pairs=50_000, seed=s) for s in (3, 3, 4))
    assert first[:7] == again[:7]
    assert first.auc != other.auc
    assert first.harrell_exact == other.harrell_exact


def test_many_more_bins_than_pairs_are_sampled(rng):
    observed, mean = bivariate(rng, 300_000, 0.5)
    found = gaussian_concordance(observed, mean, np.ones(len(mean)), n_pairs=20_000)
    assert found.n_pairs == 20_000
    assert found.auc == pytest.approx(closed_form(0.5)[1], abs=4 * found.auc_error + 0.003)
    assert found.auc_error == pytest.approx(0.55 / math.sqrt(20_000), rel=0.6)


def test_tallies_of_chunks_add_up_exactly(rng):
    margin = rng.standard_cauchy(10_000)
    probability, difference = expit(margin), rng.integers(-1, 2, len(margin)).astype(float)
    whole = PairTally.empty(2)
    whole.add(1, margin, probability, difference)
    merged = PairTally.empty(2)
    for chunk in np.array_split(rng.permutation(len(margin)), 7):
        part = PairTally.empty(2)
        part.add(1, margin[chunk], probability[chunk], difference[chunk])
        merged = part.merge(merged)
    for one, other in zip(whole, merged, strict=True):
        np.testing.assert_array_equal(one, other)
    assert merged.auc()[1] == pytest.approx(rank_area(margin), abs=0.03 / len(margin))
    assert np.isnan(merged.auc()[0])
    assert np.isnan(merged.oriented()[0])
    assert merged.margins.shape == (2, MARGIN_BINS)


def test_results_do_not_depend_on_the_size_of_chunks(rng, monkeypatch):
    observed, mean = bivariate(rng, 5000, 0.5)
    sd = rng.uniform(0.5, 2, len(mean))
    blocks = np.arange(len(mean)) // 500
    whole = gaussian_concordance(observed, mean, sd, n_pairs=60_000, blocks=blocks)
    counted = negative_binomial_concordance(observed, mean, sd, n_pairs=60_000, blocks=blocks)
    monkeypatch.setattr("candi_cli.evaluation.concordance._CHUNK", 999)
    assert gaussian_concordance(observed, mean, sd, n_pairs=60_000, blocks=blocks) == whole
    again = negative_binomial_concordance(observed, mean, sd, n_pairs=60_000, blocks=blocks)
    assert again.auc == pytest.approx(counted.auc, abs=1e-6)


def test_large_tallies_do_not_overflow():
    margins = np.array([300_000_000, 100_000_000, 600_000_000])
    lost, tied, won = margins / margins.sum()
    expected = won**2 + 2 * won * tied + won * lost + tied**2 / 2
    assert signed_rank_area(margins) == pytest.approx(expected, abs=1e-12)


def test_block_error_is_the_jackknife_by_deletion(rng):
    observed, mean = bivariate(rng, 300, 0.5)
    observed, sd, blocks = np.maximum(observed, -0.5), rng.uniform(0.5, 2, len(mean)), np.arange(300) // 70 * 10 - 7
    without = np.array([brute_force(*(t[blocks != b] for t in (observed, mean, sd)))[0] for b in np.unique(blocks)])
    expected = math.sqrt((len(without) - 1) * without.var())
    found = gaussian_concordance(observed, mean, sd, blocks=blocks)
    assert found.auc_block_error == pytest.approx(expected, rel=2e-3)
    shuffled = rng.permutation(len(mean))
    again = gaussian_concordance(*(t[shuffled] for t in (observed, mean, sd)), blocks=blocks[shuffled])
    assert again.auc_block_error == pytest.approx(found.auc_block_error, rel=1e-12)


def test_block_error_shows_what_bins_have_in_common(rng):
    blocks = np.arange(40_000) // 1000
    quality = np.repeat(rng.uniform(0, 1, 40), 1000)  # of the prediction, block by block
    mean = rng.normal(size=len(blocks))
    observed = np.where(rng.random(len(mean)) < quality, mean, rng.normal(size=len(mean)))
    found = gaussian_concordance(observed, mean, np.ones(len(mean)), blocks=blocks)
    assert found.auc_block_error > 10 * found.auc_error
    scrambled = gaussian_concordance(observed, mean, np.ones(len(mean)), blocks=rng.permutation(blocks))
    assert scrambled.auc_block_error < found.auc_block_error / 3


def test_what_does_not_exist_is_nan_with_the_reason(rng):
    mean, sd = rng.normal(size=100), np.ones(100)
    for constant in (
        gaussian_concordance(np.zeros(100), mean, sd, blocks=np.arange(100)),
        negative_binomial_concordance(np.zeros(100), mean, sd, blocks=np.arange(100)),
    ):
        assert np.isnan([*constant[:7], constant.auc_block_error]).all()
        assert (constant.comparable, constant.n_pairs) == (0, 0)
        assert constant.reason == "the observed track is constant"
    for n_bins in (0, 1):
        short = gaussian_concordance(np.ones(n_bins), mean[:n_bins], sd[:n_bins], blocks=np.zeros(n_bins, int))
        assert np.isnan([*short[:8], short.auc_block_error]).all()
        assert short.reason == "fewer than two bins"
        assert math.isnan(harrell_exact(np.ones(n_bins), mean[:n_bins]))
    rare = gaussian_concordance(np.eye(1, 100_000)[0], rng.normal(size=100_000), np.ones(100_000), n_pairs=100)
    assert math.isnan(rare.auc)
    assert 0 <= rare.harrell_exact <= 1
    assert rare.reason == "no pair that was drawn has different observed values"
    one_block = gaussian_concordance(mean, mean, sd, blocks=np.zeros(100, int))
    assert (one_block.auc, one_block.reason) == (1, "fewer than two blocks with different observed values")
    assert math.isnan(one_block.auc_block_error)
    lonely = gaussian_concordance([0, 0, 1], [0, 1, 2], [1, 1, 1], blocks=[0, 0, 1])
    assert math.isnan(lonely.auc_block_error)  # without the second block no pair is left
    plain = gaussian_concordance(mean, mean, sd, exact=False)
    assert math.isnan(plain.harrell_exact)
    assert math.isnan(plain.auc_block_error)
    assert plain.reason == ""


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_was_not_measured_is_refused(bad):
    good, worse = np.arange(3.0), np.array([0, bad, 2])
    for tracks in ((worse, good, good + 1), (good, worse, good + 1), (good, good, worse)):
        with pytest.raises(ValueError, match="not finite"):
            gaussian_concordance(*tracks)
        with pytest.raises(ValueError, match="not finite"):
            negative_binomial_concordance(*tracks)
    with pytest.raises(ValueError, match="not finite"):
        harrell_exact(good, worse)


def test_tracks_that_do_not_fit_are_refused():
    good = np.ones(3)
    with pytest.raises(ValueError, match="sd of shape"):
        gaussian_concordance(good, good, good[:2])
    with pytest.raises(ValueError, match="blocks of shape"):
        gaussian_concordance(good, good, good, blocks=[1, 2])
    with pytest.raises(ValueError, match="positive"):
        gaussian_concordance(good, good, 0 * good)
    with pytest.raises(ValueError, match="n_pairs"):
        gaussian_concordance(good, good, good, n_pairs=0)


def test_harrell_of_half_zeros_equals_a_count_of_pairs(rng):
    observed, mean = bivariate(rng, 3000, 0.4)
    observed, mean = np.maximum(observed, 0), np.round(mean, 1)
    higher = observed[:, None] > observed[None, :]
    difference = np.subtract.outer(mean, mean)[higher]
    expected = (difference > 0).mean() + (difference == 0).mean() / 2
    assert harrell_exact(observed, mean) == pytest.approx(expected, abs=1e-12)
    assert harrell_exact(observed, np.full(3000, 2.0)) == 0.5
    assert harrell_exact([1, 2], [5, 7]) == 1
    assert harrell_exact([1, 2], [7, 5]) == 0
    assert harrell_exact([1, 2], [7, 7]) == 0.5


def summed_tails(log_mean, log_dispersion, most=6000) -> tuple[float, float]:
    """P(Y1 > Y2) + P(Y1 = Y2) / 2 and the same of the other, by scipy's probabilities of each count."""
    n = np.exp(log_dispersion)
    counts = np.arange(most)[:, None]
    each = nbinom.pmf(counts, n, n / (n + np.exp(log_mean)))
    below = np.cumsum(each, axis=0) - each / 2
    return float(each[:, 0] @ below[:, 1]), float(each[:, 1] @ below[:, 0])


def test_the_odds_of_two_counts_equal_sums_of_scipy(rng):
    log_mean, log_dispersion = rng.uniform(-5, 4.5, (2, 150)), rng.uniform(-1, 5, (2, 150))
    found = log_odds_of_higher(log_mean, log_dispersion)
    tails = np.array([summed_tails(log_mean[:, i], log_dispersion[:, i]) for i in range(150)])
    np.testing.assert_allclose(expit(found), tails[:, 0], atol=1e-9)
    np.testing.assert_allclose(found, np.log(tails[:, 0] / tails[:, 1]), rtol=1e-7, atol=1e-7)
    assert np.abs(found).max() > 20  # far beyond where the probability is 1 in three digits


def test_the_odds_of_geometric_counts_have_their_closed_form(rng):
    log_mean = rng.uniform(-6, 4.5, (2, 3000))
    q, p = expit(log_mean), expit(-log_mean)
    share = np.log(q[0] * p[1] + p[0] * p[1] / 2) - np.log(q[1] * p[0] + p[0] * p[1] / 2)
    np.testing.assert_allclose(log_odds_of_higher(log_mean, np.zeros_like(log_mean)), share, rtol=1e-7, atol=1e-7)


def test_the_odds_do_not_saturate_where_the_probability_is_1():
    means = np.log([1e2, 2e2, 3e2, 4e2])
    pairs = np.stack([means, np.full(4, np.log(0.01))])
    found = log_odds_of_higher(pairs, np.full((2, 4), np.log(50)))
    assert (np.diff(found) > 1).all()
    assert expit(found[-1]) == 1
    np.testing.assert_allclose(found, -log_odds_of_higher(pairs[::-1], np.full((2, 4), np.log(50))), rtol=1e-12)


def test_large_dispersion_is_poisson(rng):
    log_mean = rng.uniform(-3, 4.5, (2, 60))
    counts = np.arange(1000)[:, None, None]
    each = poisson.pmf(counts, np.exp(log_mean))
    below = np.cumsum(each, axis=0) - each / 2
    share = np.log((each[:, 0] * below[:, 1]).sum(axis=0)) - np.log((each[:, 1] * below[:, 0]).sum(axis=0))
    for log_dispersion in (22.0, 80.0):
        found = log_odds_of_higher(log_mean, np.full_like(log_mean, log_dispersion))
        np.testing.assert_allclose(found, share, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("log_dispersions", [(6.5, 9), (-1, 1), (3, 5)])
def test_counts_too_high_to_sum_are_compared_within_the_stated_error(rng, log_dispersions):
    log_mean = rng.uniform(math.log(700), math.log(2500), (2, 40))
    log_mean[1] = log_mean[0] + rng.normal(0, 0.1, 40)
    log_dispersion = rng.uniform(*log_dispersions, (2, 40))
    found = log_odds_of_higher(log_mean, log_dispersion)
    tails = np.array([summed_tails(log_mean[:, i], log_dispersion[:, i], 120_000) for i in range(40)])
    np.testing.assert_allclose(expit(found), tails[:, 0], atol=1e-3)
    seen = tails.min(axis=1) > 1e-3
    np.testing.assert_allclose(found[seen], np.log(tails[seen, 0] / tails[seen, 1]), rtol=0.05, atol=4e-3)


def test_extreme_parameters_give_finite_odds():
    extremes = np.array([-1e4, -30, 0, 30, 1e4])
    log_mean, other, log_dispersion, spread = (part.ravel() for part in np.meshgrid(*[extremes] * 4))
    found = log_odds_of_higher(np.stack([log_mean, other]), np.stack([log_dispersion, spread]))
    assert np.isfinite(found).all()
    same = (log_mean == other) & (log_dispersion == spread)
    assert (np.abs(found[same]) < 1e-6).all()


def test_negative_binomial_concordance_equals_brute_force(rng):
    log_mean, log_dispersion = rng.uniform(-1, 2.5, 40), rng.uniform(-1, 3, 40)
    observed = rng.poisson(rng.gamma(np.exp(log_dispersion), np.exp(log_mean - log_dispersion)))
    higher, lower = np.nonzero(observed[:, None] > observed[None, :])
    pairs = list(zip(higher, lower, strict=True))
    tails = np.array([summed_tails(log_mean[[i, j]], log_dispersion[[i, j]]) for i, j in pairs])
    found = negative_binomial_concordance(observed, log_mean, log_dispersion)
    assert found.n_pairs == len(pairs)
    assert found.auc == pytest.approx(rank_area(np.log(tails[:, 0] / tails[:, 1])), abs=0.03 / len(pairs))
    assert found.oriented == pytest.approx(tails[:, 0].mean(), abs=1e-8)
    assert found.harrell == pytest.approx((log_mean[higher] > log_mean[lower]).mean(), abs=1e-12)
    assert found.harrell == pytest.approx(found.harrell_exact, abs=1e-12)


def test_honest_counts_are_in_the_predicted_order_as_often_as_predicted(rng):
    log_mean, log_dispersion = rng.normal(0, 1.5, 60_000), rng.normal(0.5, 1, 60_000)
    observed = rng.poisson(rng.gamma(np.exp(log_dispersion), np.exp(log_mean - log_dispersion)))
    found = negative_binomial_concordance(observed, log_mean, log_dispersion, n_pairs=100_000)
    one, other = rng.integers(0, len(observed), (2, 100_000))
    predicted = expit(log_odds_of_higher(log_mean[[one, other]], log_dispersion[[one, other]]))
    seen = (observed[one] > observed[other]) + (observed[one] == observed[other]) / 2
    assert predicted.mean() == pytest.approx(0.5, abs=0.005)
    assert (seen * (predicted > 0.9)).sum() / (predicted > 0.9).sum() == pytest.approx(
        predicted[predicted > 0.9].mean(), abs=0.006
    )
    assert found.auc > found.harrell > found.oriented > 0.6
