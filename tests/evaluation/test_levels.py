"""Levels of intervals by strata of what is expected: counted, conformal on other bins, and round trips."""

import json

import numpy as np
import pytest
from scipy import stats

from candi_cli.evaluation.calibration import critical_levels
from candi_cli.evaluation.distributions import gaussian_cdf, negative_binomial_cdf
from candi_cli.evaluation.levels import EDGES, LEAST_BINS, Levels, fit_levels, strata
from candi_cli.evaluation.recalibration import LEVEL_GRID, LevelMap, fit_level_map


def test_strata_of_counts_are_by_expected_reads():
    reads = np.array([0.05, 0.1001, 0.2, 0.5, 2, 5, 20, 29.9, 30.1, 1e4])
    edges = [0.1, 0.3, 1, 3, 10, 30]
    expected = [sum(each >= edge for edge in edges) for each in reads]
    assert strata("counts", np.log(reads)).tolist() == expected
    assert strata("signal", [-1, 0.1, 0.3, 5.0, np.nan]).tolist() == [0, 1, 2, 6, 6]


def test_each_stratum_covers_what_is_asked_for_where_one_map_for_all_does_not(rng: np.random.Generator):
    log_mean, log_n = rng.uniform(-3, 4, 400_000), np.zeros(400_000)
    n = 0.4  # the truth is more dispersed than is said
    y = rng.negative_binomial(n, n / (n + np.exp(log_mean)))
    critical = critical_levels(negative_binomial_cdf(y, log_mean, log_n))
    half = np.arange(400_000) % 2 == 0
    levels, single = fit_levels("counts", critical[half], log_mean[half]), fit_level_map(critical[half])
    assert all(isinstance(each, LevelMap) for each in levels.maps)
    for level in (0.5, 0.8, 0.9, 0.95):
        inside = critical[~half] <= levels.at(level, log_mean[~half])
        plain = critical[~half] <= single.apply([level])[0]
        coverage, uniform = (
            np.array([each[strata("counts", log_mean[~half]) == number].mean() for number in range(7)])
            for each in (inside, plain)
        )
        assert (coverage > level - 0.01).all()  # whole counts may have to hold more
        assert coverage[-1] == pytest.approx(level, abs=0.02)
        assert (uniform < level - 0.02).any() or (uniform > coverage + 0.02).any()


def test_a_signal_that_is_right_keeps_its_levels(rng: np.random.Generator):
    mean, sd = rng.uniform(-0.5, 4, 200_000), np.full(200_000, 0.7)
    critical = critical_levels(gaussian_cdf(rng.normal(mean, sd), mean, sd))
    levels = fit_levels("signal", critical, mean)
    asked = levels.at(0.9, [0.0, 0.2, 0.4, 0.7, 1.5, 2.5, 3.5])
    assert asked == pytest.approx([0.9] * 7, abs=0.01)


def test_a_stratum_with_few_bins_borrows_from_the_nearest_but_never_asks_for_less(rng: np.random.Generator):
    location = np.append(np.full(LEAST_BINS, 0.05), np.full(LEAST_BINS - 1, 5.0))
    critical = 0.5 * rng.random(len(location))  # intervals are too wide where there are enough bins
    levels = fit_levels("signal", critical, location)
    own = fit_level_map(critical[:LEAST_BINS])
    assert levels.maps[0] == own
    assert own.apply([0.9])[0] == pytest.approx(0.45, abs=0.02)
    for each in levels.maps[1:]:
        np.testing.assert_allclose(each.levels, np.maximum(own.levels, LEVEL_GRID))
    narrow = fit_levels("signal", np.sqrt(rng.random(LEAST_BINS)), np.full(LEAST_BINS, 5.0))
    assert len({each.levels for each in narrow.maps}) == 1
    assert narrow.maps[0].apply([0.5])[0] == pytest.approx(np.sqrt(0.5), abs=0.03)


def test_without_enough_bins_nothing_changes():
    for n in (0, LEAST_BINS - 1):
        levels = fit_levels("counts", np.full(n, 0.5), np.zeros(n))
        assert levels.maps == (LevelMap(),) * 7
        assert levels.at(0.9, [-5.0, 0.0, 5.0]).tolist() == [0.9] * 3


@pytest.mark.parametrize("kind", list(EDGES))
def test_levels_are_the_same_after_json(kind: str, rng: np.random.Generator):
    levels = fit_levels(kind, rng.beta(2, 3, 20_000), rng.uniform(-4, 5, 20_000))
    again = Levels.from_json(kind, json.loads(json.dumps(levels.to_json())))
    location = rng.uniform(-4, 5, 100)
    for level in (0.1, 0.5, 0.9, 0.95):
        np.testing.assert_array_equal(again.at(level, location), levels.at(level, location))
    assert again.to_json() == levels.to_json()


GRID = LEVEL_GRID.tolist()


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("peaks", [GRID] * 7),
        ("counts", None),
        ("counts", [GRID] * 6),
        ("counts", {"levels": [GRID] * 7}),
        ("counts", [GRID] * 6 + [GRID[:-1]]),
        ("counts", [GRID] * 6 + [GRID[::-1]]),
        ("counts", [GRID] * 6 + [["a"] * len(GRID)]),
        ("counts", [GRID] * 6 + [[True] * len(GRID)]),
        ("counts", [GRID] * 6 + [[float("nan")] * len(GRID)]),
        ("counts", [GRID] * 6 + [[2.0] * len(GRID)]),
        ("counts", [GRID] * 6 + [[10**400] * len(GRID)]),
        ("counts", [GRID] * 6 + [None]),
    ],
)
def test_what_are_no_levels_is_refused(kind: str, content: object):
    with pytest.raises(ValueError, match=r"level"):
        Levels.from_json(kind, content)


def test_written_bounds_hold_the_share_that_they_say(rng: np.random.Generator):
    mean, sd = rng.uniform(0.5, 3, 50_000), np.full(50_000, 0.5)
    y = rng.normal(mean, 2 * sd)
    levels = fit_levels("signal", critical_levels(gaussian_cdf(y, mean, sd)), mean)
    asked = levels.at(0.8, mean)
    z = stats.norm.ppf((1 + asked) / 2)
    assert (np.abs(y - mean) <= z * sd).mean() == pytest.approx(0.8, abs=0.005)
    assert z == pytest.approx(np.full(50_000, 2 * stats.norm.ppf(0.9)), rel=0.05)
