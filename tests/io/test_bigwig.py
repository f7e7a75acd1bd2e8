"""Reading and writing bigWig tracks, against pyBigWig alone, numpy's means and Python's own rounding."""

import itertools
import re
import struct
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pybigtools
import pyBigWig
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from candi_cli.errors import TrackError
from candi_cli.genome import Region
from candi_cli.io import bigwig
from candi_cli.io.bigwig import TrackWriter, equal_runs, read_chroms, read_means, round_significant

ROOT = Path(__file__).parents[2]
TEST_DATA = ROOT / "test_data"
REAL_DATA = ROOT.parent / "shared" / "data"
SIZES = {"chr1": 1_010, "chr2": 500, "chr3": 75}
SIGNAL = TEST_DATA / "sim1.H3K4me3.bw"


def write_track(path: Path, *pieces: tuple[str, int, int, Sequence[float]], resolution: int = 25) -> Path:
    with TrackWriter(path, SIZES, resolution=resolution) as track:
        for chrom, start, end, values in pieces:
            track.add(Region(chrom, start, end), np.array(values, dtype=np.float32))
    return path


def intervals(path: Path, chrom: str) -> list[tuple[int, int, float]]:
    with pyBigWig.open(str(path)) as track:
        return list(track.intervals(chrom) or [])


def in_three_digits(values: Sequence[float]) -> list[float]:
    """Round as Python prints, then store as a bigWig does."""
    return [float(np.float32(f"{value:.2e}")) for value in np.asarray(values, dtype=np.float32)]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(1, 6))
def test_rounding_keeps_the_digits_that_python_prints(value, digits):
    printed = f"{value:.{digits - 1}e}"
    half_a_step = Decimal(f"5e{int(printed.split('e')[1]) - digits}")
    assume(abs(Decimal(value) - Decimal(printed)) != half_a_step)  # halfway, either neighbour is right
    with np.errstate(over="ignore"):
        expected = np.float32(printed)
    assume(np.isfinite(expected))
    assert round_significant(np.array([value], dtype=np.float32), digits)[0] == expected


def test_rounding_keeps_zeros_signs_and_order(rng):
    values = np.sort(rng.normal(size=5_000) * 10.0 ** rng.uniform(-8, 8, 5_000)).astype(np.float32)
    rounded = round_significant(values, 3)
    assert (np.diff(rounded) >= 0).all()
    np.testing.assert_array_equal(np.sign(rounded), np.sign(values))
    np.testing.assert_array_equal(round_significant(-values, 3), -rounded)
    np.testing.assert_array_equal(round_significant(rounded, 3), rounded)
    assert round_significant(np.zeros(3, dtype=np.float32), 3).tolist() == [0, 0, 0]


def test_what_is_written_reads_back_to_three_digits_in_every_chromosome(tmp_path, rng):
    values = {chrom: rng.gamma(0.5, 3, -(-length // 25)).astype(np.float32) for chrom, length in SIZES.items()}
    path = write_track(tmp_path / "t.bw", *((chrom, 0, SIZES[chrom], values[chrom]) for chrom in SIZES))
    with pyBigWig.open(str(path)) as track:
        assert track.chroms() == SIZES
    for chrom, length in SIZES.items():
        starts, ends, written = zip(*intervals(path, chrom), strict=True)
        assert starts == tuple(range(0, length, 25))
        assert ends == (*starts[1:], length)
        assert list(written) == in_three_digits(values[chrom])


def test_the_last_bin_ends_with_its_chromosome_even_alone(tmp_path):
    path = write_track(tmp_path / "t.bw", ("chr1", 1_000, 1_010, [2.5]))
    assert intervals(path, "chr1") == [(1_000, 1_010, 2.5)]


def test_pieces_are_written_as_one_and_gaps_stay_open(tmp_path):
    path = write_track(
        tmp_path / "t.bw",
        ("chr1", 0, 50, [1, 2]),
        ("chr1", 50, 75, [3]),
        ("chr1", 500, 525, [4]),
        ("chr1", 1_000, 1_010, [5]),
        ("chr3", 25, 75, [6, 0]),
    )
    assert intervals(path, "chr1") == [
        (0, 25, 1),
        (25, 50, 2),
        (50, 75, 3),
        (500, 525, 4),
        (1_000, 1_010, 5),
    ]
    assert intervals(path, "chr2") == []
    assert intervals(path, "chr3") == [(25, 50, 6), (50, 75, 0)]


@pytest.mark.parametrize("bins_at_once", [1, 2, 3, 7, 41])
def test_the_track_does_not_depend_on_how_many_bins_are_held(tmp_path, rng, monkeypatch, bins_at_once):
    values = rng.gamma(0.5, 3, 41)
    pieces = [
        ("chr1", start, min(start + 75, 1_010), values[start // 25 : start // 25 + 3]) for start in range(0, 1_010, 75)
    ]
    whole = intervals(write_track(tmp_path / "whole.bw", ("chr1", 0, 1_010, values)), "chr1")
    means = read_means(tmp_path / "whole.bw", "chr1", 1_010, 40).values
    monkeypatch.setattr(bigwig, "_BINS_AT_ONCE", bins_at_once)
    assert intervals(write_track(tmp_path / "pieces.bw", *pieces), "chr1") == whole
    np.testing.assert_array_equal(read_means(tmp_path / "whole.bw", "chr1", 1_010, 40).values, means)


@pytest.mark.parametrize("value", [1e5, 123_456.0, 9.996e9, 1e30, 3.4e38, 1.234e-5, 1e-30, -7.777])
def test_values_of_any_size_are_written(tmp_path, value):
    path = write_track(tmp_path / "t.bw", ("chr2", 0, 50, [1, value]))
    assert intervals(path, "chr2") == [(0, 25, 1.0), (25, 50, *in_three_digits([value]))]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_place(tmp_path, value):
    path = tmp_path / "t.bw"
    with pytest.raises(TrackError, match=rf"^{re.escape(str(path))}: a value in chr2:26-75 is not finite"):
        write_track(path, ("chr2", 0, 25, [1]), ("chr2", 25, 75, [1, value]))


def test_a_track_that_lacks_its_end_is_not_called_finished(tmp_path):
    with pytest.raises(TrackError, match="does not read back to its end"):
        write_track(tmp_path / "t.bw", ("chr2", 0, 75, [1, 2]))


def test_a_folder_that_does_not_exist_is_an_error_and_not_the_end_of_the_process(tmp_path):
    with pytest.raises(FileNotFoundError):
        TrackWriter(tmp_path / "none" / "t.bw", SIZES, resolution=25)


def test_an_error_on_the_way_is_not_hidden_by_the_check_of_the_file(tmp_path):
    def fail() -> None:
        with TrackWriter(tmp_path / "t.bw", SIZES, resolution=25) as track:
            track.add(Region("chr1", 0, 75), np.ones(1, dtype=np.float32))
            raise KeyError

    with pytest.raises(KeyError):
        fail()


VALUES = st.sampled_from([0.0, 0.25, 1.5, 1e-5, 123456.0, -2.0])
STRETCHES = st.lists(st.tuples(VALUES, st.integers(1, 12)), min_size=1, max_size=12)


def write_naively(path: Path, *pieces: tuple[str, int, int, Sequence[float]]) -> Path:
    """Write a bigWig of one interval for each bin."""
    with pyBigWig.open(str(path), "w") as track:
        track.addHeader(list(SIZES.items()))
        for chrom, start, end, values in pieces:
            starts = list(range(start, end, 25))
            ends = [min(start + 25, end) for start in starts]
            track.addEntries([chrom] * len(starts), starts, ends=ends, values=in_three_digits(values))
    return path


def per_base(path: Path, chrom: str) -> list[np.ndarray]:
    """Return the value of each base, as two readers see it."""
    track = pybigtools.open(str(path))
    with pyBigWig.open(str(path)) as other:
        length = SIZES[chrom]
        return [track.values(chrom, 0, length, fillna=None), other.values(chrom, 0, length, numpy=True)]


@settings(deadline=None)
@given(stretches=STRETCHES, first=st.integers(0, 5), bins_at_once=st.sampled_from([5, 1 << 18]), cut=st.integers(1, 40))
def test_equal_neighbours_as_one_interval_leave_every_base_its_value(
    tmp_path_factory, stretches, first, bins_at_once, cut
):
    values = [value for value, n in stretches for _ in range(n)][: 41 - first]
    start, end = first * 25, min((first + len(values)) * 25, 1_010)
    middle = min(start + cut * 25, end)
    pieces = [("chr1", start, middle, values[: (middle - start + 24) // 25])]
    if middle < end:
        pieces.append(("chr1", middle, end, values[(middle - start) // 25 :]))
    pieces.append(("chr3", 0, 75, [1.5, 1.5, values[-1]]))
    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bigwig, "_BINS_AT_ONCE", bins_at_once)
        found = write_track(folder / "found.bw", *pieces)
    naive = write_naively(folder / "naive.bw", *pieces)
    for chrom in ("chr1", "chr3"):
        expected = np.full(SIZES[chrom], np.nan)
        for name, one, other, piece in pieces:
            if name == chrom:
                expected[one:other] = np.repeat(in_three_digits(piece), 25)[: other - one]
        for bases in (*per_base(found, chrom), *per_base(naive, chrom)):
            np.testing.assert_array_equal(bases, expected)
        covered = {(one, other) for one, other, _ in intervals(found, chrom)}
        assert sum(other - one for one, other in covered) == np.isfinite(expected).sum()


def test_the_header_sums_up_the_bases_of_long_and_short_intervals_alike(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(bigwig, "_BINS_AT_ONCE", 1_000)
    values = np.repeat(rng.gamma(0.5, 3, 400), 10).astype(np.float32)
    values[1_000:2_000] = rng.gamma(0.5, 3, 1_000)
    with TrackWriter(tmp_path / "t.bw", {"chr1": 99_990}, resolution=25) as track:
        for start in range(0, 4_000, 1_000):
            track.add(Region("chr1", start * 25, min((start + 1_000) * 25, 99_990)), values[start : start + 1_000])
    bases = np.repeat(in_three_digits(values), 25)[:99_990]
    with pyBigWig.open(str(tmp_path / "t.bw")) as track:
        header = track.header()
        assert {end - start for start, end, _ in track.intervals("chr1")} >= {25, 250, 240}
    assert header["nBasesCovered"] == len(bases)
    assert header["sumData"] == pytest.approx(bases.sum(), abs=1)  # whole numbers are kept
    assert header["maxVal"] == pytest.approx(bases.max(), abs=1)


@pytest.mark.parametrize(("n_alike", "at_most"), [(40_000, 0.05), (500, 0.1), (100, 0.2), (5, 1.0)])
def test_a_track_of_equal_neighbours_is_smaller_than_one_of_bins(tmp_path, rng, n_alike, at_most):
    sizes = {"chr1": 25 * 40_000}
    values = np.repeat(rng.permutation(40_000 // n_alike) + 1.0, n_alike).astype(np.float32)
    with TrackWriter(tmp_path / "found.bw", sizes, resolution=25, digits=7) as track:
        track.add(Region("chr1", 0, 1_000_000), values)
    with pyBigWig.open(str(tmp_path / "naive.bw"), "w") as track:
        track.addHeader(list(sizes.items()))
        track.addEntries("chr1", 0, values=values.tolist(), span=25, step=25)
    with pyBigWig.open(str(tmp_path / "found.bw")) as track:
        assert len(track.intervals("chr1")) == 40_000 // n_alike
    assert (tmp_path / "found.bw").stat().st_size <= at_most * (tmp_path / "naive.bw").stat().st_size


def test_a_constant_track_is_one_interval_that_ends_with_its_chromosome(tmp_path):
    path = write_track(tmp_path / "t.bw", ("chr1", 0, 1_010, [0.1234567] * 41), ("chr3", 0, 75, [2] * 3))
    assert intervals(path, "chr1") == [(0, 1_010, float(np.float32(0.123)))]
    assert [bases.tolist() for bases in per_base(path, "chr3")] == [[2.0] * 75] * 2


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan]), max_size=30))
def test_runs_are_the_groups_of_equal_neighbours(values):
    runs = equal_runs(np.array(values, dtype=np.float32))
    groups = [
        list(group) for _, group in itertools.groupby(values, key=lambda value: object() if value != value else value)
    ]
    assert [(end - start) for start, end in zip(runs.start, runs.end, strict=True)] == [len(group) for group in groups]
    np.testing.assert_array_equal(np.repeat(runs.values, runs.end - runs.start), values)
    assert runs.start.tolist() == [0, *runs.end.tolist()[:-1]][: len(groups)]


SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 90), st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=8
)


@settings(deadline=None)
@given(spans=SPANS, resolution=st.integers(1, 120), length=st.integers(200, 400))
def test_the_mean_of_a_bin_is_that_of_its_covered_bases(tmp_path_factory, spans, resolution, length):
    bases, start, entries = np.full(length, np.nan), 0, []
    for gap, width, value in spans:
        start, end = start + gap, min(start + gap + width, length)
        if start < end:
            bases[start:end] = value
            entries.append((start, end, value))
        start = end
    assume(entries)
    path = tmp_path_factory.getbasetemp() / "spans.bw"
    with pyBigWig.open(str(path), "w") as track:
        track.addHeader([("chr1", length)])
        starts, ends, values = zip(*entries, strict=True)
        track.addEntries(["chr1"] * len(entries), list(starts), ends=list(ends), values=list(values))
    expected = [
        np.nanmean(part) if np.isfinite(part := bases[first : first + resolution]).any() else 0
        for first in range(0, length, resolution)
    ]
    means = read_means(path, "chr1", length, resolution).values
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("resolution", [25, 200])
def test_the_means_of_the_test_data_are_what_pybigwig_says_of_each_bin(resolution):
    with pyBigWig.open(str(SIGNAL)) as track:
        expected = [
            track.stats("chr2", start, min(start + resolution, 120_000), type="mean", exact=True)[0]
            for start in range(0, 120_000, resolution)
        ]
    np.testing.assert_allclose(read_means(SIGNAL, "chr2", 120_000, resolution).values, expected, rtol=1e-5)


@pytest.mark.real_data
def test_the_means_of_a_real_track_are_those_of_its_values():
    path = REAL_DATA / "GM12878_CTCF_hg38_chr21" / "GM12878_hg38_H3K27me3.chr21.bw"
    with pyBigWig.open(str(path)) as track:
        length = track.chroms()["chr21"]
        bases = np.nan_to_num(track.values("chr21", 30_000_000, 30_100_000, numpy=True)).reshape(-1, 25)
        covered = np.isfinite(track.values("chr21", 30_000_000, 30_100_000, numpy=True)).reshape(-1, 25)
    means = read_means(path, "chr21", length, 25).values
    assert len(means) == -(-length // 25)
    expected = bases.sum(axis=1, dtype=float) / np.maximum(covered.sum(axis=1), 1)
    assert expected.any()
    np.testing.assert_allclose(means[1_200_000:1_204_000], expected, rtol=1e-5)


def test_a_chromosome_that_is_not_in_the_track_is_all_zero():
    assert read_means(SIGNAL, "chrX", 130, 25).values.tolist() == [0] * 6


def test_the_chromosomes_are_those_of_the_genome():
    assert read_chroms(SIGNAL) == {"chr1": 300_010, "chr2": 120_000}


def test_a_chromosome_of_another_length_is_refused_with_both_lengths():
    with pytest.raises(TrackError, match=r"chr1 is 300,010 bp but 300,011 bp in the reads; use the same genome build"):
        read_means(SIGNAL, "chr1", 300_011, 25)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "no such file"),
        (b"", "not a bigWig"),
        (b"chr1\t0\t25\t1.5\n", "not a bigWig"),
        (SIGNAL.read_bytes()[:4], "damaged or truncated"),
        (SIGNAL.read_bytes()[:2_000], "damaged or truncated"),
    ],
    ids=["missing", "empty", "bedGraph", "four bytes", "truncated"],
)
def test_a_file_that_is_no_whole_bigwig_is_refused_by_name(tmp_path, content, fact):
    path = tmp_path / "t.bw"
    if content is not None:
        path.write_bytes(content)
    for read in (read_chroms, lambda path: read_means(path, "chr1", 300_010, 25)):
        with pytest.raises(TrackError, match=rf"^{re.escape(str(path))}: .*{fact}"):
            read(path)


def test_a_folder_is_refused_by_name(tmp_path):
    with pytest.raises(TrackError, match=rf"^{re.escape(str(tmp_path))}: "):
        read_chroms(tmp_path)


def test_a_bigwig_whose_values_are_damaged_is_refused_by_name(tmp_path):
    content = bytearray(SIGNAL.read_bytes())
    (start_of_values,) = struct.unpack_from("<Q", content, 16)  # fullDataOffset of the header
    content[start_of_values + 8 : start_of_values + 200] = bytes(192)
    path = tmp_path / "t.bw"
    path.write_bytes(content)
    assert read_chroms(path) == read_chroms(SIGNAL)
    with pytest.raises(TrackError, match=rf"^{re.escape(str(path))}: .*damaged"):
        read_means(path, "chr1", 300_010, 25)
