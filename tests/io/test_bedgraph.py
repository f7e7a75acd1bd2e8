"""bedGraph tracks in bins, against a loop over the bases."""

import gzip
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candi_cli.errors import TrackError
from candi_cli.genome import Region
from candi_cli.io import columns
from candi_cli.io.bedgraph import bedgraph_lines, read_bedgraph_means

SIZES = {"chr1": 310, "chr2": 103, "chr3": 20}
Interval = tuple[int, int, float]


def means(path: Path, resolution: int = 25, sizes: dict[str, int] = SIZES) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for chrom, (values, _) in read_bedgraph_means(
        path, sizes, resolution, chrom_of=lambda name: name if name in sizes else None
    ):
        assert chrom not in found
        assert values.dtype == np.float32
        found[chrom] = values
    return found


def write(path: Path, tracks: dict[str, Sequence[Interval]], end: str = "\n", *, packed: bool = False) -> Path:
    lines = [f"{chrom}\t{first}\t{last}\t{value!r}" for chrom, rows in tracks.items() for first, last, value in rows]
    text = "".join(line + end for line in lines).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    return path


def base_loop(rows: Sequence[Interval], length: int, resolution: int) -> list[float]:
    """Return the mean of the covered bases of each bin, base by base."""
    bases = [math.nan] * length
    for first, last, value in rows:
        for base in range(first, last):
            bases[base] = value
    expected = []
    for start in range(0, length, resolution):
        known = [value for value in bases[start : start + resolution] if math.isfinite(value)]
        expected.append(math.fsum(known) / len(known) if known else 0.0)
    return expected


@st.composite
def tracks_of(draw: st.DrawFn, length: int) -> list[Interval]:
    """Draw intervals that do not overlap, with gaps, touching ones and values that are not finite."""
    cuts = sorted(draw(st.sets(st.integers(0, length), max_size=24)))
    values = st.floats(-1e6, 1e6) | st.floats(0, 50, width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])
    spans = [(first, last, draw(values)) for first, last in pairwise(cuts)]
    return [span for span in spans if draw(st.integers(0, 3))]


@settings(max_examples=200)
@given(
    st.fixed_dictionaries({chrom: tracks_of(length) for chrom, length in {**SIZES, "chrUn": 900}.items()}),
    st.sampled_from([1, 7, 25, 200, 1_000]),
    st.sampled_from([1, 60, 1 << 20]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.permutations([*SIZES, "chrUn"]),
)
def test_bins_are_the_means_of_a_loop_over_the_bases(tmp_path_factory, tracks, resolution, piece, end, packed, order):
    tracks = {chrom: tracks[chrom] for chrom in order}
    path = write(tmp_path_factory.getbasetemp() / "a.bedgraph", tracks, end, packed=packed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_PIECE", piece)
        found = means(path, resolution)
    assert list(found) == [chrom for chrom in order if chrom in SIZES and tracks[chrom]]
    for chrom, values in found.items():
        expected = base_loop(tracks[chrom], SIZES[chrom], resolution)
        largest = max((abs(value) for _, _, value in tracks[chrom] if math.isfinite(value)), default=0)
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-12 * largest + 1e-37)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0, 103, 2.5)], [2.5] * 5),
        ([(0, 25, 1), (25, 50, 2), (50, 75, 3), (75, 100, 4), (100, 103, 5)], [1, 2, 3, 4, 5]),
        ([(100, 103, 7)], [0, 0, 0, 0, 7]),
        ([(102, 103, 7)], [0, 0, 0, 0, 7]),
        ([(24, 26, 6)], [6, 6, 0, 0, 0]),
        ([(0, 5, 1), (20, 25, 3)], [2, 0, 0, 0, 0]),
        ([(0, 1, 1), (1, 25, 26)], [25, 0, 0, 0, 0]),
        ([(0, 25, math.nan), (25, 30, math.inf), (30, 31, 4)], [0, 4, 0, 0, 0]),
        ([(0, 25, 123_456.75), (25, 50, -1e9)], [123_456.75, -1e9, 0, 0, 0]),
    ],
)
def test_gaps_are_not_covered_and_the_last_bin_ends_with_the_chromosome(tmp_path, rows, expected):
    assert means(write(tmp_path / "a", {"chr2": rows}))["chr2"].tolist() == expected


def test_an_interval_as_long_as_a_chromosome_is_read_in_little_time(tmp_path):
    path = write(tmp_path / "a", {"chr1": [(0, 50_000_000, 1.5), (50_000_000, 50_000_010, 3.0)]})
    found = means(path, sizes={"chr1": 50_000_010})["chr1"]
    assert len(found) == 2_000_001
    assert (found[:-1] == 1.5).all()
    assert found[-1] == 3


@pytest.mark.parametrize("piece", [1, 1 << 20])
@pytest.mark.parametrize(
    ("text", "line", "fact"),
    [
        ("chr1 0 25 1|chr1 20 30 2", 2, "20-30 starts before the last one ends; run 'sort -k1,1 -k2,2n'"),
        ("chr1 50 75 1|chr1 0 25 2", 2, "0-25 starts before the last one ends"),
        ("chr1 0 25 1|chr1 0 25 2", 2, "0-25 starts before the last one ends"),
        ("chr1 0 25 1|chr2 0 9 1|chr1 25 50 1", 3, "chr1 comes twice; run 'sort -k1,1 -k2,2n'"),
        ("chr1 300 311 1", 1, "300-311 ends past chr1 (310 bp); use the same genome build"),
        ("#c|track type=bedGraph||chr1 5 5 1", 4, "5-5 no interval"),
        ("chr1 5 4 1", 1, "5-4 no interval"),
        ("chr1 -1 4 1", 1, "-1-4 no interval"),
        ("chr1 0 5 1|chr1 5 6 x", 2, "'x' is not a number; give chrom, start, end, value"),
        ("chr1 0 5 1|chr1 5 6 NA", 2, "'NA' is not a number"),
        ("chr1 0 5 1|chr1 5 6 1,5", 2, "'1,5' is not a number"),
        ("chr1 0 5 1|chr1 5 6.0 1", 2, "'6.0' is not a whole number"),
        ("chr1 0 5 1|chr1 5 6", 2, "3 fields, at least 4 are needed"),
        ("chrUn 0 5 1|chrUn 4 6 1", 2, "4-6 starts before the last one ends"),
    ],
)
def test_bad_lines_are_refused_with_their_number(tmp_path, monkeypatch, text, line, fact, piece):
    monkeypatch.setattr(columns, "_PIECE", piece)
    path = tmp_path / "a.bedgraph"
    path.write_text(text.replace("|", "\n").replace(" ", "\t") + "\n")
    with pytest.raises(TrackError, match=rf"^{re.escape(f'{path}:{line}: {fact}')}"):
        means(path)


def test_spaces_headers_and_more_columns_do_not_matter(tmp_path):
    path = tmp_path / "a"
    for text in (
        "chr2\t0\t50\t4\n",
        "chr2 0 50 4\n",
        "browser position chr2:1-9\ntrack type=bedGraph name=x\nchr2 0 50 4",
        "#bedGraph section chr2:0-50\nchr2\t0\t50\t4.0e+00\n#end\n",
        "chr2\t0\t50\t4\tmore\n",
    ):
        path.write_text(text)
        assert means(path)["chr2"].tolist() == [4, 4, 0, 0, 0]


def test_bgzip_files_are_read_to_their_end(tmp_path):
    path = tmp_path / "a.gz"
    with pysam.BGZFile(str(path), "wb") as handle:
        for number in range(40_000):
            handle.write(f"chr1\t{number * 25}\t{number * 25 + 25}\t{number}\n".encode())
    np.testing.assert_array_equal(means(path, sizes={"chr1": 1_000_000})["chr1"], np.arange(40_000))


@pytest.mark.parametrize("part", [0.3, 0.99])
def test_a_truncated_file_is_refused_as_such(tmp_path, part):
    path = write(tmp_path / "a", {"chr1": [(start, start + 1, start / 7) for start in range(310)]}, packed=True)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(TrackError, match="damaged or truncated"):
        means(path)


@pytest.mark.filterwarnings("ignore:overflow")
def test_values_that_float32_does_not_hold_do_not_become_infinite(tmp_path):
    path = write(tmp_path / "a", {"chr2": [(0, 25, 1e300)]})
    try:
        found = means(path)["chr2"]
    except TrackError:
        return
    assert np.isfinite(found).all()


def parsed(lines: bytes) -> list[tuple[str, int, int, float]]:
    rows = [line.split("\t") for line in lines.decode().splitlines()]
    return [(chrom, int(start), int(end), float(value)) for chrom, start, end, value in rows]


@given(
    st.lists(st.tuples(st.floats(0, 1e6, width=32) | st.sampled_from([0.0, 1.0, -2.5]), st.integers(1, 5)), min_size=1),
    st.integers(0, 9),
    st.integers(1, 7),
)
def test_lines_give_every_base_the_rounded_value_of_its_bin(stretches, first, digits):
    values = [value for value, n in stretches for _ in range(n)][: 41 - first]
    region = Region("chr1", first * 25, min((first + len(values)) * 25, 1_010))
    (lines,) = bedgraph_lines([(region, np.array(values, dtype=np.float32))], resolution=25, digits=digits)
    rows = parsed(lines)
    assert [row[1] for row in rows] == [region.start, *(row[2] for row in rows[:-1])]
    assert rows[-1][2] == region.end
    assert all(one[3] != other[3] for one, other in pairwise(rows))
    bases = [value for _, start, end, value in rows for _ in range(start, end)]
    for found, value in zip(bases[::25], values, strict=True):
        step = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1) if value else 0.0
        assert abs(found - value) <= 0.5 * step * (1 + 1e-6) + 2e-7 * abs(value)
    assert bases == [value for value in bases[::25] for _ in range(25)][: len(bases)]


def test_equal_neighbours_of_a_block_are_one_line_and_the_last_bin_ends_with_its_region():
    blocks = [
        (Region("chr2", 0, 100), np.array([1.5, 1.5, 0.0, -0.0], dtype=np.float32)),
        (Region("chr2", 100, 103), np.array([0], dtype=np.float32)),
        (Region("chr1", 25, 75), np.array([1.2341, 1.2339], dtype=np.float32)),
        (Region("chr1", 75, 75), np.array([], dtype=np.float32)),
        (Region("chr1", 275, 310), np.array([1e10, 1e-10], dtype=np.float32)),
    ]
    assert b"".join(bedgraph_lines(blocks, resolution=25, digits=3)).decode().splitlines() == [
        "chr2\t0\t50\t1.5",
        "chr2\t50\t100\t0",
        "chr2\t100\t103\t0",
        "chr1\t25\t75\t1.23",
        "chr1\t275\t300\t1e+10",
        "chr1\t300\t310\t1e-10",
    ]


def test_lines_that_are_read_back_are_the_bins_they_were_made_from(tmp_path, rng):
    tracks = {"chr1": np.repeat(rng.gamma(0.5, 3, 4), [5, 1, 3, 4]), "chr2": np.zeros(5), "chr3": np.ones(1)}
    blocks = [(Region(chrom, 0, SIZES[chrom]), values.astype(np.float32)) for chrom, values in tracks.items()]
    (tmp_path / "t").write_bytes(b"".join(bedgraph_lines(blocks, resolution=25, digits=7)))
    found = means(tmp_path / "t")
    assert list(found) == list(tracks)
    for chrom, values in tracks.items():
        np.testing.assert_allclose(found[chrom], values, rtol=6e-7)
