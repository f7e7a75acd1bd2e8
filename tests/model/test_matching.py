"""Signal that is matched to what is typical of its assay before a network reads it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.model.candi import Lanes, preset
from candi_cli.model.candi.config import N_LEVELS
from candi_cli.model.candi.matching import LEVELS, Quantiles, track_quantiles, typical_quantiles
from candi_cli.store import Store

SIZES = {"chr1": 500_000, "chr2": 250_000}
STEP = 2.0**-9  # of a histogram of arcsinh(-log10 p)
MEASURED = (50_000, 450_000)  # of chr1


def gamma(seed: int, chrom: str, scale: float = 1.0) -> np.ndarray:
    values = np.random.default_rng([seed, int(chrom[3:])]).gamma(0.4, 2.0, SIZES[chrom] // 25)
    return (scale * values).astype(np.float32)


def store_of(tracks: dict[tuple[str, str], tuple[int, float]]) -> Store:
    """Return a store of tracks, each of a seed and a scale; the ends of chr1 were not measured."""
    store = Store.create(None, rule=CountingRule(), chromsizes=SIZES)
    for (biosample, assay), (seed, scale) in tracks.items():
        store.add_experiment(biosample, assay)
        for chrom in SIZES:
            values, spans = gamma(seed, chrom, scale), np.array([[0, SIZES[chrom]]])
            if chrom == "chr1":
                spans = np.array([MEASURED])
                values[: MEASURED[0] // 25] = values[MEASURED[1] // 25 :] = 0
            store.write(biosample, assay, "signal", chrom, values)
            store.write_spans(biosample, assay, chrom, spans)
        store.describe(biosample, assay, Covariates())
    return store


def measured(seed: int, scale: float = 1.0) -> np.ndarray:
    return np.concatenate(
        [gamma(seed, "chr1", scale)[MEASURED[0] // 25 : MEASURED[1] // 25], gamma(seed, "chr2", scale)]
    )


def test_quantiles_of_a_track_are_those_of_numpy_over_what_was_measured():
    with store_of({("one", "a"): (1, 1.0)}) as store:
        found = track_quantiles(store, "one", "a")
        expected = np.quantile(np.arcsinh(measured(1)), LEVELS, method="inverted_cdf")
        np.testing.assert_allclose(found, expected, atol=STEP)
        off_chr2 = np.quantile(np.arcsinh(measured(1)[:-10_000]), LEVELS, method="inverted_cdf")
        np.testing.assert_allclose(track_quantiles(store, "one", "a", without=["chr2"]), off_chr2, atol=STEP)
        assert track_quantiles(store, "one", "a", without=list(SIZES)) is None


def test_a_track_is_read_once_whoever_asks_for_its_quantiles(monkeypatch):
    with store_of({("one", "a"): (1, 1.0)}) as store:
        found = track_quantiles(store, "one", "a")
        other = track_quantiles(store, "one", "a", without=["chr1"])
        assert not np.array_equal(found, other)
        monkeypatch.setattr(store, "read", None)
        np.testing.assert_array_equal(track_quantiles(store, "one", "a"), found)
        np.testing.assert_array_equal(track_quantiles(store, "one", "a", without=("chr1",)), other)


def test_equal_values_become_the_mean_of_what_is_typical_in_their_place():
    found = Quantiles.of(np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.0, 0.3, 0.6, 2.0]))
    np.testing.assert_allclose(np.arcsinh(found.match(np.sinh([0.0, 0.5, 1.0, 9.0]))), [0.3, 1.15, 2.0, 2.0], rtol=1e-6)


@pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
def test_a_track_reads_the_same_however_strong_it_is(scale):
    tracks = {("weak", "a"): (1, 1.0), ("other", "a"): (2, 3.0), ("scaled", "a"): (1, scale)}
    with store_of(tracks) as store:
        typical = typical_quantiles([track_quantiles(store, name, "a") for name in ("weak", "other")])
        weak, scaled = (
            np.arcsinh(Lanes(store, name, ["a"]).match(typical.tolist()).read(0, "signal", "chr2", 0, 10_000))
            for name in ("weak", "scaled")
        )
    raw = gamma(1, "chr2")
    assert np.abs(weak - scaled).max() < 0.05  # as fine as histogram and levels are
    assert spearmanr(weak, raw).statistic > 0.9999
    expected = (np.quantile(np.arcsinh(measured(1)), 0.9) + np.quantile(np.arcsinh(measured(2, 3.0)), 0.9)) / 2
    assert np.quantile(weak, 0.9) == pytest.approx(expected, abs=0.05)


def test_lanes_without_a_typical_signal_are_read_as_they_are():
    with store_of({("one", "a"): (1, 1.0)}) as store:
        read = Lanes(store, "one", ["a"]).match(()).read(0, "signal", "chr2", 0, 10_000)
    np.testing.assert_array_equal(read, gamma(1, "chr2"))


WRONG = {
    "too few": ([0.0] * (N_LEVELS - 1), "not 200 of each"),
    "falls": ([1.0] + [0.5] * (N_LEVELS - 1), "falls"),
    "below 0": ([-1.0] + [0.5] * (N_LEVELS - 1), "not numbers from 0"),
    "no numbers": (["0"] * N_LEVELS, "not numbers from 0"),
    "NaN": ([float("nan")] * N_LEVELS, "not numbers from 0"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_typical_signal_that_cannot_be_is_refused(wrong):
    numbers, told = WRONG[wrong]
    config = preset("tiny", ("a",), resolution=25, reads_sequence=False, input="signal")
    with pytest.raises(ValueError, match=told):
        replace(config, typical_signal=tuple(numbers)).check()
    replace(config, typical_signal=(0.0,) * N_LEVELS).check()
    with pytest.raises(ValueError, match="not 200 of each"):
        replace(config, input="counts", typical_signal=(0.0,) * N_LEVELS).check()
