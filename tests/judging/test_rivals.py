"""Baselines from other biosamples and from the input: by numpy, and without a trace of what they are to predict."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from candi_cli.evaluation.baselines import BANDWIDTHS, smoothed
from candi_cli.judging.grid import Grid
from candi_cli.judging.rivals import (
    AVERAGE,
    COPY,
    MARGINAL,
    MATCHED,
    RIVALS,
    SMOOTH_AVERAGE,
    SMOOTH_COPY,
    others_of,
    own_input,
    rivals_of,
)  # fmt: skip
from candi_cli.store import Store

MARK = "H3K4me3"
N_A, N = 4_001, 6_401
NAMES = ("one", "two", "three", "four")
DEPTHS = {("one", MARK): 1e6, ("two", MARK): 2e6, ("three", MARK): 5e5, ("four", MARK): 4e6}
UNMEASURED = {("two", MARK): {"chrA": [[50_000, 100_010]], "chrB": [[0, 60_000]]}}


def experiments(seed: int = 5) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    shared = np.convolve(rng.normal(size=N), np.ones(20) / np.sqrt(20), mode="same")
    found = {}
    for number, name in enumerate(NAMES):
        rate = np.exp(shared + 0.3 * rng.normal(size=N)) * DEPTHS[name, MARK] / 1e6
        folds = rng.poisson(rate[:, None] / 4, (N, 4)).astype(np.uint32)
        found[name, MARK] = {
            "counts": folds.sum(axis=1, dtype=np.uint32),
            "folds": folds,
            "signal": np.sinh(np.maximum(shared + 0.5 * rng.normal(size=N) + 0.3 * number, 0)).astype(np.float32),
            "peaks": (shared + rng.normal(size=N) > 2).astype(np.uint8),
        }
    return found


@pytest.fixture
def opened(make_store: Callable[..., Path]):
    with ExitStack() as stack:

        def open_(name: str, content: dict, **more: object) -> Store:
            return stack.enter_context(Store.open(make_store(name, content, depths=DEPTHS, spans=UNMEASURED, **more)))

        yield open_


def signals(content: dict, *names: str) -> np.ndarray:
    """Return arcsinh(-log10 p) of some biosamples, NaN where the second was not measured: shape (B, L)."""
    values = np.arcsinh(np.stack([content[name, MARK]["signal"] for name in names]).astype(np.float64))
    if "two" in names:
        values[names.index("two"), :2_000] = np.nan
    return values


def test_the_average_is_that_of_all_others(opened: Callable, grid: Grid):
    content = experiments()
    store = opened("all", content)
    counts = others_of([store], "one", MARK, "counts", grid)
    rates = np.stack([content[name, MARK]["counts"] / (DEPTHS[name, MARK] / 1e6) for name in NAMES[1:]])
    np.testing.assert_allclose(counts.mean, rates.mean(axis=0))
    np.testing.assert_allclose(counts.quantiles, np.sort(rates, axis=1).mean(axis=0), atol=1e-12)
    assert counts.variance is None
    assert sorted(counts.names) == sorted(NAMES[1:])
    signal = others_of([store], "one", MARK, "signal", grid)
    values = signals(content, *NAMES[1:])
    np.testing.assert_allclose(signal.mean, np.nanmean(values, axis=0), rtol=1e-6)
    np.testing.assert_array_equal(signal.active[1], np.isfinite(values).sum(axis=0))
    np.testing.assert_array_equal(signal.active[0], (np.nan_to_num(np.sinh(values)) > 2).sum(axis=0))
    np.testing.assert_allclose(signal.variance, np.nanvar(np.sinh(values), axis=0), rtol=1e-4, atol=1e-6)
    peaks = others_of([store], "one", MARK, "peaks", grid)
    np.testing.assert_allclose(peaks.mean, np.mean([content[name, MARK]["peaks"] for name in NAMES[1:]], axis=0))


def test_where_fewer_than_two_were_measured_there_is_no_variance(opened: Callable, grid: Grid):
    content = experiments()
    kept = {key: content[key] for key in content if key[0] in ("one", "two", "three")}
    signal = others_of([opened("three", kept)], "one", MARK, "signal", grid)
    assert (signal.variance[:2_000] == 0).all()
    assert (signal.variance[2_000:] > 0).mean() > 0.5
    alone = others_of([opened("pair", {key: content[key] for key in list(content)[:2]})], "one", MARK, "signal", grid)
    assert alone.variance is None
    assert np.isnan(alone.mean[:2_000]).all()


@pytest.mark.parametrize("kind", ["counts", "signal", "peaks"])
def test_others_hold_no_trace_of_excluded_bins(kind: str, opened: Callable, grid: Grid):
    content = experiments()
    excluded = np.arange(N) % 7 == 3
    loud = {
        key: {layer: np.where(excluded, each.max() + 1, each) if layer == kind else each for layer, each in own.items()}
        for key, own in content.items()
    }
    same, found, without = (
        others_of([opened(name, each)], "one", MARK, kind, grid, mask)
        for name, each, mask in (("a", content, ~excluded), ("b", loud, ~excluded), ("c", loud, None))
    )
    assert np.isnan(found.mean[excluded]).all()
    assert without.quantiles[-1] > found.quantiles[-1]
    np.testing.assert_array_equal(found.quantiles, same.quantiles)
    np.testing.assert_array_equal(found.mean, same.mean)
    np.testing.assert_array_equal(found.mean[~excluded], without.mean[~excluded])


@pytest.mark.parametrize("kind", ["counts", "signal", "peaks"])
def test_others_hold_no_trace_of_the_own_biosample(kind: str, opened: Callable, grid: Grid):
    content = experiments()
    changed = {**content, ("one", MARK): experiments(seed=99)["three", MARK]}
    assert (changed["one", MARK][kind] != content["one", MARK][kind]).any()
    before, after = (
        others_of([opened(name, each)], "one", MARK, kind, grid) for name, each in (("a", content), ("b", changed))
    )
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["counts", "signal", "peaks"])
def test_a_store_twice_counts_once_and_the_order_of_stores_is_nothing(kind: str, opened: Callable, grid: Grid):
    content = experiments()
    whole = opened("all", content)
    halves = [opened(name, {key: content[key] for key in keys}) for name, keys in
              (("left", list(content)[:2]), ("right", list(content)[2:]))]  # fmt: skip
    expected = others_of([whole], "one", MARK, kind, grid)
    for stores in ([whole, whole], halves, halves[::-1], [whole, *halves]):
        found = others_of(stores, "one", MARK, kind, grid)
        assert sorted(found.names) == sorted(expected.names)
        for name in ("mean", "quantiles", "active", "variance"):
            if getattr(expected, name) is not None:
                np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-9)


def test_a_store_without_a_chromosome_says_nothing_of_it(opened: Callable, grid: Grid):
    content = experiments()
    short = {key: {layer: values[:N_A] for layer, values in content[key].items()} for key in list(content)[2:]}
    stores = [opened("left", {key: content[key] for key in list(content)[:2]}),
              opened("short", short, sizes={"chrA": 100_010})]  # fmt: skip
    for kind in ("counts", "peaks"):
        scale = 2 if kind == "counts" else 1
        found = others_of(stores, "one", MARK, kind, grid)
        np.testing.assert_allclose(found.mean[N_A:], content["two", MARK][kind][N_A:] / scale)


def test_no_others(opened: Callable, grid: Grid):
    store = opened("one", {("one", MARK): experiments()["one", MARK]})
    assert others_of([store], "one", MARK, "signal", grid) is None
    assert others_of([store], "two", "H3K9me3", "signal", grid) is None


def test_the_input_is_the_folds_that_were_read(opened: Callable, grid: Grid):
    content = experiments()
    store = opened("all", content)
    own = content["one", MARK]
    np.testing.assert_array_equal(own_input(store, "one", MARK, [0, 3], grid), own["folds"][:, [0, 3]].sum(axis=1))
    np.testing.assert_array_equal(own_input(store, "one", MARK, None, grid), own["counts"])


def test_rivals_of_signal(opened: Callable, grid: Grid, make_track):
    content = experiments()
    store = opened("all", content)
    observed = signals(content, "one")[0]
    track = make_track("signal", observed, np.zeros(N), np.ones(N))
    others = others_of([store], "one", MARK, "signal", grid)
    rivals = rivals_of(track, others, None)
    assert list(rivals) == [AVERAGE, MATCHED, SMOOTH_AVERAGE, MARGINAL]
    assert set(rivals) <= set(RIVALS)
    np.testing.assert_allclose(rivals[AVERAGE].expected, others.mean)
    matched = rivals[MATCHED].expected
    assert stats.kstest(matched, others.quantiles).statistic < 2e-3
    assert (np.diff(matched[np.argsort(others.mean)]) >= 0).all()
    assert matched.std() > 1.03 * others.mean.std()  # an average is too smooth
    seen = track.observed.astype(np.float64)
    for name in (AVERAGE, MARGINAL):
        error = seen - rivals[name].expected
        expected = stats.norm.logpdf(error, 0, np.sqrt(np.mean(error**2)))
        np.testing.assert_allclose(rivals[name].log_likelihood, expected, rtol=1e-6, atol=1e-6)
    errors = {  # the bandwidth is the best one for this truth, and chromosomes do not mix
        sd: np.mean((seen - np.concatenate([smoothed(others.mean[:N_A], sd), smoothed(others.mean[N_A:], sd)])) ** 2)
        for sd in BANDWIDTHS
    }
    assert np.mean((seen - rivals[SMOOTH_AVERAGE].expected) ** 2) == pytest.approx(min(errors.values()), rel=1e-6)


def test_rivals_of_counts_are_scaled_to_the_depth_of_the_truth(opened: Callable, grid: Grid, make_track):
    content = experiments()
    store = opened("all", content)
    others = others_of([store], "four", MARK, "counts", grid)
    observed = content["four", MARK]["counts"].astype(float)
    copy = own_input(store, "four", MARK, [0, 1], grid)
    rivals = rivals_of(make_track("counts", observed, np.zeros(N), np.ones(N)), others, copy)
    assert tuple(rivals) == RIVALS
    for name, track in ((AVERAGE, others.mean), (COPY, copy)):  # reads per million, and half of the reads
        expected = rivals[name].expected
        assert expected.sum() == pytest.approx(observed.sum(), rel=1e-5), name
        best = np.polyval(np.polyfit(track, observed, 1), track)
        assert np.mean((observed - expected) ** 2) < 1.1 * np.mean((observed - best) ** 2), name
        assert stats.pearsonr(track, expected).statistic == pytest.approx(1), name
    assert np.ptp(rivals[MARGINAL].expected) < 1e-9
    mean = observed.mean()
    assert rivals[MARGINAL].expected[0] == pytest.approx(mean, rel=1e-3)
    grid_n = np.exp(np.linspace(-3, 4, 400))
    best = max(stats.nbinom.logpmf(observed, n, n / (n + mean)).sum() for n in grid_n)
    assert rivals[MARGINAL].log_likelihood.sum() == pytest.approx(best, abs=0.5)
    for name, rival in rivals.items():  # each likelihood is one of a distribution around what it expects
        assert (rival.log_likelihood < 0).all(), name
        assert rival.log_likelihood.sum() > rivals[MARGINAL].log_likelihood.sum() or name == MARGINAL
    assert rivals[SMOOTH_COPY].log_likelihood.sum() >= rivals[COPY].log_likelihood.sum() - 1e-6


def test_bins_without_truth_have_no_rival(opened: Callable, grid: Grid, make_track):
    content = experiments()
    store = opened("all", content)
    observed = signals(content, "two")[0]
    track = make_track("signal", observed, np.zeros(N), np.ones(N))
    for name, rival in rivals_of(track, others_of([store], "two", MARK, "signal", grid), None).items():
        assert np.isnan(rival.expected[:2_000]).all(), name
        assert np.isnan(rival.log_likelihood[:2_000]).all(), name
        assert np.isfinite(rival.expected[2_000:]).all(), name


def test_smoothing_is_chosen_on_the_bins_that_were_measured(opened: Callable, grid: Grid, make_track):
    content = experiments()
    others = others_of([opened("all", content)], "two", MARK, "signal", grid)
    loud = others._replace(mean=np.where(np.arange(N) < 1_500, 50.0 * (np.arange(N) % 2), others.mean))
    track = make_track("signal", signals(content, "two")[0], np.zeros(N), np.ones(N))
    expected, found = (rivals_of(track, each, None)[SMOOTH_AVERAGE].expected for each in (others, loud))
    np.testing.assert_allclose(found, expected)


def test_peaks_have_no_rivals_of_distributions(grid: Grid, make_track):
    assert rivals_of(make_track("peaks", np.zeros(N), np.zeros(N)), None, None) == {}
