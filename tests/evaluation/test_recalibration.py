"""Corrections recover known distortions, repair independent draws, and survive JSON."""

import json
import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from candi_cli.evaluation import recalibration
from candi_cli.evaluation.calibration import (
    coverage,
    critical_levels,
    curve_error,
    interval_error,
    pit_error,
)
from candi_cli.evaluation.crps import gaussian_crps, negative_binomial_crps
from candi_cli.evaluation.distributions import (
    censored_normal_cdf,
    gaussian_cdf,
    negative_binomial_cdf,
    negative_binomial_log_pmf,
)
from candi_cli.evaluation.recalibration import (
    LEVEL_GRID,
    CountFactors,
    LevelMap,
    PeakFactors,
    SignalFactors,
    fit_count_factors,
    fit_level_map,
    fit_peak_factors,
    fit_signal_factors,
)

N = 60_000
DISTORTION = np.log([[1.3], [4.0]])
ALL = (
    CountFactors(0.25, -1.5, note="by likelihood"),
    SignalFactors(-0.5, 2.0),
    PeakFactors(0.5, 3.0),
    LevelMap(tuple(np.round(LEVEL_GRID**2, 6).tolist())),
)


def counts(rng, n=N):
    """Counts, and their true parameters (2, L)."""
    true = np.stack([rng.normal(0, 1.5, n), np.full(n, np.log(2))])
    return rng.poisson(rng.gamma(2, np.exp(true[0]) / 2)), true


def signal(rng, n=N, draw=np.random.Generator.standard_normal):
    """Signal, and its true mean and sd (2, L)."""
    true = np.stack([rng.normal(1, 1, n), rng.uniform(0.3, 1, n)])
    return true[0] + true[1] * draw(rng, size=n), true


def test_a_known_distortion_of_counts_is_recovered_and_repaired(rng):
    y, true = counts(rng)
    factors = fit_count_factors(y, (true + DISTORTION).astype(np.float32))
    assert math.exp(factors.log_mean_shift) == pytest.approx(1 / 1.3, rel=0.02)
    assert math.exp(factors.log_dispersion_shift) == pytest.approx(0.25, rel=0.03)
    y, true = counts(rng)
    forecast = true + DISTORTION
    corrected = factors.apply(forecast)
    assert corrected.dtype == np.float32
    np.testing.assert_allclose(corrected, true, atol=0.03)
    assert pit_error(negative_binomial_cdf(y, *forecast)) > 0.06
    assert pit_error(negative_binomial_cdf(y, *corrected)) < 0.005
    assert negative_binomial_crps(y, *corrected).mean() < 0.95 * negative_binomial_crps(y, *forecast).mean()


def test_the_factors_of_counts_are_at_the_top_of_their_likelihood(rng):
    y, true = counts(rng, 5000)
    forecast, weights = true + DISTORTION, rng.uniform(0.5, 2, 5000)

    def loss(shifts):
        return -(weights * negative_binomial_log_pmf(y, forecast[0] + shifts[0], forecast[1] + shifts[1])).sum()

    factors = fit_count_factors(y, forecast, weights=weights)
    plain = minimize(loss, (0, 0), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-6})
    np.testing.assert_allclose([factors.log_mean_shift, factors.log_dispersion_shift], plain.x, atol=1e-3)


def test_a_right_forecast_of_counts_stays_about_as_it_is(rng):
    factors = fit_count_factors(*counts(rng))
    assert abs(factors.log_mean_shift) < 0.03
    assert abs(factors.log_dispersion_shift) < 0.05


def test_counts_are_fitted_to_a_sample_of_many_bins(rng, monkeypatch):
    y, true = counts(rng)
    forecast = true + DISTORTION
    monkeypatch.setattr(recalibration, "FIT_BINS", 20_000)
    first, again, other = (fit_count_factors(y, forecast, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert math.exp(first.log_mean_shift) == pytest.approx(1 / 1.3, rel=0.04)
    assert math.exp(first.log_dispersion_shift) == pytest.approx(0.25, rel=0.06)


@pytest.mark.parametrize(("y", "why"), [(np.ones(99), "fewer than 100 bins"), (np.zeros(500), "no reads")])
def test_counts_that_tell_nothing_change_nothing(y, why):
    factors = fit_count_factors(y, np.zeros((2, len(y))))
    assert (factors.log_mean_shift, factors.log_dispersion_shift) == (0, 0)
    assert why in factors.note


def test_weights_say_which_bins_count(rng):
    y, true = counts(rng, 20_000)
    wrong = np.arange(20_000) < 10_000
    forecast = true + np.log(1.5) * wrong * np.array([[1], [0]])
    factors = fit_count_factors(y, forecast, weights=np.where(wrong, 1e-6, 1.0))
    assert abs(factors.log_mean_shift) < 0.05
    assert fit_count_factors(y, forecast, weights=np.full(20_000, 7.0)) == fit_count_factors(y, forecast)


@pytest.mark.parametrize(("offset", "factor"), [(0.0, 3.0), (0.4, 1 / 3), (-0.3, 1.0)])
def test_a_wrong_scale_and_offset_of_signal_are_repaired(rng, offset, factor):
    values, true = signal(rng)
    factors = fit_signal_factors(values, [true[0] + offset, true[1] * factor])
    assert factors.offset == pytest.approx(-offset, abs=0.02)
    assert factors.temperature == pytest.approx(1 / factor, rel=0.02)
    values, true = signal(rng)
    corrected = factors.apply([true[0] + offset, true[1] * factor])
    assert corrected.dtype == np.float32
    assert pit_error(gaussian_cdf(values, true[0] + offset, true[1] * factor)) > 0.06
    assert pit_error(gaussian_cdf(values, *corrected)) < 0.01
    assert interval_error(gaussian_cdf(values, *corrected)) < 0.01


def test_residuals_with_heavy_tails_do_not_widen_all_intervals(rng):
    def heavy(generator, size):
        return generator.standard_t(3, size)

    values, forecast = signal(rng, draw=heavy)
    factors = fit_signal_factors(values, forecast)
    by_square = np.sqrt(np.square((values - forecast[0]) / forecast[1]).mean())
    assert factors.note in ("by median |z|", "by CRPS")
    assert 1.05 < factors.temperature < by_square - 0.2
    values, forecast = signal(rng, draw=heavy)
    errors = [interval_error(gaussian_cdf(values, forecast[0], forecast[1] * t)) for t in (by_square, 1.0)]
    assert interval_error(gaussian_cdf(values, *factors.apply(forecast))) < min(errors) - 0.01


def test_a_right_forecast_of_signal_stays_as_it_is(rng):
    factors = fit_signal_factors(*signal(rng))
    assert factors == SignalFactors(note="unchanged")


def test_what_is_best_for_signal_is_judged_on_bins_that_it_was_not_fitted_to(rng):
    # of few bins of a right forecast, the best correction of the very bins always looks like a gain
    notes = [fit_signal_factors(*signal(rng, 200)).note for _ in range(30)]
    assert notes.count("unchanged") > 8


def test_signal_with_a_point_mass_is_corrected_as_a_censored_normal(rng):
    values, true = signal(rng)
    factors = fit_signal_factors(np.maximum(0, values), [true[0] - 0.3, true[1] * 2], censored=True)
    assert factors.note == "by CRPS"
    assert factors.offset == pytest.approx(0.3, abs=0.03)
    assert factors.temperature == pytest.approx(0.5, rel=0.03)
    values, true = signal(rng)
    corrected = factors.apply([true[0] - 0.3, true[1] * 2])
    assert pit_error(censored_normal_cdf(np.maximum(0, values), *corrected)) < 0.01
    assert fit_signal_factors(np.maximum(0, values), true, censored=True).note == "unchanged"


def test_no_other_offset_and_temperature_have_a_lower_crps(rng):
    values, true = signal(rng, draw=lambda generator, size: generator.gumbel(size=size))
    factors = fit_signal_factors(values, true)
    assert factors.note == "by CRPS"

    def score(offset, temperature):
        return gaussian_crps(values, true[0] + offset, true[1] * temperature).mean()

    best = score(factors.offset, factors.temperature)
    for by_offset in (-0.02, 0, 0.02):
        for by_factor in (0.97, 1, 1.03):
            assert score(factors.offset + by_offset, factors.temperature * by_factor) >= best - 1e-7


def test_few_bins_of_signal_change_nothing(rng):
    factors = fit_signal_factors(np.zeros(50), np.ones((2, 50)))
    assert (factors.offset, factors.temperature) == (0, 1)
    assert "fewer than 100 bins" in factors.note


def test_peaks_are_corrected_by_the_line_of_highest_likelihood(rng):
    logits = rng.normal(-2, 1.5, 20_000)
    peaks = (rng.random(20_000) < expit(logits)).astype(int)
    told = (3 * logits + 1).astype(np.float32)
    factors = fit_peak_factors(peaks, told[None])

    def loss(line):
        corrected = line[0] * told.astype(float) + line[1]
        return np.logaddexp(0, np.where(peaks, -corrected, corrected)).sum()

    plain = minimize(loss, (1.0, 0.0), method="BFGS").x
    np.testing.assert_allclose([factors.slope, factors.intercept], plain, rtol=1e-3, atol=1e-4)
    assert factors.slope == pytest.approx(1 / 3, rel=0.05)
    np.testing.assert_allclose(factors.apply(told[None])[0], plain[0] * told + plain[1], atol=0.01)
    weighted = fit_peak_factors(peaks, told[None], weights=np.where(peaks, 2.0, 1.0))
    assert weighted.intercept == pytest.approx(factors.intercept + math.log(2), abs=0.05)


def test_right_peaks_stay_about_as_they_are(rng):
    logits = rng.normal(-1, 2, (1, N))
    factors = fit_peak_factors(rng.random(N) < expit(logits[0]), logits)
    assert factors.slope == pytest.approx(1, abs=0.04)
    assert factors.intercept == pytest.approx(0, abs=0.05)


def test_peaks_need_twenty_of_both_kinds():
    peaks = np.arange(1000) < 19
    for few in (peaks, ~peaks):
        factors = fit_peak_factors(few, np.linspace(-1, 1, 1000)[None])
        assert (factors.slope, factors.intercept) == (1, 0)
        assert "19" in factors.note
    assert fit_peak_factors(np.arange(1000) < 20, np.linspace(1, -1, 1000)[None]).slope == 20  # a perfect order


@pytest.mark.parametrize(
    ("draw", "told", "error"),
    [
        (np.random.Generator.standard_normal, 0.6, 0.1),
        (lambda rng, size: rng.standard_t(3, size), 1.2, 0.005),
        (lambda rng, size: rng.exponential(1, size) - 1, 1.0, 0.03),
    ],
    ids=["narrow", "heavy-tailed", "skewed"],
)
def test_mapped_levels_of_signal_cover_what_they_say(rng, draw, told, error):
    values, forecast = signal(rng, draw=draw)
    levels = fit_level_map(critical_levels(gaussian_cdf(values, forecast[0], told * forecast[1])))
    values, forecast = signal(rng, draw=draw)
    critical = critical_levels(gaussian_cdf(values, forecast[0], told * forecast[1]))
    nominal = np.array([0.5, 0.8, 0.9, 0.95, 0.99])
    band = 4 * np.sqrt(2 * nominal * (1 - nominal) / N)  # both the fit and its check are draws
    assert (np.abs(coverage(critical, levels.apply(nominal)) - nominal) < band).all()
    assert curve_error(coverage(critical, nominal), nominal) > error


def test_mapped_levels_of_counts_cover_at_least_what_they_say(rng):
    def critical():
        y, true = counts(rng)
        return critical_levels(negative_binomial_cdf(y, *(true + DISTORTION)))

    levels, again = fit_level_map(critical()), critical()
    nominal = LEVEL_GRID[[10, 50, 80, 90, 95, 99, 100]]
    band = 4 * np.sqrt(2 * nominal * (1 - nominal) / N)
    covered = coverage(again, levels.apply(nominal))
    assert (covered > nominal - band).all()
    assert (covered[2:] < nominal[2:] + band[2:] + 0.005).all()
    assert coverage(again, [0.99]) < 0.985  # unmapped, too few


def test_the_level_map_takes_order_statistics(rng):
    critical = rng.random(99)
    levels = dict(zip(np.round(LEVEL_GRID, 3), fit_level_map(critical).levels, strict=True))
    ordered = np.sort(critical)
    for percent in (1, 37, 50, 99):  # of 99 + 1: exactly the percent-th
        assert 0 <= levels[percent / 100] - ordered[percent - 1] <= 1.001e-9
    assert levels[0.995] == levels[1] == 1
    assert levels[0] == 0
    few = fit_level_map(ordered[:10])
    assert few.levels[50] == pytest.approx(ordered[5], abs=1.001e-9)  # ceil(11 * 0.5) = 6
    assert few.levels[95] == 1
    tripled = fit_level_map(ordered, weights=np.where(np.arange(99) < 33, 3.0, 1.0))
    total = 33 * 3 + 66
    assert tripled.levels[50] == pytest.approx(ordered[math.ceil(0.5 * total * 100 / 99 / 3) - 1], abs=1.001e-9)


def test_the_identity_changes_no_level_and_an_interval_always_has_ends():
    levels = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(LevelMap().apply(levels), levels, atol=1e-9)
    assert "no bins" in fit_level_map([]).note
    never = fit_level_map(np.ones(500))
    assert never.apply(0.5) < 1
    assert norm.ppf((1 + never.apply([0.0, 0.5, 0.9])) / 2).max() < 10
    with pytest.raises(ValueError, match="from 0 to 1"):
        LevelMap().apply([0.5, 1.5])


@pytest.mark.parametrize("factors", [CountFactors(), SignalFactors(), PeakFactors()])
def test_the_default_is_the_identity(rng, factors):
    parameters = rng.normal(1, 2, (1 if isinstance(factors, PeakFactors) else 2, 50)).astype(np.float32)
    parameters[0, 7] = np.nan
    before = parameters.copy()
    np.testing.assert_array_equal(factors.apply(parameters), parameters)
    np.testing.assert_array_equal(parameters, before)


def test_corrected_counts_stay_within_what_has_quantiles():
    corrected = CountFactors(3.0, 6.0).apply([[14.0, -14.0], [12.0, -7.0]])
    np.testing.assert_allclose(corrected, [[16, -11], [16, -1]])


@pytest.mark.parametrize("factors", ALL, ids=lambda factors: type(factors).__name__)
def test_json_keeps_everything(factors):
    text = json.dumps(factors.to_json(), allow_nan=False)
    assert len(text) < 2000
    assert type(factors).from_json(json.loads(text)) == factors


@pytest.mark.parametrize(
    ("kind", "change", "fact"),
    [
        (CountFactors, {"log_mean_shift": math.nan}, "log_mean_shift is nan"),
        (CountFactors, {"log_mean_shift": 4}, "from -3 to 3"),
        (CountFactors, {"log_dispersion_shift": "1"}, "log_dispersion_shift is '1'"),
        (CountFactors, {"other": 1}, "and nothing else"),
        (SignalFactors, {"temperature": 0}, "temperature is 0"),
        (SignalFactors, {"offset": True}, "offset is True"),
        (SignalFactors, {"note": 3}, "not text"),
        (PeakFactors, {"slope": math.inf}, "slope is inf"),
        (LevelMap, {"levels": [0.5]}, "102 levels"),
        (LevelMap, {"levels": [*LEVEL_GRID[:-1].tolist(), 1.5]}, "a level is 1.5"),
        (LevelMap, {"levels": LEVEL_GRID[::-1].tolist()}, "fall"),
        (LevelMap, {"levels": [None] * 102}, "a level is None"),
    ],
)
def test_numbers_that_cannot_be_are_refused(kind, change, fact):
    with pytest.raises(ValueError, match=fact):
        kind.from_json(kind().to_json() | change)


@pytest.mark.parametrize("kind", [CountFactors, SignalFactors, PeakFactors, LevelMap])
@pytest.mark.parametrize("content", [None, [], {}, 3])
def test_what_is_no_correction_is_refused(kind, content):
    with pytest.raises(ValueError, match=kind.__name__):
        kind.from_json(content)


@pytest.mark.parametrize(
    ("parameters", "weights", "fact"),
    [
        (np.zeros((1, 200)), None, r"\(2, L\)"),
        (np.full((2, 200), np.nan), None, "not finite"),
        (np.ones((2, 200)), np.zeros(200), "not above 0"),
        (np.ones((2, 200)), np.ones(100), r"weights \(100,\)"),
    ],
)
def test_bins_that_cannot_be_fitted_to_are_refused(parameters, weights, fact):
    for fit in (fit_count_factors, fit_signal_factors):
        with pytest.raises(ValueError, match=fact):
            fit(np.ones(200), parameters, weights=weights)
