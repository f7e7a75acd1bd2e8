"""Reading intervals and laying them onto bins, against a loop over bases."""

import gzip
import re
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from candi_cli.errors import TrackError
from candi_cli.io.bed import covered_bins, read_intervals

ROOT = Path(__file__).parents[2]
TEST_DATA = ROOT / "test_data"
REAL_DATA = ROOT.parent / "shared" / "data"
LINES = "chr2\t5\t9\nchr1\t30\t40\tname\t7\nchr1\t0\t1\n"
INTERVALS = {"chr1": [[0, 1], [30, 40]], "chr2": [[5, 9]]}


def as_lists(path: Path) -> dict[str, list[list[int]]]:
    found = read_intervals(path)
    assert all(intervals.dtype == np.int64 for intervals in found.values())
    return {chrom: intervals.tolist() for chrom, intervals in found.items()}


@pytest.mark.parametrize(
    "content",
    [
        LINES.encode(),
        LINES.replace("\n", "\r\n").encode(),
        LINES.replace("\t", "  ").encode(),
        f"#c\ntrack name=x\nbrowser position chr1\n\n{LINES}\n".encode(),
        LINES.rstrip("\n").encode(),
        gzip.compress(LINES.encode()),
    ],
    ids=["plain", "windows", "spaces", "headers", "no last newline", "gzip"],
)
@pytest.mark.parametrize("name", ["a.bed", "a.bed.gz", "a.narrowPeak"])
def test_intervals_are_read_whatever_the_file_is_named_and_sorted_by_start(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    assert as_lists(path) == INTERVALS


def test_bgzip_files_of_several_blocks_are_read_to_their_end(tmp_path):
    path = tmp_path / "a.bed.gz"
    with pysam.BGZFile(str(path), "wb") as handle:
        for start in range(20_000):
            handle.write(f"chr1\t{start}\t{start + 7}\n".encode())
    found = read_intervals(path)["chr1"]
    np.testing.assert_array_equal(found, np.arange(20_000)[:, None] + [0, 7])


@pytest.mark.parametrize("path", sorted(TEST_DATA.glob("*.narrowPeak")), ids=lambda path: path.name)
def test_peaks_of_the_test_data_are_the_columns_of_their_file(path):
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    found = as_lists(path)
    for chrom in {row[0] for row in rows} | set(found):
        assert found[chrom] == sorted([int(row[1]), int(row[2])] for row in rows if row[0] == chrom)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["narrowPeak", "broadPeak"])
def test_real_peaks_are_the_columns_of_their_file(name):
    for path in (REAL_DATA / "K562_ChIP_hg19" / "macs3").glob(f"*.{name}"):
        columns = np.loadtxt(path, usecols=(1, 2), dtype=np.int64, ndmin=2)
        np.testing.assert_array_equal(read_intervals(path)["chr1"], columns[np.lexsort(columns.T[::-1])])


def test_an_empty_file_has_no_intervals(tmp_path):
    path = tmp_path / "a.bed"
    path.touch()
    assert read_intervals(path) == {}


BAD_LINES = (
    "chr1|chr1 5|chr1 5 x|chr1 1.5 2.5|chr1 5 5|chr1 6 5|chr1 -1 5|chr1 0 1e4|x y z|chr1,5,6|chr1 0 9" + "9" * 20
)


@pytest.mark.parametrize("line", BAD_LINES.split("|"))
@pytest.mark.parametrize("separator", ["\t", " "], ids=["tabs", "spaces"])
def test_a_line_that_is_no_interval_is_refused_by_its_number(tmp_path, line, separator):
    path = tmp_path / "a.bed"
    path.write_text(f"# header\nchr1\t0\t5\n{line.replace(' ', separator)}\n")
    with pytest.raises(TrackError, match=rf"^{re.escape(str(path))}:3: .*; give "):
        read_intervals(path)


def test_files_that_are_missing_folders_or_binary_are_refused_by_name(tmp_path):
    for path in (tmp_path / "none.bed", tmp_path, TEST_DATA / "sim1.control.bam", TEST_DATA / "sim1.H3K4me3.bw"):
        with pytest.raises(TrackError, match=rf"^{re.escape(str(path))}: .*; "):
            read_intervals(path)


SPANS = [[start, start + start % 89 + 1] for start in range(2_000)]
GZIPPED = gzip.compress("".join(f"chr1\t{start}\t{end}\n" for start, end in SPANS).encode(), mtime=0)


@settings(deadline=None)
@example(where=12, bit=0)
@given(where=st.integers(0, len(GZIPPED) - 1), bit=st.integers(0, 7))
def test_a_damaged_gzip_file_is_refused_or_reads_the_same(tmp_path_factory, where, bit):
    path = tmp_path_factory.getbasetemp() / "damaged.bed.gz"
    path.write_bytes(GZIPPED[:where] + bytes([GZIPPED[where] ^ 1 << bit]) + GZIPPED[where + 1 :])
    try:
        found = read_intervals(path)
    except TrackError:
        return
    assert found["chr1"].tolist() == SPANS


def test_a_truncated_gzip_file_is_refused_by_name(tmp_path):
    path = tmp_path / "a.bed.gz"
    path.write_bytes(gzip.compress(LINES.encode() * 500)[:-30])
    with pytest.raises(TrackError, match=rf"^{re.escape(str(path))}: "):
        read_intervals(path)


@given(
    intervals=st.lists(st.tuples(st.integers(0, 150), st.integers(1, 60)), max_size=6),
    n_bins=st.integers(1, 20),
    resolution=st.integers(1, 30),
)
def test_a_bin_is_covered_when_one_of_its_bases_is(intervals, n_bins, resolution):
    bases = {base for start, width in intervals for base in range(start, start + width)}
    expected = [
        int(any(bin_ * resolution <= base < (bin_ + 1) * resolution for base in bases)) for bin_ in range(n_bins)
    ]
    spans = np.array([[start, start + width] for start, width in intervals], dtype=np.int64).reshape(-1, 2)
    assert covered_bins(spans, n_bins, resolution).tolist() == expected


def test_an_interval_that_ends_on_a_boundary_leaves_the_next_bin_open():
    assert covered_bins(np.array([[25, 50]]), 4, 25).tolist() == [0, 1, 0, 0]
    assert covered_bins(np.array([[24, 51]]), 4, 25).tolist() == [1, 1, 1, 0]
