"""What whole tracks are like, against numpy over all bins at once."""

import numpy as np
import pytest

from candi_cli.export import source as source_module
from candi_cli.export.overview import WINDOW_BINS, look_over, most_to_show, windows
from candi_cli.export.quantities import Quantity
from candi_cli.export.source import BLOCK_BINS, Source
from candi_cli.genome import Region
from candi_cli.store.predictions import Described, PredictionWriter, rounded

STEP = 25
N_BINS = 10_000


@pytest.fixture
def track(tmp_path, rng):
    """Write a track of log means, and return it as a source, with all of its values."""

    def write(log_mean: np.ndarray, *regions: Region) -> tuple[Source, np.ndarray]:
        sizes = {"chr1": STEP * len(log_mean), "chr2": 5_010}
        names = ["count_log_mean", "count_log_dispersion"]
        described = Described(STEP, sizes, {}, {("a", "x"): {"parameters": names, "observed": True}})
        found = regions or (Region("chr1", 0, sizes["chr1"]),)
        path, pieces = tmp_path / "p.h5", []
        with PredictionWriter(path, described) as writer:
            for region in found:
                of_chrom = log_mean if region.chrom == "chr1" else np.linspace(-3, 3, 201)
                values = of_chrom[region.start // STEP : -(-region.end // STEP)].astype(np.float32)
                writer.add("a", region, np.stack([values, values], axis=1))
                pieces.append(np.exp(rounded(values).astype(np.float64)))
        return Source(described, {"a": [(region, path) for region in found]}), np.concatenate(pieces)

    return write


def test_the_numbers_are_those_of_all_bins_however_many_blocks_they_are_in(track, rng, monkeypatch):
    monkeypatch.setattr(source_module, "BLOCK_BINS", WINDOW_BINS)
    source, values = track(rng.normal(-1, 2, N_BINS), Region("chr1", 0, 25 * N_BINS), Region("chr2", 500, 5_010))
    found = look_over(source, "a", "x", Quantity("counts"))
    assert found.n_bins == len(values)
    assert found.mean == pytest.approx(values.mean(), rel=1e-9)
    assert found.highest == values.max()
    median, percentile = np.quantile(values, [0.5, 0.99], method="inverted_cdf")
    assert (found.median, found.percentile_99) == pytest.approx((median, percentile), rel=1e-4)


def test_a_track_of_zeros_has_zeros_for_numbers(track):
    source, _ = track(np.full(100, -np.inf))
    assert look_over(source, "a", "x", Quantity("counts"))[:5] == (100, 0, 0, 0, 0)


def test_the_contrast_of_a_window_is_that_of_its_own_bins_sorted(track, rng):
    regions = (Region("chr1", 0, 25 * 5_000), Region("chr1", 25 * 6_000, 25 * N_BINS), Region("chr2", 0, 5_010))
    source, values = track(rng.normal(0, 1, N_BINS), *regions)
    found, at = look_over(source, "a", "x", Quantity("counts")).contrasts, 0
    cut = list(windows(source.regions("a"), STEP))
    assert [-(-(window.end - window.start) // STEP) for window in cut] == [2048, 2048, 904, 2048, 1952, 201]
    assert [window.start for window in cut] == [0, 51_200, 102_400, 150_000, 201_200, 0]
    for window, contrast in zip(cut, found, strict=True):
        n = -(-(window.end - window.start) // STEP)
        ordered = np.log1p(np.sort(values[at : at + n]))
        assert contrast == pytest.approx(ordered[int(0.98 * (n - 1))] - ordered[(n - 1) // 2], rel=1e-9)
        at += n


def test_blocks_hold_whole_windows():
    assert BLOCK_BINS % WINDOW_BINS == 0


def test_the_window_with_a_peak_is_chosen_wherever_it_lies(track):
    log_mean = np.full(30 * WINDOW_BINS, -2.0)
    log_mean[27 * WINDOW_BINS + 500 :][:100] = 3
    source, _ = track(log_mean)
    assert most_to_show([look_over(source, "a", "x", Quantity("counts")).contrasts]) == 27


def test_where_all_tracks_rise_outdoes_a_single_pile(rng):
    quiet = rng.uniform(0, 0.1, (3, 400))
    quiet[:, 250:260] = [[1.0], [2.0], [4.0]]
    quiet[:, 255] += 0.1  # where all rise
    quiet[1, 30] = 1_000  # where one has a pile of reads
    assert most_to_show(list(quiet)) in range(250, 260)


def test_tracks_without_any_contrast_show_their_first_window():
    assert most_to_show([np.zeros(5), np.zeros(5)]) == 0
    assert most_to_show([np.zeros(5), np.array([0, 0, 0, 1.0, 0])]) == 3
