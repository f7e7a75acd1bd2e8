"""Signal of a bigWig and of the bedGraph of its intervals: the same numbers."""

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyBigWig
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candi_cli.errors import GenomeError, TrackError
from candi_cli.io.signal import read_signal

ROOT = Path(__file__).parents[2]
TEST_DATA = ROOT / "test_data"
REAL_DATA = ROOT.parent / "shared" / "data"
SIZES = {"chr1": 300_010, "chr2": 120_000}
HG38 = {"chr21": 46_709_983, "chr22": 50_818_468}


def read(path: Path, sizes: dict[str, int] = SIZES, resolution: int = 25, **options: Any) -> dict[str, np.ndarray]:
    pairs = list(read_signal(path, sizes, resolution, **options))
    found = {chrom: values for chrom, values, _ in pairs}
    assert len(found) == len(pairs), "a chromosome comes twice"
    return found


def as_bedgraph(bigwig: Path, path: Path, chroms: list[str] | None = None) -> Path:
    """Write the intervals of a bigWig as text, each value to its last digit."""
    with pyBigWig.open(str(bigwig)) as track, path.open("w") as out:
        for chrom in chroms or track.chroms():
            for start, end, value in track.intervals(chrom) or ():
                out.write(f"{chrom}\t{start}\t{end}\t{value!r}\n")
    return path


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for chrom, values in expected.items():
        same = found[chrom] if chrom in found else np.zeros_like(values)
        np.testing.assert_allclose(same, values, rtol=1e-6, atol=1e-9, err_msg=chrom)


@pytest.mark.parametrize("resolution", [10, 25, 130, 1_000])
@pytest.mark.parametrize("bigwig", sorted(TEST_DATA.glob("*.bw")), ids=lambda path: path.name)
def test_the_bedgraph_of_a_bigwig_has_its_values(tmp_path, bigwig, resolution):
    bedgraph = as_bedgraph(bigwig, tmp_path / "a")
    expected = read(bigwig, resolution=resolution)
    assert_same(read(bedgraph, resolution=resolution), expected)
    bedgraph.write_bytes(gzip.compress(bedgraph.read_bytes()))
    assert_same(read(bedgraph, resolution=resolution), expected)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 300), st.floats(-1e9, 1e9, width=32)), max_size=20),
    st.sampled_from([1, 25, 200]),
)
def test_any_intervals_have_one_mean_in_both_formats(tmp_path_factory, steps, resolution):
    folder = tmp_path_factory.getbasetemp()
    position, rows = 0, []
    for gap, length, value in steps:
        rows.append((position + gap, position + gap + length, value))
        position += gap + length
    sizes = {"chr1": position + 7}
    with pyBigWig.open(str(folder / "s.bw"), "w") as track:
        track.addHeader(list(sizes.items()))
        for start, end, value in rows:
            track.addEntries(["chr1"], [start], ends=[end], values=[value])
    text = "".join(f"chr1\t{start}\t{end}\t{value!r}\n" for start, end, value in rows)
    (folder / "s.bedgraph").write_text(text or "chr1\t0\t1\t0\n")
    largest = max((abs(value) for _, _, value in rows), default=1)
    (found,) = read(folder / "s.bedgraph", sizes, resolution).values()
    (expected,) = read(folder / "s.bw", sizes, resolution).values() if rows else (np.zeros_like(found),)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7 * largest)


@pytest.mark.real_data
@pytest.mark.parametrize("resolution", [25, 200])
def test_the_bedgraph_of_a_real_bigwig_has_its_values(tmp_path, resolution):
    bigwig = REAL_DATA / "roadmap_pilot_hg19" / "E003.H3K4me3.pilot.neglog10p.hg19.bw"
    sizes = {"chr21": 48_129_895, "chr22": 51_304_566}
    expected = read(bigwig, sizes, resolution)
    assert max(values.max() for values in expected.values()) > 5
    assert_same(read(as_bedgraph(bigwig, tmp_path / "a", list(sizes)), sizes, resolution), expected)


@pytest.mark.real_data
def test_the_bedgraph_of_a_bigwig_that_macs_made_has_its_values(tmp_path):
    bigwig = REAL_DATA / "K562_ChIP_hg19" / "macs3" / "K562_H3K4me3_ppois.bw"
    with pyBigWig.open(str(bigwig)) as track:
        sizes = {"chr1": track.chroms()["chr1"]}
    expected = read(bigwig, sizes)
    assert_same(read(as_bedgraph(bigwig, tmp_path / "a", ["chr1"]), sizes), expected)


def test_chromosomes_that_the_genome_does_not_have_are_left_out(tmp_path):
    path = tmp_path / "a"
    path.write_text("chr9\t0\t999999999\t3\nchr2\t0\t25\t1e6\n")
    assert list(read(path)) == ["chr2"]
    assert read(path)["chr2"][:2].tolist() == [1e6, 0]
    path.write_text("chr9\t0\t25\t3\n")
    with pytest.raises(GenomeError, match=rf"^{re.escape(str(path))}: shares no chromosome with the genome; "):
        read(path)


@pytest.mark.parametrize("name", ["chr21", "21", "NC_000021.9", "CM000683.2"])
def test_other_names_of_a_chromosome_are_known_in_both_formats(tmp_path, name):
    (tmp_path / "a").write_text(f"{name}\t0\t50\t2\n{name}\t50\t60\t7\n")
    with pyBigWig.open(str(tmp_path / "a.bw"), "w") as track:
        track.addHeader([(name, HG38["chr21"])])
        track.addEntries([name, name], [0, 50], ends=[50, 60], values=[2.0, 7.0])
    for path in (tmp_path / "a", tmp_path / "a.bw"):
        found = read(path, HG38)
        assert list(found) == ["chr21"]
        assert found["chr21"][:4].tolist() == [2, 2, 7, 0]
        assert len(found["chr21"]) == -(-HG38["chr21"] // 25)


def test_aliases_of_the_user_name_chromosomes_too(tmp_path):
    (tmp_path / "a").write_text("two\t0\t50\t2\n")
    assert list(read(tmp_path / "a", aliases=(frozenset({"two", "chr2"}),))) == ["chr2"]


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "not a bigWig or bedGraph"),
        (b"chr1\t0\t25\n", "a BED file, not a bigWig or bedGraph"),
        (b"chr1\t0\t25\tpeak\n", "a BED file, not a bigWig or bedGraph"),
        (b"chr1\t0\t25\tp\t5\t.\t5\t3\t1\t4\n", "a BED file, not a bigWig or bedGraph"),
        (b"chr1\t0\t25\tACGTACGT-1\t1\n", "a fragments file, not a bigWig or bedGraph"),
        (b"chr1\t0\t25\tchr1\t50\t75\tp\t0\t+\t-\n", "a BEDPE file, not a bigWig or bedGraph"),
        (b"@SQ\tSN:chr1\tLN:5\n", "a SAM file, where a signal track is expected"),
        (b">chr1\nACGT\n", "a FASTA file, not a bigWig or bedGraph"),
        (b"\xeb\xf2\x89\x87" + bytes(60), "a bigBed, not a bigWig or bedGraph"),
        (bytes(100), "not a bigWig or bedGraph"),
    ],
)
def test_files_of_another_kind_are_refused_by_what_they_are(tmp_path, content, fact):
    path = tmp_path / "a.bw"
    path.write_bytes(content)
    refused(path, fact)


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("sim1.H3K4me3.bam", "a BAM, where a signal track is expected; name it in the file column"),
        ("sim1.H3K4me3.cram", "a CRAM, where a signal track is expected"),
        ("truth.h5", "an HDF5 file, not a bigWig or bedGraph"),
        ("none.bw", "no such file; check the path"),
        (".", "give a bigWig or bedGraph track"),
    ],
)
def test_other_files_of_the_test_data_are_refused_by_what_they_are(name, fact):
    refused(TEST_DATA / name, fact)


def refused(path: Path, fact: str) -> None:
    with pytest.raises(TrackError, match=rf"^{re.escape(str(path))}: .*{re.escape(fact)}") as caught:
        read(path)
    assert "; " in str(caught.value)


def test_two_names_of_one_chromosome_are_refused(tmp_path):
    (tmp_path / "a").write_text("chr21\t0\t25\t1\n21\t25\t50\t2\n")
    with pytest.raises(GenomeError, match=r"both chr21|chr21 or 21|21 or chr21"):
        list(read_signal(tmp_path / "a", HG38, 25))


@pytest.mark.parametrize("kind", ["bigwig", "bedgraph"])
def test_a_signal_was_measured_between_gaps_of_more_than_100_kb(tmp_path, kind):
    starts = [110, 60_000, 160_025, 260_050, 401_000, 999_990]
    sizes = {"chr1": 1_000_000, "chr2": 500}
    path = tmp_path / "gaps.bw"
    with pyBigWig.open(str(path), "w") as track:
        track.addHeader(list(sizes.items()))
        track.addEntries(["chr1"] * len(starts), starts, ends=[start + 10 for start in starts], values=[1.0] * 6)
    if kind == "bedgraph":
        path = as_bedgraph(path, tmp_path / "gaps.bedgraph", ["chr1"])
    spans = {chrom: found for chrom, _, found in read_signal(path, sizes, 25)}
    # in whole bins; the gaps are of 60 kb, 100 kb, 100 kb, 141 kb and 599 kb
    assert spans["chr1"].tolist() == [[100, 260_075], [401_000, 401_025], [999_975, 1_000_000]]
    assert "chr2" not in spans or spans["chr2"].shape == (0, 2)
