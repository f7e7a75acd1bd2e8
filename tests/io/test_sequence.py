"""Base codes of a FASTA file, against pysam and the letters of the file itself."""

import gzip
import multiprocessing
import re
import shutil
from pathlib import Path

import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candi_cli.errors import SequenceError
from candi_cli.io.sequence import NOT_A_BASE, Sequence

TEST_DATA = Path(__file__).parents[2] / "test_data"
FASTA = TEST_DATA / "genome.fa.gz"
SIZES = {"chr1": 300_010, "chr2": 120_000}


def letters(codes) -> str:
    return "".join("ACGTN"[code] for code in codes)


@pytest.fixture(scope="module")
def genome() -> dict[str, str]:
    with pysam.FastxFile(str(FASTA)) as records:  # reads the file from its start, without an index
        return {record.name: record.sequence for record in records}


@pytest.mark.parametrize("chrom", SIZES)
def test_codes_are_the_letters_of_the_file(genome, chrom):
    with Sequence(FASTA) as sequence:
        assert sequence.chromsizes == {name: len(bases) for name, bases in genome.items()} == SIZES
        assert letters(sequence.codes(chrom, 0, SIZES[chrom])) == genome[chrom].upper()


@settings(deadline=None)
@given(st.integers(-200, 120_200), st.integers(0, 400))
def test_what_lies_outside_of_the_chromosome_is_not_a_base(genome, start, width):
    padded = "N" * 700 + genome["chr2"] + "N" * 700
    with Sequence(FASTA) as sequence:
        assert letters(sequence.codes("chr2", start, start + width)) == padded[start + 700 : start + width + 700]


def test_a_stretch_wholly_outside_is_all_not_a_base():
    with Sequence(FASTA) as sequence:
        for start in (-30, SIZES["chr2"], SIZES["chr2"] + 1_000_000):
            assert sequence.codes("chr2", start, start + 30).tolist() == [NOT_A_BASE] * 30


def test_the_gap_of_the_test_genome_has_no_base():
    with Sequence(FASTA) as sequence:
        around = sequence.codes("chr1", 149_990, 153_010)
    assert (around[10:-10] == NOT_A_BASE).all()
    assert (around[[9, -10]] != NOT_A_BASE).all()


def test_lower_case_counts_and_every_other_letter_is_not_a_base(tmp_path):
    path = tmp_path / "a.fa"
    path.write_text(">one described\nACGTacgt\nNnRYKMSW\nBDHV-*Uu\n>two\r\nTT\r\nG")
    with Sequence(path) as sequence:
        assert sequence.chromsizes == {"one": 24, "two": 3}
        assert sequence.codes("one", 0, 24).tolist() == [0, 1, 2, 3] * 2 + [NOT_A_BASE] * 16
        assert letters(sequence.codes("two", -1, 4)) == "NTTGN"


@pytest.mark.parametrize(("name", "kept"), [("genome.fa.gz", []), ("genome.fa.gz", [".fai"]), ("genome.fa", [])])
def test_a_missing_index_is_made_elsewhere_and_cleaned_up(tmp_path, monkeypatch, genome, name, kept):
    folder, scratch = tmp_path / "data", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    path = folder / name
    path.write_bytes(FASTA.read_bytes() if name.endswith(".gz") else gzip.decompress(FASTA.read_bytes()))
    for suffix in kept:
        shutil.copy(f"{FASTA}{suffix}", f"{path}{suffix}")
    before = sorted(folder.iterdir())
    folder.chmod(0o555)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with Sequence(path) as sequence:
        assert letters(sequence.codes("chr2", 7_000, 7_100)) == genome["chr2"][7_000:7_100]
        assert list(scratch.rglob("*.fai"))
    folder.chmod(0o755)
    assert sorted(folder.iterdir()) == before
    assert not list(scratch.iterdir())


def gzipped(text: str) -> bytes:
    return gzip.compress(text.encode())


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "no such file"),
        (b"", "not a FASTA"),
        (b"hello\nworld\n", "not a FASTA"),
        (b">one\nACGT\nA\nACGT\n", "not a FASTA"),
        (gzipped(">one\nACGT\n"), "gzip rather than bgzip"),
        (FASTA.read_bytes()[:50_000], "not a FASTA"),
    ],
    ids=["missing", "empty", "text", "uneven lines", "plain gzip", "truncated"],
)
def test_a_file_that_cannot_be_indexed_is_refused_by_name(tmp_path, monkeypatch, content, fact):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = tmp_path / "a.fa"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SequenceError, match=rf"^{re.escape(str(path))}: .*{fact}"):
        Sequence(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ([] if content is None else ["a.fa"])


def test_a_folder_is_refused_by_name(tmp_path):
    with pytest.raises(SequenceError, match=rf"^{re.escape(str(tmp_path))}: "):
        Sequence(tmp_path)


@pytest.mark.parametrize("damage", ["a truncated file", "the index of another file"])
def test_bases_that_cannot_be_fetched_are_an_error_that_names_the_file(tmp_path, damage):
    path = tmp_path / FASTA.name
    content = FASTA.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == "a truncated file" else content)
    for suffix in (".fai", ".gzi"):
        shutil.copy(f"{FASTA}{suffix}", f"{path}{suffix}")
    if damage == "the index of another file":
        Path(f"{path}.fai").write_text("chr1\t600000\t6\t60\t61\n")
    with Sequence(path) as sequence, pytest.raises(SequenceError, match=rf"^{re.escape(str(path))}: "):
        sequence.codes("chr1", 0, sequence.chromsizes["chr1"])


def codes_of(fasta, asked, answers):
    answers.put([fasta.codes(*span).tolist() for span in asked])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_that_were_given_an_open_fasta_read_the_same_bases(method, rng):
    asked = [("chr1", int(start), int(start) + 3_000) for start in rng.integers(0, 290_000, 150)]
    context = multiprocessing.get_context(method)
    with Sequence(FASTA) as fasta:
        fasta.name_as({"chr1": fasta.chromsizes["chr1"]}, source="the test")
        expected = [fasta.codes(*span).tolist() for span in asked]
        answers = context.Queue()
        processes = [context.Process(target=codes_of, args=(fasta, asked, answers)) for _ in range(2)]
        for process in processes:
            process.start()
        assert [fasta.codes(*span).tolist() for span in asked] == expected  # while they read
        assert [answers.get(timeout=60) for _ in processes] == [expected] * 2
        for process in processes:
            process.join(timeout=60)
            assert process.exitcode == 0
        assert [fasta.codes(*span).tolist() for span in asked] == expected
