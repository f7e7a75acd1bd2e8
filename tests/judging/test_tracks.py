"""What was observed, read back from stores; predictions beside it; and the regions of both."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from candi_cli.commands._tracks import measured as measured_regions
from candi_cli.errors import StoreError
from candi_cli.evaluation.levels import Levels, fit_levels
from candi_cli.genome import Region
from candi_cli.judging.grid import Grid
from candi_cli.judging.tracks import Observed, check_grids, judged_regions, read_track
from candi_cli.store import Store
from candi_cli.store.predictions import Described, Predictions, PredictionWriter, kinds_of

KEY = ("cell", "H3K4me3")
SPANS = {"chrA": [[0, 1_010], [2_000, 100_010]], "chrB": [[55, 60_000]]}  # ends within bins
N_A, N = 4_001, 6_401


def layers(rng: np.random.Generator) -> dict[str, np.ndarray]:
    folds = rng.poisson(1.0, (N, 8)).astype(np.uint32)
    return {
        "counts": folds.sum(axis=1, dtype=np.uint32),
        "folds": folds,
        "signal": rng.exponential(2.0, N).astype(np.float32),
        "peaks": (rng.random(N) < 0.1).astype(np.uint8),
    }


def measured() -> np.ndarray:
    """Return the bins that a span touches, by a loop over base pairs."""
    inside = np.zeros(N, dtype=bool)
    for chrom, at in (("chrA", 0), ("chrB", N_A)):
        for start, end in SPANS[chrom]:
            inside[[at + position // 25 for position in range(start, end)]] = True
    return inside


@pytest.fixture
def kept(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return layers(rng)


@pytest.fixture
def store(make_store: Callable[..., Path], kept: dict[str, np.ndarray]) -> Store:
    path = make_store("truth", {KEY: kept}, spans={KEY: SPANS})
    with Store.open(path) as opened:
        yield opened


def test_what_was_observed_is_what_the_store_holds(store: Store, kept: dict[str, np.ndarray], grid: Grid):
    observed, inside = Observed(store), measured()
    assert observed.kinds(*KEY) == ["counts", "signal", "peaks"]
    np.testing.assert_array_equal(observed.read(*KEY, "counts", grid), kept["counts"])
    np.testing.assert_array_equal(observed.read(*KEY, "peaks", grid), kept["peaks"])
    signal = observed.read(*KEY, "signal", grid)
    np.testing.assert_array_equal(np.isfinite(signal), inside)
    np.testing.assert_allclose(signal[inside], np.arcsinh(kept["signal"][inside]), rtol=1e-6)
    assert not inside[[41, 79, N_A, N_A + 1]].any()
    assert inside[[40, 80, N_A + 2]].all()  # 1 bp of a bin is enough


def test_regions_are_cut_out_of_the_same_values(store: Store, grid: Grid):
    parts = Grid([Region("chrA", 500, 2_500), Region("chrA", 99_000, 100_010), Region("chrB", 0, 1_000)], 25)
    places = np.r_[20:100, 3_960:4_001, N_A : N_A + 40]
    for kind in ("counts", "signal", "peaks"):
        whole = Observed(store).read(*KEY, kind, grid)
        np.testing.assert_array_equal(Observed(store).read(*KEY, kind, parts), whole[places])


def test_folds_are_counted_alone_and_have_no_signal(store: Store, kept: dict[str, np.ndarray], grid: Grid):
    observed = Observed(store, {KEY: [1, 4, 5]})
    assert observed.kinds(*KEY) == ["counts"]
    np.testing.assert_array_equal(observed.read(*KEY, "counts", grid), kept["folds"][:, [1, 4, 5]].sum(axis=1))


def test_an_experiment_that_is_not_there_has_no_truth(store: Store):
    assert Observed(store).kinds("other", "H3K4me3") == []
    assert Observed(store).kinds("cell", "H3K9me3") == []


def test_a_chromosome_that_the_store_does_not_know_was_not_measured(make_store: Callable[..., Path], grid: Grid, kept):
    path = make_store("short", {KEY: {name: each[:N_A] for name, each in kept.items()}}, sizes={"chrA": 100_010})
    with Store.open(path) as short:
        for observed in (Observed(short), Observed(short, {KEY: [0, 1]})):
            for kind in observed.kinds(*KEY):
                values = observed.read(*KEY, kind, grid)
                assert np.isnan(values[N_A:]).all(), kind
                assert np.isfinite(values[:N_A]).all(), kind


def write(path: Path, recalibration: dict | None = None, sizes: dict[str, int] | None = None) -> np.ndarray:
    regions = [Region("chrA", 1_000, 90_000), Region("chrB", 0, 60_000)]
    track = {"observed": False, "parameters": ["signal_mean", "signal_sd"], "recalibration": recalibration}
    described = Described(25, sizes or {"chrA": 100_010, "chrB": 60_000}, {}, {KEY: track}, {"cell": regions})
    values = np.random.default_rng(1).normal(size=(5_960, 2)).astype(np.float32)
    with PredictionWriter(path, described) as writer:
        writer.add("cell", regions[0], values[:3_560])
        writer.add("cell", regions[1], values[3_560:])
    return values


def test_predictions_lie_beside_what_was_observed(store: Store, tmp_path: Path, grid: Grid, rng: np.random.Generator):
    levels = fit_levels("signal", rng.random(20_000), rng.random(20_000))
    values = write(tmp_path / "p.h5", {"parameters": {}, "levels": {"signal": levels.to_json()}})
    with Predictions(tmp_path / "p.h5") as file:
        check_grids(file, store)
        assert kinds_of(file.described.tracks[KEY]["parameters"]) == ["signal"]
        wanted = judged_regions(file, "cell", [Region("chrA", 0, 2_000), Region("chrB", 30_000, 60_000)])
        assert wanted == [Region("chrA", 1_000, 2_000), Region("chrB", 30_000, 60_000)]
        assert judged_regions(file, "cell", []) == file.regions("cell")
        track = read_track(file, Observed(store), KEY, "signal", "imputed", grid)
    inside = np.r_[40:3_600, N_A:N]
    np.testing.assert_allclose(track.parameters[:, inside], values.T, rtol=1e-5)
    predicted = np.isin(np.arange(N), inside)
    np.testing.assert_array_equal(track.known, measured() & predicted)
    assert track.levels == Levels.from_json("signal", levels.to_json())


def test_predictions_and_stores_of_unlike_bins_are_refused(store: Store, tmp_path: Path):
    write(tmp_path / "p.h5", sizes={"chrA": 100_035, "chrB": 60_000})
    with Predictions(tmp_path / "p.h5") as file, pytest.raises(StoreError, match=r"chrA is 100,035 bp, but 100,010 bp"):
        check_grids(file, store)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("counts", np.exp([-1.0, 2.0])), ("signal", [-1.0, 2.0]), ("peaks", [0.26894142, 0.88079708])],
)
def test_one_number_a_bin(kind: str, expected: list[float], make_track):
    part = Grid([Region("chrA", 0, 50)], 25)
    track = make_track(kind, np.zeros(2), np.array([-1.0, 2.0]), *([np.ones(2)] * (kind != "peaks")), on=part)
    np.testing.assert_allclose(track.expected, expected, rtol=1e-7)


def test_spans_that_share_a_bin_are_judged_as_one_region(make_store: Callable[..., Path], kept: dict[str, np.ndarray]):
    spans = {"chrA": [[0, 110], [115, 1_010], [1_025, 1_050], [5_010, 6_000]], "chrB": [[0, 60_000]]}
    with Store.open(make_store("gaps", {KEY: {"signal": kept["signal"]}}, spans={KEY: spans})) as gaps:
        found = measured_regions(gaps, "cell", "signal")
    bins = [(chrom, at // 25) for chrom, start, end in found for at in range(start, end, 25)]
    assert len(set(bins)) == len(bins) == Grid(found, 25).n_bins
    touched = {(chrom, at // 25) for chrom, each in spans.items() for start, end in each for at in range(start, end)}
    assert set(bins) == touched


def test_a_chromosome_without_reads_was_not_observed(make_store: Callable[..., Path], grid: Grid):
    counts, peaks = np.ones(N, dtype=np.uint32), np.zeros(N, dtype=np.uint8)
    path = make_store("cut", {KEY: {"counts": counts, "peaks": peaks}, ("called", "H3K4me3"): {"peaks": peaks}})
    with h5py.File(path, "r+") as file:  # reads were cut down to chrA
        del file["biosamples/cell/H3K4me3/counts/chrB"]
    with Store.open(path) as opened:
        observed = Observed(opened)
        for kind in ("counts", "peaks"):
            known = np.isfinite(observed.read(*KEY, kind, grid))
            assert known[:N_A].all()
            assert not known[N_A:].any()
        assert np.isfinite(observed.read("called", "H3K4me3", "peaks", grid)).all()  # nothing is known of its reads
