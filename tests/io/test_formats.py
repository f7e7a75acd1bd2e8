"""Recognising files: by content alone, whatever their names, and never by an exception."""

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyBigWig
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candi_cli.io.formats import Format, columns_of, is_compressed, is_interval, open_decompressed, recognise

ROOT = Path(__file__).parents[2]
TEST_DATA = ROOT / "test_data"
REAL_DATA = ROOT.parent / "shared" / "data"
NAMES = ["a.bam", "a.bed.gz", "a.bw", "a"]
HEADER = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr1", "LN": 1_000}]}
CELLRANGER = "# id=10k_PBMC\n# description=\n#\n# primary_contig=chr1\n"
FASTQ = "@read1 1:N:0\nACGT\n+\nFFFF\n"

TEXTS = {
    "3 columns": ("chr1\t5\t90\n", Format.BED),
    "4 columns, a name": ("chr1\t5\t90\tpeak_1\n", Format.BED),
    "5 columns": ("chr1\t5\t90\tpeak_1\t960\n", Format.BED),
    "6 columns": ("chr1\t5\t90\tread\t60\t-\n", Format.BED),
    "6 columns, dots": ("chr1\t5\t90\t.\t.\t+\n", Format.BED),
    "12 columns": ("chr1\t5\t90\tgene\t0\t+\t5\t90\t0\t1\t85\t0\n", Format.BED),
    "narrowPeak": ("chr1\t5\t90\tp\t60\t.\t5.5\t3.2\t-1\t40\n", Format.BED),
    "tagAlign": ("chr21\t45562660\t45562706\tN\t1000\t-\n", Format.BED),
    "BEDPE of MACS": ("chr22\t16052505\t16052890\n", Format.BED),
    "a name that looks like a barcode": ("chr1\t5\t90\tACGTACGT\t60\t-\n", Format.BED),
    "BEDPE of 10 columns": ("chr1\t5\t90\tchr1\t200\t290\tpair\t60\t+\t-\n", Format.BEDPE),
    "BEDPE of 6 columns": ("chr1\t5\t90\tchr1\t200\t290\n", Format.BEDPE),
    "BEDPE, second mate unmapped": ("chr1\t5\t90\t.\t-1\t-1\tpair\t60\t+\t.\n", Format.BEDPE),
    "BEDPE, first mate unmapped": (".\t-1\t-1\tchr1\t5\t90\tpair\t60\t.\t+\n", Format.BEDPE),
    "fragments": ("chr1\t5\t90\tAAACGAAAGACTCGGA-1\t2\n", Format.FRAGMENTS),
    "fragments with a header": (f"{CELLRANGER}chr1\t5\t90\tAAACGAAAGACTCGGA-1\t2\n", Format.FRAGMENTS),
    "fragments without a suffix": ("chr1\t5\t90\tAAACGAAAGACTCGGA\t1\n", Format.FRAGMENTS),
    "bedGraph": ("chr1\t5\t90\t1.25\n", Format.BEDGRAPH),
    "bedGraph, whole": ("chr1\t5\t90\t7\n", Format.BEDGRAPH),
    "bedGraph, negative": ("chr1\t5\t90\t-7e-05\n", Format.BEDGRAPH),
    "bedGraph, not a number": ("chr1\t5\t90\tnan\n", Format.BEDGRAPH),
    "bedGraph of a browser": ("browser position chr1\ntrack type=bedGraph\nchr1\t5\t90\t1.25\n", Format.BEDGRAPH),
    "BED of a browser": ("browser position chr1\ntrack name=x\n#c\n\nchr1\t5\t90\n", Format.BED),
    "SAM": ("@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:1000\n", Format.SAM),
    "SAM that begins with its program": ("@PG\tID:bwa\n", Format.SAM),
    "FASTA": (">chr1 assembly\nACGT\n", Format.FASTA),
    "FASTQ": (FASTQ, Format.FASTQ),
    "a contig that is a number": ("1\t5\t90\n", Format.BED),
    "empty": ("", Format.OTHER),
    "one line end": ("\n", Format.OTHER),
    "comments alone": ("#chrom\tstart\tend\n", Format.OTHER),
    "prose": ("hello, world\n", Format.OTHER),
    "GTF": ('chr1\tHAVANA\tgene\t5\t90\t.\t+\t.\tgene_id "x";\n', Format.OTHER),
    "VCF": ("##fileformat=VCFv4.2\nchr1\t5\t.\tA\tC\n", Format.OTHER),
    "chrom.sizes": ("chr1\t248956422\n", Format.OTHER),
    "starts that are no numbers": ("chr1\tx\t90\n", Format.OTHER),
    "starts that are no whole numbers": ("chr1\t5.0\t90.0\n", Format.OTHER),
    "a sample sheet": ("biosample\tassay\tfile\nb\tH3K4me3\ta.bam\n", Format.OTHER),
}


def bgzipped(text: bytes, path: Path) -> bytes:
    with pysam.BGZFile(str(path), "wb") as handle:
        handle.write(text)
    return path.read_bytes()


@pytest.mark.parametrize("packed", ["plain", "gzip", "bgzip"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("case", TEXTS)
def test_text_is_recognised_by_its_first_line_whatever_its_name_and_packing(tmp_path, case, ends, packed):
    text, expected = TEXTS[case]
    content = text.replace("\n", ends).encode()
    if packed == "gzip":
        content = gzip.compress(content)
    elif packed == "bgzip":
        content = bgzipped(content, tmp_path / "packed")
    for name in NAMES:
        (tmp_path / name).write_bytes(content)
        assert recognise(tmp_path / name) is expected
        assert is_compressed(tmp_path / name) is (packed != "plain")


@pytest.mark.parametrize("case", [case for case, (_, kind) in TEXTS.items() if kind not in (Format.OTHER, Format.SAM)])
def test_a_missing_last_line_end_and_spaces_for_tabs_change_nothing(tmp_path, case):
    text, expected = TEXTS[case]
    for content in (text.rstrip("\n"), text.replace("\t", " "), text.replace("\t", "   ")):
        (tmp_path / "a").write_text(content)
        assert recognise(tmp_path / "a") is expected


def write_bam(path: Path, mode: str, **options: object) -> None:
    with pysam.AlignmentFile(str(path), mode, header=HEADER, **options):
        pass


def write_bigwig(path: Path) -> None:
    with pyBigWig.open(str(path), "w") as track:
        track.addHeader([("chr1", 100)])
        track.addEntries("chr1", 0, values=[1.0], span=25, step=25)


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as store:
        store["x"] = np.arange(3)


BINARY: dict[str, tuple[Callable[[Path], object], Format]] = {
    "BAM without reads": (lambda path: write_bam(path, "wb"), Format.BAM),
    "BAM, not compressed": (lambda path: write_bam(path, "wb0"), Format.BAM),
    "SAM": (lambda path: write_bam(path, "wh"), Format.SAM),
    "BAM": (lambda path: path.write_bytes((TEST_DATA / "sim1.H3K4me3.bam").read_bytes()), Format.BAM),
    "CRAM": (lambda path: path.write_bytes((TEST_DATA / "sim1.H3K4me3.cram").read_bytes()), Format.CRAM),
    "bigWig": (write_bigwig, Format.BIGWIG),
    "bigWig of the other byte order": (lambda path: path.write_bytes(b"\x88\x8f\xfc\x26" + bytes(60)), Format.BIGWIG),
    "bigBed": (lambda path: path.write_bytes(b"\xeb\xf2\x89\x87" + bytes(60)), Format.BIGBED),
    "bigBed of the other byte order": (lambda path: path.write_bytes(b"\x87\x89\xf2\xeb" + bytes(60)), Format.BIGBED),
    "HDF5": (write_hdf5, Format.HDF5),
    "FASTA, bgzip": (lambda path: path.write_bytes((TEST_DATA / "genome.fa.gz").read_bytes()), Format.FASTA),
    "zeros": (lambda path: path.write_bytes(bytes(1_000)), Format.OTHER),
    "PNG": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256))), Format.OTHER),
    "a ZIP": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(60)), Format.OTHER),
    "a broken gzip": (lambda path: path.write_bytes(b"\x1f\x8bjunk"), Format.DAMAGED),
}


@pytest.mark.parametrize("case", BINARY)
def test_binary_files_are_recognised_whatever_their_names(tmp_path, case):
    write, expected = BINARY[case]
    for name in ("a.bed", "a.bam", "a.sam.gz", "a"):
        write(tmp_path / name)
        assert recognise(tmp_path / name) is expected


def test_a_folder_or_a_missing_file_is_an_os_error(tmp_path):
    for path in (tmp_path, tmp_path / "none.bam"):
        with pytest.raises(OSError):
            recognise(path)


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\x1f\x8b", b"BAM\x01", b"@", b">", b"chr1\t5\t", b"\xef\xbb\xbf"])
)
def test_any_bytes_are_of_some_kind(tmp_path_factory, content, start):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(start + content)
    assert recognise(path) in Format
    assert columns_of(path) >= 0


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=8).filter(
    lambda text: not text.startswith(("#", "track", "browser", "@", ">", "\ufeff"))
)


@given(WORDS, st.integers(0, 10**12), st.integers(0, 10**12), st.lists(WORDS, max_size=9))
def test_columns_are_counted_as_by_split_and_lines_of_three_are_intervals(tmp_path_factory, name, start, end, others):
    fields = [name, str(start), str(end), *others]
    path = tmp_path_factory.getbasetemp() / "columns"
    for line in ("\t".join(fields), " ".join(fields)):
        path.write_text(f"#c\n{line}\nchr1\n", encoding="utf-8")
        assert columns_of(path) == len(fields)
        assert recognise(path) in (Format.BED, Format.BEDPE, Format.BEDGRAPH, Format.FRAGMENTS)
    assert is_interval(fields)
    assert not is_interval(fields[:2])
    assert not is_interval([name, f"{start}.5", str(end)])


def test_a_character_cut_at_the_end_of_what_is_looked_at_does_not_hide_the_text(tmp_path):
    for offset in range(4):
        line = f"chr1\t5\t90\t{'x' * offset}"
        (tmp_path / "a").write_text(line + "\U0001f9ec" * 40_000, encoding="utf-8")
        assert recognise(tmp_path / "a") is Format.BED


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_opened_is_the_content_before_compression(tmp_path, rng, packed):
    content = rng.bytes(300_000)
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(content[:100_000]) + gzip.compress(content[100_000:]) if packed else content)
    if not packed and content.startswith(b"\x1f\x8b"):
        return
    with open_decompressed(path) as handle:
        assert handle.read() == content


@pytest.mark.parametrize(
    "members",
    [[b"#header\n", b"chr1\t5\t90\n"], [b"", b"chr1\t5\t90\n"], [b"chr1\t", b"5\t90\n"]],
    ids=["comments", "nothing", "part of a line"],
)
def test_text_is_recognised_when_its_first_gzip_member_holds_no_whole_line(tmp_path, members):
    path = tmp_path / "a.bed.gz"
    path.write_bytes(b"".join(map(gzip.compress, members)))
    assert recognise(path) is Format.BED


def test_text_is_recognised_when_a_comment_or_a_name_is_not_in_utf_8(tmp_path):
    for content in ("#é\nchr1\t5\t90\n", "chr1\t5\t90\té\t0\t+\n"):
        (tmp_path / "a").write_bytes(content.encode("latin-1"))
        assert recognise(tmp_path / "a") is Format.BED


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/*.bam", Format.BAM),
        ("*/*/*.bam", Format.BAM),
        ("*/*.bedpe.gz", Format.BED),
        ("*/*.tagAlign.gz", Format.BED),
        ("GM12878_CTCF_hg19/*.bed.gz", Format.BED),
        ("*/*.fragments.tsv.gz", Format.FRAGMENTS),
        ("*/*.bw", Format.BIGWIG),
        ("*/*/*.bw", Format.BIGWIG),
        ("ref/fasta/*.fa*", Format.FASTA),
        ("ref/annot/*.bed*", Format.BED),
        ("*/*/*.*Peak", Format.BED),
        ("*/*.narrowPeak", Format.BED),
        ("*/*.bam.bai", Format.OTHER),
        ("ref/annot/*.sizes", Format.OTHER),
        ("*/*.gtf.gz", Format.OTHER),
        ("rna/*.tsv.gz", Format.OTHER),
    ],
)
def test_real_files_are_recognised(pattern, expected):
    paths = [path for path in REAL_DATA.glob(pattern) if path.suffix not in (".fai", ".gzi")]
    assert paths
    assert {path.name: recognise(path) for path in paths} == {path.name: expected for path in paths}
