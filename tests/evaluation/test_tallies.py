"""Tallies against the scores of whole arrays, plain loops over blocks, scipy, and simulations."""

import math

import numpy as np
import pytest
from scipy.stats import nbinom, norm

from candi_cli.evaluation import calibration
from candi_cli.evaluation.crps import censored_normal_crps, gaussian_crps, negative_binomial_crps
from candi_cli.evaluation.distributions import (
    censored_normal_cdf,
    censored_normal_log_likelihood,
    gaussian_cdf,
    gaussian_log_pdf,
    negative_binomial_cdf,
    negative_binomial_log_pmf,
)
from candi_cli.evaluation.tallies import (
    LEVELS,
    SAMPLE_BINS,
    censored_normal_moments,
    central_intervals,
    curves,
    scores,
    tally,
)

N, B = 30_000, 12
JUDGES = {
    ("counts", False): (negative_binomial_cdf, negative_binomial_log_pmf, negative_binomial_crps),
    ("signal", False): (gaussian_cdf, gaussian_log_pdf, gaussian_crps),
    ("signal", True): (censored_normal_cdf, censored_normal_log_likelihood, censored_normal_crps),
}
SUMS = ("log_likelihood", "crps", "pit", "observed", "mean", "sd")


def drawn(rng, kind, censored, n=N):
    """Bins of a perfect forecast: observed, parameters, blocks in order."""
    location, blocks = rng.normal(0.8, 1, n), np.sort(rng.integers(0, B, n))
    if kind == "counts":
        log_n = rng.normal(0.7, 0.3, n)
        return rng.poisson(rng.gamma(np.exp(log_n), np.exp(location - log_n))), np.stack([location, log_n]), blocks
    sd = rng.uniform(0.2, 1.5, n)
    values = rng.normal(location, sd)
    return np.maximum(0, values) if censored else values, np.stack([location, sd]), blocks


@pytest.fixture(params=list(JUDGES), ids=["counts", "signal", "censored"])
def judged(rng, request):
    kind, censored = request.param
    return kind, censored, *drawn(rng, kind, censored)


def assert_equal(one, other):
    for name in ("n", "inside"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in SUMS:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-12)
    for mine, others in zip(one.sample, other.sample, strict=True):
        np.testing.assert_array_equal(mine, others)
    np.testing.assert_allclose(list(scores(one).values()), list(scores(other).values()), rtol=1e-9, atol=1e-12)


def test_scores_are_those_of_the_whole_arrays(judged):
    kind, censored, observed, parameters, blocks = judged
    cdf, log_likelihood, crps = JUDGES[kind, censored]
    found = scores(tally(kind, observed, parameters, blocks, B, censored=censored))
    cumulative = cdf(observed, *parameters)
    critical = calibration.critical_levels(cumulative)
    assert found["nll"].value == pytest.approx(-log_likelihood(observed, *parameters).mean(), rel=1e-12)
    assert found["crps"].value == pytest.approx(crps(observed, *parameters).mean(), rel=1e-9)
    assert found["pit_error"].value == pytest.approx(calibration.pit_error(cumulative), rel=1e-9)
    distance = np.abs(calibration.pit_curve(cumulative) - calibration.PIT_LEVELS)
    assert found["pit_ks"].value == pytest.approx(distance.max(), rel=1e-9)
    assert found["interval_error"].value == pytest.approx(calibration.interval_error(cumulative), rel=1e-12)
    assert found["coverage_90"].value == (critical <= 0.9).mean()
    assert found["coverage_50"].value == (critical <= LEVELS[9]).mean()
    assert found["mean_observed"].value == pytest.approx(observed.mean(), rel=1e-12)
    assert found["bias"].value == pytest.approx(found["mean_predicted"].value - observed.mean(), abs=1e-12)


def test_standard_errors_are_those_of_leaving_out_one_block_after_the_other(judged):
    kind, censored, observed, parameters, blocks = judged
    found = scores(tally(kind, observed, parameters, blocks, B + 3, censored=censored))  # three blocks are empty
    without = []
    for block in range(B):
        kept = blocks != block
        cumulative = JUDGES[kind, censored][0](observed[kept], *parameters[:, kept])
        without.append([calibration.pit_error(cumulative), observed[kept].mean()])
    se = np.sqrt((B - 1) / B * np.square(without - np.mean(without, axis=0)).sum(axis=0))
    np.testing.assert_allclose([found["pit_error"].se, found["mean_observed"].se], se, rtol=1e-6)


def test_the_standard_error_is_how_much_a_mean_varies(rng):
    values = []
    for _ in range(60):
        level = np.repeat(rng.normal(0, 0.3, 40), 50)  # bins of one block resemble each other
        observed = rng.normal(level, 1)
        blocks = np.repeat(np.arange(40), 50)
        values.append(scores(tally("signal", observed, (np.zeros(2000), np.ones(2000)), blocks, 40))["bias"])
    value, se = np.transpose(values)
    assert se.mean() == pytest.approx(value.std(), rel=0.25)
    assert se.mean() > 2 / math.sqrt(2000)  # twice what independent bins would have


def test_tallies_do_not_depend_on_order_or_on_how_bins_are_divided(rng, judged):
    kind, censored, observed, parameters, blocks = judged
    positions = rng.permutation(10 * N)[:N]

    def part(bins):
        return tally(
            kind, observed[bins], parameters[:, bins], blocks[bins], B, censored=censored, positions=positions[bins]
        )

    whole = part(slice(None))
    assert len(whole.sample.key) == SAMPLE_BINS
    assert_equal(part(rng.permutation(N)), whole)
    pieces = [part(bins) for bins in np.split(rng.permutation(N), [10, 4000, 4001, 25_000])]
    assert_equal(pieces[0] + pieces[1] + pieces[2] + pieces[3] + pieces[4], whole)
    assert_equal(pieces[4] + (pieces[2] + (pieces[0] + pieces[3])) + pieces[1], whole)
    assert_equal(whole + part(slice(0, 0)), whole)


def test_the_sample_is_a_fair_one(rng):
    blocks = np.repeat(np.arange(10), 10_000)
    constant = np.stack([np.full(100_000, 0.5), np.full(100_000, 1.0)])
    sample = tally("counts", np.zeros(100_000), constant, blocks, 10).sample  # all bins are alike
    share = np.bincount(sample.block, minlength=10) / SAMPLE_BINS
    np.testing.assert_allclose(share, 0.1, atol=4 * math.sqrt(0.09 / SAMPLE_BINS))
    mixed = np.stack([rng.normal(0, 1, 100_000), np.full(100_000, 1.0)])
    sample = tally("counts", np.zeros(100_000), mixed, blocks, 10).sample
    assert sample.parameters[0].mean() == pytest.approx(0, abs=4 / math.sqrt(SAMPLE_BINS))


def test_a_perfect_forecast_covers_what_is_expected_of_it(judged):
    kind, censored, observed, parameters, blocks = judged
    total = tally(kind, observed, parameters, blocks, B, censored=censored)
    found = scores(total)
    assert found["coverage_gap"].value < 0.01
    assert found["pit_error"].value < 0.005
    for level in (50, 80, 90, 95):
        assert found[f"coverage_{level}"].value == pytest.approx(found[f"expected_coverage_{level}"].value, abs=0.015)
    if kind == "counts":
        assert found["interval_error"].value > 0.1
    curve = curves(total)
    np.testing.assert_allclose(curve.pit, calibration.PIT_LEVELS, atol=0.01)
    np.testing.assert_allclose(curve.coverage, curve.expected, atol=0.02)


def test_an_overconfident_forecast_does_not(rng):
    observed, parameters, blocks = drawn(rng, "counts", False)
    total = tally("counts", observed, parameters + np.array([[0], [np.log(4)]]), blocks, B)
    assert scores(total)["coverage_gap"].value > 0.02
    assert scores(total)["pit_error"].value > 0.01


def test_intervals_of_counts_equal_scipy(rng):
    log_mean, log_n = rng.normal(1, 2, 300), rng.normal(0.5, 1, 300)
    n, p = np.exp(log_n), 1 / (1 + np.exp(log_mean - log_n))
    found = central_intervals("counts", (log_mean, log_n), [0.137, 0.5, 0.9])
    for row, level in enumerate([0.137, 0.5, 0.9]):
        lower, upper = nbinom.ppf((1 - level) / 2, n, p), nbinom.ppf((1 + level) / 2, n, p)
        np.testing.assert_array_equal(found.width[row], upper - lower)
        expected = nbinom.cdf(upper, n, p) - nbinom.cdf(lower - 1, n, p)
        np.testing.assert_allclose(found.probability[row], expected, atol=1e-11)


@pytest.mark.parametrize(("mean", "at_half"), [(0.05, 0.952), (1, 0.889), (20, 0.525)])
def test_the_expected_coverage_of_counts_is_known(mean, at_half):
    assert central_intervals("counts", ([np.log(mean)], [np.log(2)]), [0.5]).probability == pytest.approx(
        at_half, abs=5e-4
    )
    total = tally("counts", np.zeros(100), np.log([[mean] * 100, [2] * 100]), np.zeros(100), 1)
    assert scores(total)["expected_coverage_50"].value == pytest.approx(at_half, abs=5e-4)


def test_intervals_of_signal_are_those_of_the_normal_and_end_at_0_where_censored():
    found = central_intervals("signal", ([1.0, -9.0], [2.0, 1.0]), [0.5, 0.95])
    np.testing.assert_allclose(found.probability, [[0.5, 0.5], [0.95, 0.95]], rtol=1e-12)
    np.testing.assert_allclose(found.width[:, 0], 4 * norm.ppf([0.75, 0.975]), rtol=1e-12)
    censored = central_intervals("signal", ([1.0, -9.0], [2.0, 1.0]), [0.5, 0.95], censored=True)
    upper = 1 + 2 * norm.ppf([0.75, 0.975])
    np.testing.assert_allclose(censored.width, np.stack([upper, [0, 0]], axis=1), rtol=1e-12)
    np.testing.assert_allclose(censored.probability, [[0.75, 1], [0.975, 1]], rtol=1e-12)


def test_widths_are_those_of_all_bins_though_quantiles_are_of_a_sample(rng):
    observed, parameters, blocks = drawn(rng, "counts", False)
    found = scores(tally("counts", observed, parameters, blocks, B))
    every = central_intervals("counts", parameters, [0.5, 0.9, 0.95]).width.mean(axis=1)
    np.testing.assert_allclose([found[f"width_{level}"].value for level in (50, 90, 95)], every, rtol=0.02)
    sd = np.sqrt(np.exp(parameters[0]) + np.exp(2 * parameters[0] - parameters[1]))
    assert found["sharpness"].value == pytest.approx(sd.mean(), rel=1e-12)


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (2.0, 0.5), (-1.0, 0.7), (-30.0, 1.0)])
def test_moments_of_a_censored_normal(rng, mean, sd):
    values = np.maximum(0, rng.normal(mean, sd, 400_000))
    np.testing.assert_allclose(censored_normal_moments(mean, sd), [values.mean(), values.std()], atol=0.005)


def test_without_bins_or_blocks_there_is_no_score_or_error():
    nothing = tally("counts", [], np.zeros((2, 0)), [], 4)
    assert all(math.isnan(part) for score in scores(nothing).values() for part in score)
    assert all(np.isnan(curve).all() for curve in curves(nothing))
    one = scores(tally("signal", [1.0, 2.0], ([1, 1], [1, 1]), [2, 2], 4))
    assert all(math.isfinite(score.value) and math.isnan(score.se) for score in one.values())


@pytest.mark.parametrize(
    ("arguments", "options", "fact"),
    [
        (("peaks", [1], ([0], [0]), [0], 1), {}, "'peaks'"),
        (("counts", [1], ([0], [0]), [0], 1), {"censored": True}, "only signal"),
        (("counts", [1], ([0], [0]), [1], 1), {}, r"not in 0 \.\. 0"),
        (("counts", [1, 2], ([0, 0], [0, 0]), [0], 1), {}, "blocks"),
        (("counts", [1], ([0],), [0], 1), {}, r"\(2, L\)"),
        (("signal", [np.nan], ([0], [1]), [0], 1), {}, "not finite"),
        (("signal", [0], ([0], [np.inf]), [0], 1), {}, "not finite"),
    ],
)
def test_what_cannot_be_tallied_is_refused(arguments, options, fact):
    with pytest.raises(ValueError, match=fact):
        tally(*arguments, **options)


def test_tallies_of_different_things_do_not_add_up():
    counts, signal = (tally(kind, [1.0], ([0], [1]), [0], 1) for kind in ("counts", "signal"))
    with pytest.raises(ValueError, match="do not add up"):
        counts + signal
