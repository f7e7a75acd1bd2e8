"""What tracks show, against scipy's distributions and simulation."""

import numpy as np
import pytest
from scipy.stats import logistic, nbinom, norm

from candi_cli.export.quantities import Quantity, quantities
from candi_cli.store.predictions import PARAMETERS

N = 2_000
LARGEST = float(np.finfo(np.float32).max)


@pytest.fixture
def counts(rng) -> np.ndarray:
    """Log mean and log n of a negative binomial, as wide as the network gives them."""
    return np.stack([rng.uniform(-6, 6, N), rng.uniform(-2, 5, N)]).astype(np.float32)


@pytest.fixture
def signal(rng) -> np.ndarray:
    """Mean and sd of arcsinh(-log10 p)."""
    return np.stack([rng.uniform(-1, 6, N), rng.uniform(0.05, 2, N)]).astype(np.float32)


def scipy_counts(counts):
    mean, n = np.exp(counts.astype(np.float64))
    return nbinom(n, n / (n + mean))


def test_what_is_shown_of_counts_is_what_scipy_says_of_the_negative_binomial(counts):
    distribution = scipy_counts(counts)
    expected = {
        "mean": distribution.mean(),
        "sd": distribution.std(),
        "cv": distribution.std() / distribution.mean(),
        "n": distribution.args[0],
        "p": distribution.args[1],
    }
    for name, values in expected.items():
        found = Quantity("counts", name).of(counts)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, values, rtol=1e-9)


@pytest.mark.parametrize("level", [0.025, 0.5, 0.9])
def test_bounds_of_counts_are_the_quantiles_of_scipy(counts, level):
    for name in ("lower", "upper"):
        np.testing.assert_array_equal(Quantity("counts", name, level).of(counts), scipy_counts(counts).ppf(level))


@pytest.mark.parametrize("level", [0.025, 0.5, 0.9])
def test_bounds_of_signal_are_the_quantiles_of_a_normal_taken_back_from_arcsinh(signal, level):
    expected = np.maximum(np.sinh(norm.ppf(level, *signal.astype(np.float64))), 0)
    for name in ("lower", "upper"):
        np.testing.assert_allclose(Quantity("signal", name, level).of(signal), expected, rtol=1e-9)
        assert (expected == 0).any() or level == 0.9


def test_the_mean_of_signal_is_the_median_and_never_negative(signal):
    found = Quantity("signal").of(signal)
    np.testing.assert_allclose(found, Quantity("signal", "lower", 0.5).of(signal), rtol=1e-12)
    assert found.min() == 0
    assert (signal[0][found == 0] <= 0).all()


def test_a_track_is_called_what_it_is_of_its_distribution():
    assert [Quantity(kind).statistic for kind in PARAMETERS] == ["mean", "median", "probability"]
    assert [each.statistic for each in quantities(["signal"], interval=0.9, sd=True)[1:]] == ["lower", "upper", "sd"]


@pytest.mark.parametrize(("mean", "sd"), [(0.5, 0.3), (2.0, 0.4), (1.0, 0.8)])
def test_what_is_shown_of_signal_is_what_draws_of_it_have(rng, mean, sd):
    draws = np.sinh(rng.normal(mean, sd, 400_000))
    parameters = np.array([[mean], [sd]], dtype=np.float32)
    assert Quantity("signal").of(parameters)[0] == pytest.approx(np.median(draws), rel=0.02)
    assert Quantity("signal", "sd").of(parameters)[0] == pytest.approx(draws.std(), rel=0.02)
    assert Quantity("signal", "cv").of(parameters)[0] == pytest.approx(sd / mean, rel=1e-6)
    for level in (0.1, 0.9):
        expected = max(np.quantile(draws, level), 0)
        assert Quantity("signal", "upper", level).of(parameters)[0] == pytest.approx(expected, rel=0.02, abs=0.01)


def test_peaks_are_shown_as_probabilities():
    logit = np.array([[-100, -3, 0, 3, 100, np.nan]], dtype=np.float32)
    np.testing.assert_allclose(Quantity("peaks").of(logit), logistic.cdf(logit[0]), rtol=1e-6)


@pytest.mark.parametrize("interval", [0.5, 0.9, 0.99])
def test_an_interval_of_counts_holds_its_share_of_the_distribution(counts, interval):
    _, lower, upper = quantities(["counts"], interval=interval)
    distribution = scipy_counts(counts)
    held = distribution.cdf(upper.of(counts)) - distribution.cdf(lower.of(counts) - 1)
    assert (held >= interval - 1e-9).all()
    large = counts[0] > 5  # where a single count is a small share
    assert held[large].mean() == pytest.approx(interval, abs=0.03)


def test_what_is_shown_is_what_was_asked_for_and_a_kind_has():
    def names(*kinds: str, **asked: object) -> list[str]:
        found = quantities(kinds, **{"interval": None, **asked})
        assert all(each.parameters == PARAMETERS[each.kind] for each in found)
        return [f"{each.kind}.{each.name}" for each in found]

    assert names("signal", "counts", "peaks") == ["signal.mean", "counts.mean", "peaks.mean"]
    assert names("peaks", interval=0.9, sd=True, cv=True, nb=True) == ["peaks.mean"]
    assert names("signal", sd=True, nb=True) == ["signal.mean", "signal.sd"]
    assert names("counts", interval=0.9, sd=True, cv=True, nb=True) == [
        f"counts.{name}" for name in ("mean", "lower", "upper", "sd", "cv", "n", "p")
    ]
    levels = [each.level for each in quantities(["signal"], interval=0.9)]
    assert levels == [None, pytest.approx(0.05), pytest.approx(0.95)]


@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_not_predicted_is_shown_as_nan():
    for quantity in quantities(list(PARAMETERS), interval=0.9, sd=True, cv=True, nb=True):
        parameters = np.zeros((len(quantity.parameters), 3), dtype=np.float32)
        parameters[:, 1] = np.nan
        assert np.isnan(quantity.of(parameters)).tolist() == [False, True, False]


def test_all_that_the_network_can_predict_is_shown_as_a_number_that_a_track_holds():
    """The bounds of the network's log mean and log n, and a mean of signal that is 0 but for rounding."""
    corners = {
        "counts": [[-14, -14, 14, 14], [-7, 10, -7, 10]],
        "signal": [[1e-42, -1e-42, 0, 12], [5, 5, 5, 5]],
        "peaks": [[-1e30, 1e30, 0, 1]],
    }
    for quantity in quantities(list(PARAMETERS), interval=0.998, sd=True, cv=True, nb=True):
        found = quantity.of(np.array(corners[quantity.kind], dtype=np.float32))
        assert (np.abs(found) <= LARGEST).all(), quantity
