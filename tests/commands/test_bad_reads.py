"""Reads, tracks and disks that are not as they should be: one line (path, fact, remedy), the exit code, no leftover."""

import ctypes
import gzip
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyBigWig
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candi_cli.commands import main
from candi_cli.counting import CountingRule
from candi_cli.errors import CandiError
from candi_cli.io.reads import ReadCounter

TEST_DATA = Path(__file__).parents[2] / "test_data"
FASTA = TEST_DATA / "genome.fa.gz"
SIZES = TEST_DATA / "chrom.sizes"
BAM = TEST_DATA / "sim2.H3K4me3.bam"
TRACK = TEST_DATA / "sim1.H3K4me3.bw"
PEAKS = TEST_DATA / "sim1.H3K4me3.narrowPeak"
CANDI = [sys.executable, "-m", "candi_cli"]
END_OF_BGZF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


class Bench:
    """A folder of inputs, a folder for the output alone, and the command over both."""

    def __init__(self, candi: Callable, folder: Path) -> None:
        self._candi, self.folder = candi, folder
        self.out = folder / "out" / "s.h5"
        self.out.parent.mkdir()
        self.sheet = folder / "sheet.tsv"

    def write(self, columns: str = "file", *cells: object) -> None:
        self.sheet.write_text(
            "\t".join(["biosample", "assay", *columns.split()])
            + "\n"
            + "\t".join(["x", "H3K4me3", *map(str, cells)])
            + "\n"
        )

    def bin(self, columns: str, *cells: object, options: tuple[object, ...] = ()):
        self.write(columns, *cells)
        return self._candi("bin", "--covariates", self.sheet, "-o", self.out, *options)

    def refused(self, columns: str, *cells: object, says: tuple[object, ...], options: tuple[object, ...] = (), code=1):
        ran = self.bin(columns, *cells, options=options)
        assert ran.code == code, ran.err
        told = [line for line in ran.errors if "records counted" not in line]
        assert len(told) == 1, ran.err
        assert told[0].startswith("candi bin: ")
        assert "; " in told[0], f"no remedy: {told[0]}"
        assert "internal error" not in told[0]
        for part in says:
            assert str(part) in told[0]
        assert ran.out == ""
        self.nothing_left()

    def nothing_left(self) -> None:
        assert list(self.out.parent.iterdir()) == []


@pytest.fixture
def bench(candi, tmp_path) -> Bench:
    return Bench(candi, tmp_path)


def counts(store: Path, chrom: str = "chr1") -> np.ndarray:
    with h5py.File(store) as file:
        return file[f"biosamples/x/H3K4me3/counts/{chrom}"][:]


def write_bam(path: Path, contigs: dict[str, int], reads: list[tuple[str, int, int]], mode: str = "wb") -> Path:
    """Write reads of 36 bp at (contig, start, flag)."""
    header = {"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": [{"SN": name, "LN": n} for name, n in contigs.items()]}
    with pysam.AlignmentFile(str(path), mode, header=header) as file:
        for number, (contig, start, flag) in enumerate(reads):
            read = pysam.AlignedSegment(file.header)
            read.query_name, read.flag, read.reference_id = f"r{number}", flag, list(contigs).index(contig)
            read.reference_start, read.mapping_quality = start, 60
            read.cigarstring, read.query_sequence = "36M", "ACGT" * 9
            file.write(read)
    return path


# --- contigs


ODD = "chr17:56000000-57000000"


def odd_contig(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    starts = np.sort(rng.integers(0, 60_000 - 36, 3_000)).tolist()
    return write_bam(folder / "odd.bam", {ODD: 60_000}, [(ODD, start, 16 * (start % 2)) for start in starts])


def test_a_contig_whose_name_looks_like_a_region_is_counted(bench, tmp_path):
    assert bench.bin("file", odd_contig(tmp_path)).code == 0
    with h5py.File(bench.out) as file:
        assert list(file["biosamples/x/H3K4me3/counts"]) == [ODD]
        assert file[f"biosamples/x/H3K4me3/counts/{ODD}"][:].sum() > 3_000


@pytest.mark.parametrize(
    ("region", "span"),
    [(ODD, (0, 60_000)), (f"{ODD}:10001-20000", (10_000, 20_000)), (f"{ODD}:50,001", (50_000, 60_000))],
)
def test_such_a_contig_and_a_part_of_it_are_denoised(candi, bench, tmp_path, region, span):
    bench.write("file run_type", odd_contig(tmp_path), "single-ended")
    track = bench.out.with_suffix(".bw")
    ran = candi("denoise", tmp_path / "odd.bam", "--covariates", bench.sheet, "-r", region, "-o", track, "--quiet")
    assert ran.code == 0, ran.err
    with pyBigWig.open(str(track)) as opened:
        assert opened.chroms() == {ODD: 60_000}
        intervals = opened.intervals(ODD)
        assert (intervals[0][0], intervals[-1][1]) == span


# --- one kind of file where another is expected


@pytest.mark.parametrize("path", [TRACK, FASTA, TEST_DATA / "truth.h5", TEST_DATA / "meta.tsv", PEAKS.parent], ids=str)
def test_what_is_no_reads_is_refused_as_reads(bench, path):
    bench.refused("file", path, says=(path,))


@pytest.mark.parametrize(
    "path", [BAM, FASTA, TEST_DATA / "truth.h5", PEAKS, TEST_DATA / "meta.tsv", PEAKS.parent], ids=str
)
def test_what_is_no_track_is_refused_as_signal(bench, path):
    bench.refused("file signal", BAM, path, says=(path,))


@pytest.mark.parametrize("path", [BAM, TRACK, FASTA, TEST_DATA / "truth.h5", PEAKS.parent], ids=str)
def test_what_is_no_bed_is_refused_as_peaks(bench, path):
    bench.refused("file peaks", BAM, path, says=(path,))


@pytest.mark.parametrize("column", ["file", "signal", "peaks"])
def test_a_file_that_is_not_there_is_told(bench, tmp_path, column):
    columns, cells = (column, ()) if column == "file" else (f"file {column}", (BAM,))
    bench.refused(columns, *cells, tmp_path / "absent", says=(tmp_path / "absent", "o such file"))


# --- CRAM and its reference


@pytest.fixture
def cram(tmp_path) -> Path:
    path = tmp_path / "reads.cram"
    pysam.view("-C", "-T", str(FASTA), "-o", str(path), str(BAM), catch_stdout=False)
    return path


@pytest.fixture
def other_reference(tmp_path) -> Path:
    """A FASTA of the same names and lengths, and other bases."""
    path = tmp_path / "other.fa"
    rng = np.random.default_rng(1)
    sequences = (
        f">{name}\n{''.join(rng.choice(list('ACGT'), n))}\n" for name, n in (("chr1", 300_010), ("chr2", 120_000))
    )
    path.write_text("".join(sequences))
    return path


def without_m5(cram: Path, path: Path) -> Path:
    header = "".join(
        "\t".join(field for field in line.split("\t") if not field.startswith(("M5:", "UR:"))) + "\n"
        for line in pysam.view("-H", str(cram)).splitlines()
    )
    path.with_suffix(".sam").write_text(header)
    shutil.copy(cram, path)
    pysam.reheader("-i", str(path.with_suffix(".sam")), str(path), catch_stdout=False)
    assert "M5:" not in pysam.view("-H", str(path))
    return path


def test_a_cram_without_its_reference_is_refused(bench, cram):
    bench.refused("file", cram, says=(cram, "reference", "-T"))


def test_a_cram_with_another_reference_is_refused_by_its_checksum(bench, cram, other_reference):
    bench.refused("file", cram, says=(cram, other_reference, "MD5"), options=("-T", other_reference))


def test_a_cram_with_another_reference_is_refused_though_its_header_has_no_checksum(
    bench, cram, other_reference, tmp_path
):
    bare = without_m5(cram, tmp_path / "bare.cram")
    bench.refused("file", bare, says=(bare, other_reference), options=("-T", other_reference))


def test_a_cram_whose_header_has_no_checksum_is_counted_with_its_reference(bench, cram, tmp_path):
    assert bench.bin("file", BAM).code == 0
    expected = counts(bench.out)
    assert bench.bin("file", without_m5(cram, tmp_path / "bare.cram"), options=("-T", FASTA)).code == 0
    np.testing.assert_array_equal(counts(bench.out), expected)


def test_a_cram_with_a_reference_of_other_lengths_is_refused(bench, cram, tmp_path):
    short = tmp_path / "short.fa"
    short.write_text(">chr1\n" + "ACGT" * 100 + "\n>chr2\n" + "ACGT" * 50 + "\n")
    bench.refused("file", cram, says=("chr1", "300,010", "400"), options=("-T", short))


def test_a_truncated_cram_is_refused(bench, cram):
    cram.write_bytes(cram.read_bytes()[: cram.stat().st_size * 2 // 3])
    bench.refused("file", cram, says=(cram,), options=("-T", FASTA))


# --- indexes


def foreign_index(kind: str, folder: Path) -> bytes:
    if kind == "garbage":
        return np.random.default_rng(2).bytes(500)
    if kind == "empty":
        return b""
    return (
        TEST_DATA / {"foreign .bai": "sim1.control.bam.bai", "foreign .crai": "sim1.H3K4me3.cram.crai"}[kind]
    ).read_bytes()


@pytest.mark.parametrize("kind", ["garbage", "empty", "foreign .bai"])
@pytest.mark.parametrize("place", ["reads.bam.bai", "reads.bai", "reads.bam.csi"])
def test_a_wrong_index_beside_a_bam_changes_nothing(bench, tmp_path, kind, place):
    assert bench.bin("file", BAM).code == 0
    expected = counts(bench.out)
    (tmp_path / place).write_bytes(foreign_index(kind, tmp_path))
    reads = Path(shutil.copy(BAM, tmp_path / "reads.bam"))  # newer than its index
    ran = bench.bin("file", reads)
    assert ran.code == 0
    assert len(ran.errors) == 2, "htslib has spoken"
    np.testing.assert_array_equal(counts(bench.out), expected)


@pytest.mark.parametrize("kind", ["garbage", "empty", "foreign .crai"])
def test_a_wrong_index_beside_a_cram_changes_nothing(bench, cram, kind, tmp_path):
    assert bench.bin("file", BAM).code == 0
    expected = counts(bench.out)
    Path(f"{cram}.crai").write_bytes(foreign_index(kind, tmp_path))
    ran = bench.bin("file", cram, options=("-T", FASTA))
    assert ran.code == 0, ran.err
    np.testing.assert_array_equal(counts(bench.out), expected)


@pytest.mark.parametrize("kind", ["of another FASTA", "garbage", "empty", "cut"])
def test_a_stale_index_of_the_reference_is_told(bench, cram, tmp_path, kind):
    fasta = tmp_path / "genome.fa"
    fasta.write_bytes(gzip.decompress(FASTA.read_bytes()))
    pysam.faidx(str(fasta))
    index = Path(f"{fasta}.fai")
    good = index.read_text()
    index.write_text(
        {
            "of another FASTA": "chr1\t300010\t6\t100\t101\nchr2\t120000\t303123\t100\t101\n",
            "garbage": "\x01\x02 no index\n",
            "empty": "",
            "cut": good.splitlines()[0] + "\n",
        }[kind]
    )
    before = index.read_bytes()
    bench.refused("file", cram, says=(fasta,), options=("-T", fasta))
    assert index.read_bytes() == before  # a user's file is never written


def test_no_index_is_written_beside_the_reference(bench, cram, tmp_path):
    fasta = tmp_path / "genome.fa"
    fasta.write_bytes(gzip.decompress(FASTA.read_bytes()))
    assert bench.bin("file", cram, options=("-T", fasta)).code == 0
    assert not Path(f"{fasta}.fai").exists()


# --- BAM files that are damaged


def test_a_bam_cut_in_its_middle_to_which_an_end_was_given_is_refused(bench, tmp_path):
    content = BAM.read_bytes()
    for part in (0.3, 0.5, 0.9):
        cut = tmp_path / "cut.bam"
        cut.write_bytes(content[: int(part * len(content))] + END_OF_BGZF)
        bench.refused("file", cut, says=(cut,))


def bgzf_blocks(content: bytes) -> list[int]:
    """Return where each BGZF block starts."""
    starts, at = [], 0
    while at < len(content):
        starts.append(at)
        at += struct.unpack("<H", content[at + 16 : at + 18])[0] + 1
    return starts


def test_a_bam_that_has_lost_a_block_is_refused_or_the_records_of_it_are_whole(bench, tmp_path):
    content = BAM.read_bytes()
    starts = bgzf_blocks(content)
    assert len(starts) > 4
    lost = tmp_path / "lost.bam"
    lost.write_bytes(content[: starts[2]] + content[starts[3] :])
    ran = bench.bin("file", lost)
    if ran.code == 0:  # htslib starts a block with a record: what is lost shows nowhere
        with pysam.AlignmentFile(str(lost), check_sq=False) as file:
            assert sum(1 for _ in file) > 0
    else:
        assert len(ran.errors) == 1
        assert str(lost) in ran.err


def test_an_unsorted_bam_is_refused_whether_its_header_says_so_or_not(bench, tmp_path):
    for order in ([("chr2", 5, 0), ("chr1", 5, 0)], [("chr1", 500, 0), ("chr1", 499, 0)]):
        path = write_bam(tmp_path / "unsorted.bam", {"chr1": 300_010, "chr2": 120_000}, order)
        bench.refused("file", path, says=(path, "samtools sort", "record 2"))


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_reads_without_contigs_in_the_header_are_refused(bench, tmp_path, mode):
    path = tmp_path / "unaligned"
    with pysam.AlignmentFile(str(path), mode, header={"HD": {"VN": "1.6"}}, add_sq_text=False) as file:
        read = pysam.AlignedSegment(file.header)
        read.query_name, read.flag, read.query_sequence = "r", 4, "ACGT"
        file.write(read)
    bench.refused("file", path, says=(path, "@SQ"))
    bench.refused("file", path, says=(path,), options=("-g", SIZES))


@pytest.mark.parametrize("mode", ["wb", "w"])
@pytest.mark.parametrize("start", [980, 1_000, 5_000, 150_000, 2_000_000_000])
def test_reads_past_the_end_of_their_contig_are_refused_or_clipped_and_never_an_internal_error(
    bench, tmp_path, mode, start
):
    path = write_bam(tmp_path / "past", {"chr1": 1_000}, [("chr1", 10, 0), ("chr1", start, 0)], mode)
    ran = bench.bin("file", path)
    assert "internal error" not in ran.err, ran.err
    if ran.code == 0:
        values = counts(bench.out)
        assert values[:3].tolist() == [1, 1, 0]
        assert values[3:-1].sum() == 0
    else:
        assert (ran.code, len(ran.errors)) == (1, 1)
        assert f"{path}: " in ran.err
        bench.nothing_left()


def counted(path: Path, reader: str) -> dict[str, np.ndarray]:
    from candi_cli.io import bam

    fast = bam.FAST
    bam.FAST = fast and reader == "numba"
    try:
        return {found.chrom: found.counts for found in ReadCounter(path, CountingRule(), n_folds=2)}
    finally:
        bam.FAST = fast


def counted_or_told(path: Path, reader: str) -> dict[str, np.ndarray] | str:
    """Return the counts, or the message of the error."""
    try:
        return counted(path, reader)
    except CandiError as error:
        return str(error)


@pytest.fixture(scope="module")
def short_bam(tmp_path_factory) -> Path:
    """A BAM of a few hundred reads in several blocks."""
    path = tmp_path_factory.mktemp("short") / "short.bam"
    with pysam.AlignmentFile(str(BAM)) as source, pysam.AlignmentFile(str(path), "wb", template=source) as target:
        for number, read in enumerate(source):
            if number % 4 == 0:
                target.write(read)
    return path


@pytest.mark.parametrize("reader", ["numba", "pysam"])
def test_random_damage_to_a_bam_is_refused_or_changes_no_count(short_bam, tmp_path_factory, reader):
    expected, content = counted(short_bam, reader), short_bam.read_bytes()
    path = tmp_path_factory.mktemp("damaged") / "damaged.bam"

    @settings(max_examples=100 if reader == "numba" else 30)
    @given(at=st.integers(0, len(content) - 1), mask=st.integers(1, 255))
    def flipped(at: int, mask: int) -> None:
        damaged = bytearray(content)
        damaged[at] ^= mask
        path.write_bytes(damaged)
        found = counted_or_told(path, reader)
        if isinstance(found, str):
            assert str(path) in found
            assert len(found.splitlines()) == 1
            return
        assert found.keys() == expected.keys()
        for chrom, values in expected.items():
            np.testing.assert_array_equal(found[chrom], values)

    flipped()


def bgzf(payload: bytes) -> bytes:
    blocks = []
    for start in range(0, len(payload), 60_000):
        piece = payload[start : start + 60_000]
        compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
        packed = compressor.compress(piece) + compressor.flush()
        header = struct.pack("<4BIBBHBBHH", 31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2, len(packed) + 25)
        blocks.append(header + packed + struct.pack("<II", zlib.crc32(piece), len(piece)))
    return b"".join(blocks) + END_OF_BGZF


@pytest.mark.parametrize("reader", ["numba", "pysam"])
def test_records_that_hold_nonsense_under_right_checksums_are_refused_or_counted(short_bam, tmp_path_factory, reader):
    payload = gzip.decompress(short_bam.read_bytes())
    path = tmp_path_factory.mktemp("nonsense") / "nonsense.bam"

    @settings(max_examples=150 if reader == "numba" else 60)
    @given(at=st.integers(0, len(payload) - 4), value=st.binary(min_size=1, max_size=4))
    def changed(at: int, value: bytes) -> None:
        path.write_bytes(bgzf(payload[:at] + value + payload[at + len(value) :]))
        found = counted_or_told(path, reader)
        assert str(path) in found if isinstance(found, str) else found

    changed()


# --- text that is damaged


def bed_lines() -> list[str]:
    with pysam.AlignmentFile(str(BAM)) as file:
        return [
            f"{read.reference_name}\t{read.reference_start}\t{read.reference_end}\tr\t0\t{'+-'[read.is_reverse]}\n"
            for read in file
            if not read.is_unmapped
        ]


@pytest.mark.parametrize(
    "bad",
    ["chr1\tten\t36\n", "chr1\t100\n", "chr1\t100\t100\tr\t0\t+\n", "chr1\t-5\t10\tr\t0\t+\n", "chr1\n",
     "chr1\t1e3\t2e3\tr\t0\t+\n", "chr1\t99999999999999999999\t5\tr\t0\t+\n", "\xff\xfe\x00\t1\t2\tr\t0\t+\n",
     "chr1\t300000\t300011\tr\t0\t+\n"],
    ids=["word", "two fields", "empty", "negative", "one field", "float", "huge", "binary", "past the end"],
)  # fmt: skip
@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
def test_one_bad_line_in_the_middle_of_a_bed_is_told_by_its_number(bench, tmp_path, bad, gz):
    lines = bed_lines()
    lines.insert(3_000, bad)
    path = tmp_path / "reads.bed"
    content = "".join(lines).encode("latin-1")
    path.write_bytes(gzip.compress(content) if gz else content)
    if bad.startswith("\xff"):  # a name that no genome has: left out, and told
        ran = bench.bin("file", path, options=("-g", SIZES))
        assert ran.code == 0
        assert "left out" in ran.err
    else:
        says = (path, "300,011") if "300011" in bad else (f"{path}:3001: ",)
        bench.refused("file", path, says=says, options=("-g", SIZES))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("column", ["file", "signal", "peaks"])
def test_a_truncated_gzip_is_refused(bench, tmp_path, part, column):
    lines = bed_lines()
    if column == "signal":
        lines = [f"chr1\t{number * 25}\t{number * 25 + 25}\t{number % 7}.5\n" for number in range(5_000)]
    content = gzip.compress("".join(lines).encode())
    path = tmp_path / "cut.gz"
    path.write_bytes(content[: int(part * len(content))])
    columns, cells = (column, ()) if column == "file" else (f"file {column}", (BAM,))
    bench.refused(columns, *cells, path, says=(path, "truncated"), options=("-g", SIZES))


def test_a_peak_past_the_end_of_its_chromosome_is_refused(bench, tmp_path):
    path = tmp_path / "peaks.bed"
    path.write_text("chr1\t10\t20\nchr1\t300000\t300011\n")
    bench.refused("file peaks", BAM, path, says=(path, "chr1", "300,011", "300,010"))


def test_a_bigwig_of_other_lengths_is_refused(bench, tmp_path):
    path = tmp_path / "other.bw"
    with pyBigWig.open(str(path), "w") as track:
        track.addHeader([("chr1", 300_010), ("chr2", 119_999)])
        track.addEntries(["chr1"], [0], ends=[25], values=[1.0])
    bench.refused("file signal", BAM, path, says=(path, "chr2", "119,999", "120,000"))


@pytest.mark.parametrize(("start", "end"), [(230, 240), (3_000, 3_010), (9_000, 9_100), (10_756, 10_800)])
def test_a_damaged_bigwig_is_refused(bench, tmp_path, start, end):
    content = bytearray(TRACK.read_bytes())
    content[start:end] = np.random.default_rng(3).bytes(end - start)
    path = tmp_path / "bad.bw"
    path.write_bytes(content)
    bench.refused("file signal", BAM, path, says=(path,))


@pytest.mark.parametrize("part", [0.001, 0.05, 0.3])
def test_a_truncated_bigwig_is_refused(bench, tmp_path, part):
    path = tmp_path / "cut.bw"
    path.write_bytes(TRACK.read_bytes()[: int(part * TRACK.stat().st_size)])
    bench.refused("file signal", BAM, path, says=(path,))


# --- the sheet


def test_all_problems_of_a_sheet_are_told_at_once(candi, bench):
    bench.sheet.write_text(
        "biosample\tassay\tfile\tdepth\tread_length\trun_type\tsplit\tmd5\n"
        f"x\t\t{BAM}\tNA\tNA\tNA\tNA\tNA\n"
        f"x\ta\t{BAM}\t0\t-3\tboth\tNA\tNA\n"
        f"x/y\tb\t{BAM}\tNA\tNA\tNA\tsome\tzz\n"
        f"x\tc\t{BAM}\tNA\tNA\tNA\tNA\tNA\n"
        f"x\tc\t{BAM}\tNA\tNA\tNA\tNA\tNA\n"
        f"x\td\t{BAM}\tNA\tNA\tNA\tNA\tNA\tNA\tNA\n"
    )
    ran = candi("bin", "--covariates", bench.sheet, "-o", bench.out)
    assert ran.code == 1
    lines = [
        (2, "assay"),
        (3, "depth"),
        (3, "read_length"),
        (3, "run_type"),
        (4, "biosample"),
        (4, "md5"),
        (4, "split"),
        (6, "assay"),
        (7, "10 fields"),
    ]
    assert len(ran.errors) == len(lines)
    for line, (number, column) in zip(ran.errors, lines, strict=True):
        assert line.startswith(f"candi bin: {bench.sheet}:{number}: {column}")
        assert "; " in line
    bench.nothing_left()


def test_files_of_a_sheet_that_are_not_there_are_told_before_any_is_counted(candi, bench, tmp_path):
    """A cohort takes hours: a misspelt name in its last row must not wait for them."""
    bench.sheet.write_text(f"biosample\tassay\tfile\nx\ta\t{BAM}\nx\tb\t{tmp_path / 'absent.bam'}\n")
    ran = candi("bin", "--covariates", bench.sheet, "-o", bench.out)
    assert ran.code == 1
    assert "records counted" not in ran.err
    assert len(ran.errors) == 1
    assert str(tmp_path / "absent.bam") in ran.err
    bench.nothing_left()


# --- where the output goes


@pytest.mark.parametrize("column", ["file", "control", "signal", "peaks", "sheet", "genome", "reference", "aliases"])
def test_an_output_that_is_an_input_is_refused_and_the_input_is_kept(candi, tmp_path, column):
    files = {
        "file": BAM, "control": TEST_DATA / "sim1.control.bam", "signal": TRACK, "peaks": PEAKS, "genome": SIZES,
        "reference": FASTA,
    }  # fmt: skip
    files = {name: Path(shutil.copy(path, tmp_path / f"{name}{path.suffix}")) for name, path in files.items()}
    files["sheet"], files["aliases"] = tmp_path / "sheet.tsv", tmp_path / "aliases.tsv"
    columns = ("file", "control", "signal", "peaks")
    cells = [str(files[name]) for name in columns]
    files["sheet"].write_text("\t".join(["biosample", "assay", *columns]) + "\n" + "\t".join(["x", "a", *cells]) + "\n")
    files["aliases"].write_text("chr1\tone\n")
    before = {name: path.read_bytes() for name, path in files.items()}
    out = tmp_path / "link" / files[column].name  # the same file by another name
    (tmp_path / "link").symlink_to(tmp_path)
    options = ("-g", files["genome"], "-T", files["reference"], "--aliases", files["aliases"])
    ran = candi("bin", "--covariates", files["sheet"], "-o", out, *options, "--quiet")
    assert {name: path.read_bytes() for name, path in files.items()} == before
    assert ran.code in (1, 2)
    (line,) = ran.errors
    assert out.name in line


@pytest.mark.parametrize("kind", ["reads", "sheet", "model"])
def test_denoise_refuses_an_output_that_is_an_input(candi, model_path, tmp_path, kind):
    sheet = tmp_path / "sheet.tsv"
    files = {
        "reads": Path(shutil.copy(TEST_DATA / "sim1.H3K4me3.bam", tmp_path)),
        "sheet": sheet,
        "model": Path(shutil.copy(model_path, tmp_path)),
    }
    sheet.write_text("biosample\tassay\nx\tH3K4me3\n")
    before = files[kind].read_bytes()
    ran = candi("denoise", files["reads"], "--covariates", sheet, "-m", files["model"], "-o", files[kind], "--quiet")
    assert files[kind].read_bytes() == before
    assert ran.code in (1, 2)
    assert len(ran.errors) == 1


def test_an_output_that_is_a_folder_or_lies_in_none_is_refused(candi, bench, tmp_path):
    bench.write("file", BAM)
    for out, fact in (
        (tmp_path / "out", "is a folder"),
        (tmp_path / "no" / "s.h5", "does not exist"),
        (BAM / "s.h5", "is not a folder"),
    ):
        ran = candi("bin", "--covariates", bench.sheet, "-o", out)
        assert ran.code == 1
        (line,) = ran.errors
        assert f"{out}: " in line
        assert fact in line
    bench.nothing_left()


def without_privileges() -> None:
    """In a child, let permissions bind root too (Linux capabilities CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
    if os.geteuid() == 0:
        for capability in (1, 2):
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


def run_child(*arguments: object, preexec: Callable[[], None], **options: object) -> subprocess.CompletedProcess:
    command = [*CANDI, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=preexec, **options)


@pytest.mark.skipif(os.geteuid() == 0 and sys.platform != "linux", reason="permissions do not bind root here")
@pytest.mark.parametrize("column", ["file", "signal", "peaks", "sheet", "genome", "reference"])
def test_a_file_that_may_not_be_read_is_told(bench, tmp_path, column):
    paths = {
        "file": BAM,
        "signal": TRACK,
        "peaks": PEAKS,
        "genome": SIZES,
        "reference": TEST_DATA / "sim1.H3K4me3.cram",
    }
    copied = {name: Path(shutil.copy(path, tmp_path / f"{name}{path.suffix}")) for name, path in paths.items()}
    copied["reference"].write_text(">chr1\nACGT\n")
    bench.write("file signal peaks", copied["file"], copied["signal"], copied["peaks"])
    copied["sheet"] = bench.sheet
    copied[column].chmod(0)
    options = ["-g", copied["genome"]] + (["-T", copied["reference"]] if column == "reference" else [])
    ran = run_child("bin", "--covariates", bench.sheet, "-o", bench.out, *options, preexec=without_privileges)
    assert ran.returncode == 1, ran.stderr
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"candi bin: {copied[column]}: ")
    assert "permission" in line.lower() or "may not be read" in line
    assert "; " in line
    bench.nothing_left()


@pytest.mark.skipif(os.geteuid() == 0 and sys.platform != "linux", reason="permissions do not bind root here")
def test_an_output_folder_that_may_not_be_written_is_told(bench):
    bench.write("file", BAM)
    bench.out.parent.chmod(0o555)
    try:
        ran = run_child("bin", "--covariates", bench.sheet, "-o", bench.out, preexec=without_privileges)
    finally:
        bench.out.parent.chmod(0o755)
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"candi bin: {bench.out}: cannot be written")
    bench.nothing_left()


def full_at(n_bytes: int) -> Callable[[], None]:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    return limit


@pytest.mark.parametrize(("threads", "n_bytes"), [(1, 0), (1, 1_000), (1, 20_000), (1, 60_000), (2, 20_000)])
def test_a_disk_that_is_full_is_told_and_nothing_is_left(bench, tmp_path, threads, n_bytes):
    """Files cannot grow beyond so many bytes, as on a full disk."""
    bench.sheet.write_text(f"biosample\tassay\tfile\nx\ta\t{BAM}\nx\tb\t{TEST_DATA / 'sim2.H3K9me3.bam'}\n")
    (tmp_path / "scratch").mkdir()
    ran = run_child(
        "bin", "--covariates", bench.sheet, "-o", bench.out, "--folds", 64, "--quiet", "-@", threads,
        preexec=full_at(n_bytes), env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
    )  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    (line,) = ran.stderr.splitlines()
    assert line.startswith("candi bin: ")
    assert str(bench.out) in line
    assert "; " in line
    assert "internal error" not in line
    assert not bench.out.exists()
    assert not list(bench.out.parent.rglob("*.tmp"))


def test_a_full_folder_of_temporary_files_is_told(bench, tmp_path):
    reads = tmp_path / "reads.bed"
    reads.write_text("".join(bed_lines()))
    (tmp_path / "scratch").mkdir()
    bench.write("file", reads)
    ran = run_child(
        "bin", "--covariates", bench.sheet, "-g", SIZES, "-o", bench.out,
        preexec=full_at(100_000), env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
    )  # fmt: skip
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert str(tmp_path / "scratch") in line or "TMPDIR" in line
    assert "internal error" not in line
    assert "; " in line
    bench.nothing_left()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_track_on_a_full_disk_is_told_and_nothing_is_left(bench, model_path, tmp_path):
    bench.write("file", TEST_DATA / "sim1.H3K4me3.bam")
    out = bench.out.with_suffix(".bw")
    reads = TEST_DATA / "sim1.H3K4me3.bam"
    arguments = (
        "denoise",
        reads,
        "--covariates",
        bench.sheet,
        "-m",
        model_path,
        "-o",
        out,
        "--quiet",
        "--device",
        "cpu",
    )
    ran = run_child(*arguments, preexec=full_at(10_000))
    assert ran.returncode == 1, ran.stderr
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"candi denoise: {out}")
    assert "; " in line
    bench.nothing_left()


# --- signals


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_of_the_first_file_leaves_nothing(bench, tmp_path, sent, code):
    os.mkfifo(tmp_path / "peaks")  # the run waits for what comes through it
    (tmp_path / "scratch").mkdir()
    bench.write("file peaks", BAM, tmp_path / "peaks")
    command = [*CANDI, "bin", "--covariates", str(bench.sheet), "-o", str(bench.out)]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "scratch")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 20
        while not list(bench.out.parent.glob(".s.h5.parts/*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(sent)
        _, told = process.communicate(timeout=20)
    assert process.returncode == code, told
    assert "Traceback" not in told
    assert len(told.splitlines()) <= 1
    bench.nothing_left()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_fixture_runs_what_users_run():
    """`main` in this process and the command agree on the exit code of a failure."""
    arguments = ["bin", "--covariates", "absent.tsv", "-o", "absent.h5"]
    assert main(arguments) == subprocess.run([*CANDI, *arguments], capture_output=True).returncode == 1
