"""`candi bin` through its command line: the same reads make the same store, whatever file and name they come in."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pyBigWig
import pysam
import pytest

from candi_cli.counting import CountingRule
from candi_cli.covariates import COLUMNS
from candi_cli.store import Store

TEST_DATA = Path(__file__).parents[2] / "test_data"
FASTA = TEST_DATA / "genome.fa.gz"
SIZES = TEST_DATA / "chrom.sizes"
BAM = TEST_DATA / "sim2.H3K4me3.bam"
CHROMSIZES = {"chr1": 300_010, "chr2": 120_000}
KEPT = 0x4 | 0x100 | 0x200 | 0x400 | 0x800  # flags of reads that the default leaves out


@pytest.fixture
def bins(candi, tmp_path):
    """Run `candi bin` on rows of a sheet and return the store's path."""

    def run(rows: str, *arguments: object, columns: str = "biosample assay file", code: int = 0) -> Path:
        sheet, store = tmp_path / "sheet.tsv", tmp_path / "s.h5"
        lines = [columns.split(), *(line.split() for line in rows.strip().splitlines())]
        sheet.write_text("".join("\t".join(line) + "\n" for line in lines))
        ran = candi("bin", "--covariates", sheet, "-o", store, *arguments)
        assert ran.code == code, ran.err
        return store

    return run


def layers(path: Path, experiment: str = "x/H3K4me3") -> dict[str, np.ndarray]:
    """Return every dataset of an experiment as HDF5 itself reads it."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file["biosamples"][experiment].visititems(
            lambda name, item: found.update({name: item[:]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def attribute(path: Path, name: str, experiment: str = "x/H3K4me3") -> dict:
    with h5py.File(path) as file:
        return json.loads(file[f"biosamples/{experiment}"].attrs[name])


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    assert one
    for name, values in one.items():
        assert values.dtype == other[name].dtype
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def kept_reads(path: Path) -> list[pysam.AlignedSegment]:
    with pysam.AlignmentFile(str(path)) as file:
        return [read for read in file if not read.flag & KEPT and read.mapping_quality >= 30]


def write_bed(path: Path, source: Path = BAM, *, names: dict[str, str] | None = None) -> Path:
    """Write the reads that the default keeps as BED of six fields."""
    lines = [
        f"{(names or {}).get(read.reference_name, read.reference_name)}\t{read.reference_start}\t{read.reference_end}"
        f"\t{read.query_name}\t0\t{'-' if read.is_reverse else '+'}\n"
        for read in kept_reads(source)
    ]
    text = "".join(lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def renamed_bam(path: Path, names: dict[str, str], source: Path = BAM) -> Path:
    """Write a BAM with other names of its contigs."""
    with pysam.AlignmentFile(str(source)) as file:
        header = file.header.to_dict()
        for contig in header["SQ"]:
            contig["SN"] = names.get(contig["SN"], contig["SN"])
        with pysam.AlignmentFile(str(path), "wb", header=header) as out:
            for read in file:
                fields = read.to_dict()
                for key in ("ref_name", "next_ref_name"):
                    fields[key] = names.get(fields[key], fields[key])
                out.write(pysam.AlignedSegment.from_dict(fields, out.header))
    return path


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, np.ndarray]:
    """The layers that the BAM gives."""
    from candi_cli.commands import main

    folder = tmp_path_factory.mktemp("expected")
    (folder / "sheet.tsv").write_text(f"biosample\tassay\tfile\nx\tH3K4me3\t{BAM}\n")
    assert main(["bin", "--covariates", str(folder / "sheet.tsv"), "-o", str(folder / "s.h5"), "--quiet"]) == 0
    return layers(folder / "s.h5")


def test_counts_are_those_of_a_loop_over_the_reads(expected):
    counts = {chrom: np.zeros(-(-length // 25), dtype=np.int64) for chrom, length in CHROMSIZES.items()}
    for read in kept_reads(BAM):
        counts[read.reference_name][read.reference_start // 25 : (read.reference_end - 1) // 25 + 1] += 1
    for chrom, values in counts.items():
        np.testing.assert_array_equal(expected[f"counts/{chrom}"], values)
        np.testing.assert_array_equal(expected[f"folds/{chrom}"].sum(axis=0), values)


# --- what reads come in


@pytest.mark.parametrize("kind", ["SAM", "SAM.gz", "CRAM", "BED", "BED.gz", "named .txt"])
def test_every_format_gives_the_store_of_the_bam(bins, expected, tmp_path, kind):
    options: list[object] = []
    path = tmp_path / f"reads.{kind.lower()}"
    if kind.startswith("SAM"):
        text = pysam.view("-h", str(BAM)).encode()
        path.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    elif kind == "CRAM":
        pysam.view("-C", "-T", str(FASTA), "-o", str(path), str(BAM), catch_stdout=False)
        options = ["-T", FASTA]
    elif kind.startswith("BED"):
        write_bed(path)
        options = ["-g", SIZES]
    else:
        path = Path(shutil.copy(BAM, tmp_path / "reads.txt"))
    same(layers(bins(f"x H3K4me3 {path}", *options)), expected)


def piped(content: bytes, tmp_path: Path, *options: object) -> tuple[subprocess.CompletedProcess, Path]:
    """Run the command with reads on its stdin."""
    sheet, store = tmp_path / "piped.tsv", tmp_path / "piped.h5"
    sheet.write_text("biosample\tassay\nx\tH3K4me3\n")
    command = [sys.executable, "-m", "candi_cli", "bin", "-", "--covariates", sheet, "-o", store, *options]
    return subprocess.run([str(word) for word in command], input=content, capture_output=True, timeout=60), store


@pytest.mark.parametrize("kind", ["BAM", "CRAM", "BED"])
def test_reads_through_a_pipe_give_the_store_of_the_file(expected, tmp_path, kind):
    scratch = tmp_path / "scratch"
    if kind == "BAM":
        content, options = BAM.read_bytes(), []
    elif kind == "CRAM":
        pysam.view("-C", "-T", str(FASTA), "-o", str(scratch), str(BAM), catch_stdout=False)
        content, options = scratch.read_bytes(), ["-T", FASTA]
    else:
        content, options = write_bed(scratch).read_bytes(), ["-g", SIZES]
    ran, store = piped(content, tmp_path, *options)
    assert ran.returncode == 0, ran.stderr
    same(layers(store), expected)
    assert ran.stdout == b""


def test_an_empty_pipe_is_told_as_such(tmp_path):
    ran, store = piped(b"", tmp_path)
    assert ran.returncode == 1
    (line,) = ran.stderr.decode().splitlines()
    assert line.startswith("candi bin: ")
    assert "empty" in line
    assert "stdin" in line or "-:" in line
    assert not store.exists()


def test_what_is_wrong_on_stdin_is_said_of_stdin_and_not_of_a_temporary_file(tmp_path):
    ran, store = piped(BAM.read_bytes()[:30_000], tmp_path)
    assert ran.returncode == 1
    (line,) = ran.stderr.decode().splitlines()
    assert "truncated" in line
    assert "/candi-" not in line
    assert not store.exists()


def test_the_sheet_of_a_pipe_names_the_pipe(tmp_path):
    ran, _ = piped(BAM.read_bytes(), tmp_path, "--print-sheet")
    assert ran.returncode == 0
    header, row = (line.split("\t") for line in ran.stdout.decode().splitlines())
    assert dict(zip(header, row, strict=True))["file"] == "-"


def test_stdin_in_the_file_column_is_the_pipe_too(bins, expected, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BAM.read_bytes())))
    same(layers(bins("x H3K4me3 -")), expected)


def test_stdin_of_two_rows_is_refused(candi, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BAM.read_bytes())))
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text("biosample\tassay\tfile\nx\tH3K4me3\t-\nx\tH3K9me3\t-\n")
    ran = candi("bin", "--covariates", sheet, "-o", tmp_path / "s.h5")
    assert ran.code in (1, 2)
    assert len(ran.errors) == 1
    assert "stdin" in ran.err
    assert "/candi-" not in ran.err


def test_a_terminal_is_no_stdin_of_reads(candi, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text("biosample\tassay\nx\tH3K4me3\n")
    ran = candi("bin", "-", "--covariates", sheet, "-o", tmp_path / "s.h5")
    assert ran.code == 2
    assert len(ran.errors) == 1
    assert "terminal" in ran.err


# --- the sheet that is printed


def rows_of(text: str) -> dict[str, dict[str, str]]:
    header, *rows = (line.split("\t") for line in text.splitlines())
    assert tuple(header) == COLUMNS
    return {f"{row[0]}/{row[1]}": dict(zip(header, row, strict=True)) for row in rows}


def test_the_printed_sheet_binned_again_gives_the_same_store(candi, tmp_path):
    first = candi("bin", "--covariates", TEST_DATA / "meta.tsv", "-o", tmp_path / "one.h5", "--print-sheet")
    assert first.code == 0
    assert all(row["depth"] != "NA" and row["read_length"] != "NA" for row in rows_of(first.out).values())
    (tmp_path / "printed.tsv").write_text(first.out)
    second = candi("bin", "--covariates", tmp_path / "printed.tsv", "-o", tmp_path / "two.h5", "--print-sheet")
    assert second.code == 0
    assert second.out == first.out
    with h5py.File(tmp_path / "one.h5") as one, h5py.File(tmp_path / "two.h5") as two:
        for name in rows_of(first.out):
            a, b = (dict(file[f"biosamples/{name}"].attrs) for file in (one, two))
            assert a.keys() == b.keys()
            for key, value in a.items():
                np.testing.assert_array_equal(value, b[key])
            same(layers(tmp_path / "one.h5", name), layers(tmp_path / "two.h5", name))


def test_without_an_output_the_sheet_is_printed_and_no_file_is_made(candi, tmp_path, monkeypatch):
    folder, scratch = tmp_path / "here", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    ran = candi("bin", "--covariates", TEST_DATA / "meta_one.tsv", "--print-sheet")
    assert ran.code == 0
    assert rows_of(ran.out)["sim1/H3K4me3"]["depth"] == "15264"
    assert list(folder.iterdir()) == list(scratch.iterdir()) == []


def test_without_an_output_nothing_is_said_of_parts_that_are_gone(candi, tmp_path, monkeypatch):
    shutil.copy(BAM, tmp_path / "good.bam")
    (tmp_path / "bad.bam").write_bytes(BAM.read_bytes()[:30_000])
    (tmp_path / "sheet.tsv").write_text("biosample\tassay\tfile\nx\ta\tgood.bam\nx\tb\tbad.bam\n")
    monkeypatch.chdir(tmp_path)
    ran = candi("bin", "--covariates", "sheet.tsv", "--print-sheet")
    assert (ran.code, ran.out) == (1, "")
    assert "bad.bam" in ran.errors[-1]
    assert "next run" not in ran.err


def test_what_the_sheet_states_is_printed_as_it_was_stated(bins, candi, tmp_path):
    row = f"x H3K4me3 {BAM} 5M 75 PE HiSeq-2000 ENCDO1 heart test"
    bins(row, "--print-sheet", columns="biosample assay file depth read_length run_type platform donor tissue split")
    ran = candi("bin", "--covariates", tmp_path / "sheet.tsv", "--print-sheet")
    printed = rows_of(ran.out)["x/H3K4me3"]
    assert {key: cell for key, cell in printed.items() if cell != "NA"} == {
        "biosample": "x", "assay": "H3K4me3", "file": str(BAM), "depth": "5000000", "read_length": "75",
        "run_type": "paired-ended", "platform": "Illumina HiSeq 2000", "donor": "ENCDO1", "tissue": "heart",
        "split": "test",
    }  # fmt: skip


# --- what the sheet says


def test_donor_tissue_and_split_are_kept(bins):
    store = bins(
        f"x H3K4me3 {BAM} ENCDO1 heart VAL\nx H3K9me3 {BAM} NA NA train",
        columns="biosample assay file donor tissue split",
    )
    assert attribute(store, "origin") == {"donor": "ENCDO1", "tissue": "heart", "split": "validation"}
    assert attribute(store, "origin", "x/H3K9me3") == {"donor": None, "tissue": None, "split": "train"}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_files_whose_md5_sums_are_right_are_counted(bins, expected):
    signal, peaks = TEST_DATA / "sim1.H3K4me3.bw", TEST_DATA / "sim1.H3K4me3.narrowPeak"
    store = bins(
        f"x H3K4me3 {BAM} {signal} {peaks} {md5(BAM).upper()} {md5(signal)} {md5(peaks)}",
        columns="biosample assay file signal peaks md5 signal_md5 peaks_md5",
    )
    found = layers(store)
    same({name: values for name, values in found.items() if not name.startswith(("signal", "peaks"))}, expected)


@pytest.mark.parametrize("wrong", ["file", "signal", "peaks"])
def test_a_wrong_md5_sum_of_any_file_is_told(candi, tmp_path, wrong):
    files = {"file": BAM, "signal": TEST_DATA / "sim1.H3K4me3.bw", "peaks": TEST_DATA / "sim1.H3K4me3.narrowPeak"}
    sums = {name: md5(BAM if name == wrong and name != "file" else path) for name, path in files.items()}
    if wrong == "file":
        sums["file"] = md5(files["signal"])
    sheet = tmp_path / "sheet.tsv"
    columns = ["biosample", "assay", *files, "md5", "signal_md5", "peaks_md5"]
    sheet.write_text(
        "\t".join(columns) + "\n" + "\t".join(["x", "a", *map(str, files.values()), *sums.values()]) + "\n"
    )
    ran = candi("bin", "--covariates", sheet, "-o", tmp_path / "s.h5")
    assert ran.code == 1
    (line,) = ran.errors
    assert line.startswith(f"candi bin: {files[wrong]}: its MD5 sum is {md5(files[wrong])}, ")
    assert sums[wrong] in line
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.tsv"]


def test_an_md5_sum_without_its_file_is_told(candi, tmp_path):
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(f"biosample\tassay\tfile\tsignal_md5\nx\ta\t{BAM}\t{'a' * 32}\n")
    ran = candi("bin", "--covariates", sheet, "-o", tmp_path / "s.h5")
    assert ran.code == 1
    assert ran.errors == [f"candi bin: {sheet}:2: signal_md5: given without signal; name the file or write NA"]


def test_a_metadata_tsv_of_the_portal_is_binned_as_downloaded(candi, tmp_path, expected):
    columns = (
        "File accession", "File format", "File type", "File format type", "Output type", "File assembly",
        "Experiment accession", "Assay", "Donor(s)", "Biosample term name", "Biosample type", "Experiment target",
        "Biological replicate(s)", "Technical replicate(s)", "Read length", "Run type", "Derived from", "Lab",
        "md5sum", "Platform", "File Status", "File analysis title", "File analysis status",
    )  # fmt: skip

    def row(accession: str, kind: str, output: str, path: Path | None, derived: str, *, target="H3K4me3-human"):
        control = not target
        cells = {
            "File accession": accession, "File format": kind, "File type": kind.split()[0], "Output type": output,
            "File assembly": "" if kind == "fastq" else "GRCh38",
            "Experiment accession": "ENCSR2CC" if control else "ENCSR1AA",
            "Assay": "Control ChIP-seq" if control else "Histone ChIP-seq", "Donor(s)": "/human-donors/ENCDO1/",
            "Biosample term name": "K562", "Experiment target": target, "Biological replicate(s)": "1",
            "Derived from": derived, "Lab": "A Lab", "md5sum": md5(path) if path else "0" * 32,
            "File Status": "released", "Read length": "36" if kind == "fastq" else "",
            "Run type": "single-ended" if kind == "fastq" else "",
            "Platform": "Illumina HiSeq 2000" if kind == "fastq" else "",
            "File analysis title": "" if kind == "fastq" else "ENCODE4 v1.6.0 GRCh38",
            "File analysis status": "" if kind == "fastq" else "released",
        }  # fmt: skip
        if path is not None:
            shutil.copy(path, tmp_path / f"{accession}.{ {'bam': 'bam', 'bigWig': 'bigWig'}.get(kind, 'bed.gz') }")
        return "\t".join(cells.get(column, "") for column in columns)

    peaks = tmp_path.parent / "peaks.bed.gz"
    peaks.write_bytes(gzip.compress((TEST_DATA / "sim1.H3K4me3.narrowPeak").read_bytes()))
    lines = [
        "\t".join(columns),
        row("ENCFF1FQ", "fastq", "reads", None, ""),
        row("ENCFF1BM", "bam", "alignments", BAM, "/files/ENCFF1FQ/"),
        row("ENCFF1SG", "bigWig", "signal p-value", TEST_DATA / "sim1.H3K4me3.bw", "/files/ENCFF1BM/"),
        row("ENCFF1PK", "bed narrowPeak", "pseudoreplicated peaks", peaks, "/files/ENCFF1BM/"),
        row("ENCFF2FQ", "fastq", "reads", None, "", target=""),
        row("ENCFF2BM", "bam", "alignments", TEST_DATA / "sim1.control.bam", "/files/ENCFF2FQ/", target=""),
    ]
    metadata, store = tmp_path / "metadata.tsv", tmp_path / "s.h5"
    metadata.write_text("\n".join(lines) + "\n")
    ran = candi("bin", "--covariates", metadata, "-o", store)
    assert ran.code == 0, ran.err
    with h5py.File(store) as file:
        (biosample,) = file["biosamples"]
        assert set(file["biosamples"][biosample]) == {"H3K4me3", "control"}
    name = f"{biosample}/H3K4me3"
    found = layers(store, name)
    assert {key.split("/")[0] for key in found} == {"counts", "folds", "signal", "signal_spans", "peaks", "blocks"}
    same({key: found[key] for key in expected}, expected)
    assert attribute(store, "covariates", name)["platform"] == "Illumina HiSeq 2000"
    assert [item["name"] for item in attribute(store, "sources", name)] == [
        "ENCFF1BM.bam", "ENCFF1SG.bigWig", "ENCFF1PK.bed.gz",
    ]  # fmt: skip
    (tmp_path / "ENCFF1SG.bigWig").write_bytes((TEST_DATA / "sim1.H3K36me3.bw").read_bytes())
    ran = candi("bin", "--covariates", metadata, "-o", store, "--quiet")  # another file than the portal's
    assert ran.code == 1
    assert "ENCFF1SG.bigWig: its MD5 sum is" in ran.errors[-1]


# --- layers that come alone, and other forms of them


@pytest.mark.parametrize("options", [(), ("-g", SIZES), ("-T", FASTA)], ids=["its own lengths", "-g", "-T"])
def test_signal_may_come_alone(bins, options):
    track = TEST_DATA / "sim1.H3K4me3.bw"
    store = bins(f"x H3K4me3 {track}", *options, columns="biosample assay signal")
    found = layers(store)
    assert found.keys() == {f"{layer}/{chrom}" for layer in ("signal", "signal_spans") for chrom in ("chr1", "chr2")}
    with pyBigWig.open(str(track)) as opened:
        for chrom, length in CHROMSIZES.items():
            means = opened.stats(chrom, 0, length // 25 * 25, nBins=length // 25, exact=True)
            np.testing.assert_allclose(found[f"signal/{chrom}"][: length // 25], means, rtol=1e-5)


@pytest.mark.parametrize("options", [("-g", SIZES), ("-T", FASTA)], ids=["-g", "-T"])
def test_peaks_may_come_alone(bins, options):
    path = TEST_DATA / "sim1.H3K4me3.narrowPeak"
    found = layers(bins(f"x H3K4me3 {path}", *options, columns="biosample assay peaks"))
    assert found.keys() == {"peaks/chr1", "peaks/chr2"}
    covered = np.zeros(300_010, dtype=bool)
    for line in path.read_text().splitlines():
        chrom, start, end, *_ = line.split("\t")
        if chrom == "chr1":
            covered[int(start) : int(end)] = True
    padded = np.pad(covered, (0, 15)).reshape(-1, 25).any(axis=1)
    np.testing.assert_array_equal(found["peaks/chr1"], padded)


def test_peaks_without_lengths_of_chromosomes_are_told(candi, tmp_path):
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(f"biosample\tassay\tpeaks\nx\tH3K4me3\t{TEST_DATA / 'sim1.H3K4me3.narrowPeak'}\n")
    ran = candi("bin", "--covariates", sheet, "-o", tmp_path / "s.h5")
    assert ran.code == 1
    (line,) = ran.errors
    assert "-g" in line


def test_one_cohort_holds_reads_signal_and_peaks_alone(bins):
    rows = (
        f"x a {BAM} NA NA\nx b NA {TEST_DATA / 'sim1.H3K4me3.bw'} NA\n"
        f"y c NA NA {TEST_DATA / 'sim1.H3K4me3.narrowPeak'}\n"
    )
    store = bins(rows, columns="biosample assay file signal peaks")
    assert {name.split("/")[0] for name in layers(store, "x/b")} == {"signal", "signal_spans"}
    assert {name.split("/")[0] for name in layers(store, "y/c")} == {"peaks"}


def write_bedgraph(path: Path, *, names: dict[str, str] | None = None) -> Path:
    lines = []
    with pyBigWig.open(str(TEST_DATA / "sim1.H3K4me3.bw")) as track:
        for chrom in track.chroms():
            for start, end, value in track.intervals(chrom):
                lines.append(f"{(names or {}).get(chrom, chrom)}\t{start}\t{end}\t{value!r}\n")
    text = ("track type=bedGraph\n" + "".join(lines)).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("suffix", [".bedGraph", ".gz"])
def test_a_bedgraph_gives_the_signal_of_the_bigwig(bins, tmp_path, suffix):
    columns = "biosample assay signal"
    track = layers(bins(f"x H3K4me3 {TEST_DATA / 'sim1.H3K4me3.bw'}", "-g", SIZES, columns=columns))
    text = layers(bins(f"x H3K4me3 {write_bedgraph(tmp_path / f's{suffix}')}", "-g", SIZES, columns=columns))
    assert track.keys() == text.keys()
    for name, values in track.items():
        np.testing.assert_allclose(text[name], values, rtol=1e-6)


# --- names of contigs

ENSEMBL = {"chr1": "1", "chr2": "2"}
ODD = {"chr1": "contig_A", "chr2": "contig_B"}


def renamed_inputs(folder: Path, names: dict[str, str]) -> dict[str, Path]:
    """Return reads as BAM and BED, signal as bigWig and bedGraph, peaks and a FASTA, their contigs renamed."""
    found = {
        "bam": renamed_bam(folder / "renamed.bam", names),
        "bed": write_bed(folder / "renamed.bed", names=names),
        "bedgraph": write_bedgraph(folder / "renamed.bg", names=names),
        "bigwig": folder / "renamed.bw",
        "peaks": folder / "renamed.narrowPeak",
        "fasta": folder / "renamed.fa",
    }
    with pyBigWig.open(str(TEST_DATA / "sim1.H3K4me3.bw")) as old, pyBigWig.open(str(found["bigwig"]), "w") as new:
        new.addHeader([(names[chrom], length) for chrom, length in old.chroms().items()])
        for chrom in old.chroms():
            starts, ends, values = zip(*old.intervals(chrom), strict=True)
            new.addEntries([names[chrom]] * len(starts), list(starts), ends=list(ends), values=list(values))
    text = (TEST_DATA / "sim1.H3K4me3.narrowPeak").read_text()
    found["peaks"].write_text(
        "".join(f"{names[line.split()[0]]}\t{line.partition(chr(9))[2]}\n" for line in text.splitlines())
    )
    sequence = gzip.decompress(FASTA.read_bytes()).decode()
    for chrom, name in names.items():
        sequence = sequence.replace(f">{chrom}", f">{name}")
    found["fasta"].write_text(sequence)
    return found


@pytest.fixture
def reference_layers(bins) -> dict[str, np.ndarray]:
    row = f"x H3K4me3 {BAM} {TEST_DATA / 'sim1.H3K4me3.bw'} {TEST_DATA / 'sim1.H3K4me3.narrowPeak'}"
    return layers(bins(row, columns="biosample assay file signal peaks"))


@pytest.mark.parametrize("reads", ["bam", "bed"])
@pytest.mark.parametrize("signal", ["bigwig", "bedgraph"])
def test_aliases_of_a_user_join_reads_signal_peaks_and_fasta(bins, reference_layers, tmp_path, reads, signal):
    files = renamed_inputs(tmp_path, ODD)
    (tmp_path / "aliases.tsv").write_text("# ucsc\tours\n" + "".join(f"{a}\t{b}\n" for a, b in ODD.items()))
    row = f"x H3K4me3 {files[reads]} {files[signal]} {files['peaks']}"
    options = ["-g", SIZES, "-T", files["fasta"], "--aliases", tmp_path / "aliases.tsv"]
    found = layers(bins(row, *options, columns="biosample assay file signal peaks"))
    assert found.keys() == reference_layers.keys()
    for name, values in reference_layers.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


def test_without_aliases_such_names_are_told_from_both_sides(candi, tmp_path):
    files = renamed_inputs(tmp_path, ODD)
    sheet = tmp_path / "sheet.tsv"
    for column, kind in (
        ("file", "bam"),
        ("file", "bed"),
        ("signal", "bigwig"),
        ("signal", "bedgraph"),
        ("peaks", "peaks"),
    ):
        reads = "" if column == "file" else f"\t{BAM}"
        header = "biosample\tassay" + ("\tfile" if reads else "") + f"\t{column}\n"
        sheet.write_text(f"{header}x\tH3K4me3{reads}\t{files[kind]}\n")
        ran = candi("bin", "--covariates", sheet, "-g", SIZES, "-o", tmp_path / "s.h5", "--quiet")
        assert ran.code == 1
        (line,) = ran.errors
        assert line.startswith(f"candi bin: {files[kind]}: ")
        assert "contig_A" in line or "shares no chromosome" in line
        assert not (tmp_path / "s.h5").exists()


def hg38_file(path: Path, kind: str, names: list[str]) -> Path:
    """Write one read, value or peak on each of hg38's chr21 and chrM, by other names."""
    lengths = dict(zip(names, (46_709_983, 16_569), strict=True))
    if kind == "bam":
        header = {"HD": {"VN": "1.6"}, "SQ": [{"SN": name, "LN": length} for name, length in lengths.items()]}
        with pysam.AlignmentFile(str(path), "wb", header=header) as file:
            for number in range(2):
                read = pysam.AlignedSegment(file.header)
                read.query_name, read.flag, read.reference_id, read.reference_start = "r", 0, number, 1_000
                read.mapping_quality, read.cigarstring, read.query_sequence = 60, "36M", "A" * 36
                file.write(read)
    elif kind == "bigwig":
        with pyBigWig.open(str(path), "w") as track:
            track.addHeader(list(lengths.items()))
            for name in names:
                track.addEntries([name], [1_000], ends=[1_036], values=[7.0])
    else:
        tail = {"bed": "\tr\t0\t+", "bedgraph": "\t7.0", "peaks": ""}[kind]
        path.write_text("".join(f"{name}\t1000\t1036{tail}\n" for name in names))
    return path


@pytest.mark.parametrize("kind", ["bam", "bed", "bigwig", "bedgraph", "peaks"])
@pytest.mark.parametrize("names", [["21", "MT"], ["NC_000021.9", "NC_012920.1"], ["CM000683.2", "J01415.2"]], ids=str)
def test_the_package_knows_the_names_of_ensembl_refseq_and_genbank(bins, tmp_path, kind, names):
    (tmp_path / "hg38.sizes").write_text("chr21\t46709983\nchrM\t16569\n")
    path = hg38_file(tmp_path / "f", kind, names)
    column = {"bam": "file", "bed": "file", "bigwig": "signal", "bedgraph": "signal", "peaks": "peaks"}[kind]
    anchor = hg38_file(tmp_path / "anchor.bam", "bam", ["chr21", "chrM"])
    row, columns = f"x H3K4me3 {path}", f"biosample assay {column}"
    if column == "peaks":
        row, columns = f"x H3K4me3 {anchor} {path}", "biosample assay file peaks"
    found = layers(bins(row, "-g", tmp_path / "hg38.sizes", "--folds", "0", columns=columns))
    layer = {"file": "counts", "signal": "signal", "peaks": "peaks"}[column]
    for chrom in ("chr21", "chrM"):
        assert found[f"{layer}/{chrom}"].nonzero()[0].tolist() == [40, 41]


@pytest.mark.parametrize("kind", ["bed", "bedgraph", "peaks"])
def test_two_names_of_one_chromosome_in_a_file_are_refused_and_none_is_lost(candi, tmp_path, kind):
    (tmp_path / "hg38.sizes").write_text("chr21\t46709983\nchrM\t16569\n")
    path = hg38_file(tmp_path / "f", kind, ["chr21", "21"])
    anchor = hg38_file(tmp_path / "anchor.bam", "bam", ["chr21", "chrM"])
    cells = {"bed": ("file", path), "bedgraph": ("file\tsignal", f"{anchor}\t{path}")}
    columns, files = cells.get(kind, ("file\tpeaks", f"{anchor}\t{path}"))
    (tmp_path / "sheet.tsv").write_text(f"biosample\tassay\t{columns}\nx\tH3K4me3\t{files}\n")
    ran = candi(
        "bin", "--covariates", tmp_path / "sheet.tsv", "-g", tmp_path / "hg38.sizes", "-o", tmp_path / "s.h5", "--quiet"
    )
    assert ran.code == 1
    (line,) = ran.errors
    assert line.startswith(f"candi bin: {path}: ")
    assert "chr21" in line
    assert not (tmp_path / "s.h5").exists()


# --- numbers that are large


def test_more_than_65535_reads_in_a_bin_are_kept_exactly(bins, tmp_path):
    reads = tmp_path / "deep.bed"
    reads.write_text("chr1\t1000\t1025\tr\t0\t+\n" * 70_000 + "chr1\t2000\t2025\tr\t0\t-\n" * 300)
    for rule in ("overlap", "five-prime"):
        store = bins(f"x H3K4me3 {reads}", "-g", SIZES, "--count", rule)
        found = layers(store)
        counts = found["counts/chr1"]
        assert counts.dtype == np.uint32
        assert (counts[40], counts[80], counts.sum()) == (70_000, 300, 70_300)
        np.testing.assert_array_equal(found["folds/chr1"].sum(axis=0), counts)
        assert attribute(store, "covariates")["depth"] == 70_300


@pytest.mark.parametrize("kind", ["bigwig", "bedgraph"])
def test_a_signal_beyond_100000_is_kept_exactly(bins, tmp_path, kind):
    values = np.array([123_456.789, 1e5 + 0.0078125, 3e38, 16_777_217.0, 1e-30], dtype=np.float32)
    starts = np.arange(5) * 25
    path = tmp_path / "s"
    if kind == "bigwig":
        with pyBigWig.open(str(path), "w") as track:
            track.addHeader(list(CHROMSIZES.items()))
            track.addEntries("chr1", starts.tolist(), values=values, span=25)
    else:
        lines = [f"chr1\t{start}\t{start + 25}\t{value!s}\n" for start, value in zip(starts, values, strict=True)]
        path.write_text("".join(lines))
    found = layers(bins(f"x H3K4me3 {path}", "-g", SIZES, columns="biosample assay signal"))["signal/chr1"]
    np.testing.assert_array_equal(found[:5], values)
    assert not found[5:].any()


# --- denoise reads what bin reads


def test_denoise_gives_one_track_for_bam_bed_and_stdin(candi, tmp_path, monkeypatch):
    sheet, options = tmp_path / "sheet.tsv", ("-r", "chr1:1-20000", "--device", "cpu", "--quiet")
    bed = write_bed(tmp_path / "reads.bed")
    values = []
    for number, reads in enumerate((BAM, bed, "-")):
        sheet.write_text(
            "biosample\tassay\tread_length\trun_type\tplatform\nx\tH3K4me3\t36\tsingle-ended\tIllumina HiSeq 2000\n"
        )
        if reads == "-":
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BAM.read_bytes())))
        out = tmp_path / f"{number}.bw"
        genome = ("-g", SIZES) if reads == bed else ()
        ran = candi("denoise", reads, "--covariates", sheet, "-o", out, *options, *genome)
        assert ran.code == 0, ran.err
        values.append(out.read_bytes())
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize("shift", ["99999999999,-5", "4,-99999999999", "2147483600,0"])
def test_a_shift_that_no_position_can_hold_is_refused(candi, tmp_path, shift):
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(f"biosample\tassay\tfile\nx\tH3K4me3\t{BAM}\n")
    ran = candi("bin", "--covariates", sheet, "-o", tmp_path / "s.h5", "--count", "five-prime", "--shift", shift)
    assert ran.code == 2
    (line,) = ran.errors
    assert "--shift" in line


@pytest.mark.parametrize("rule", ["overlap", "fragment"])
def test_a_shift_is_refused_where_no_five_prime_end_counts(candi, tmp_path, rule):
    sheet = TEST_DATA / "meta_one.tsv"
    ran = candi("bin", "--covariates", sheet, "-o", tmp_path / "s.h5", "--count", rule, "--shift", "75,-75")
    assert ran.code == 2
    (line,) = ran.errors
    assert line.endswith(f"--shift: has no meaning with --count {rule}; use --count five-prime or midpoint")
    assert not (tmp_path / "s.h5").exists()


def test_a_store_of_midpoints_states_its_rule_depth_run_type_and_blocks(bins, tmp_path):
    fragments, reads = tmp_path / "f.tsv", tmp_path / "r.bed"
    fragments.write_text("chr1\t1000\t1151\tACGTACGT-1\t1\n" * 3 + "chr1\t149990\t250000\tACGTACGT-1\t1\n")
    reads.write_text("chr1\t1000\t1036\tr\t0\t+\nchr1\t1114\t1150\tr\t0\t-\n")
    for path, read_length, run_type, bins_counted, blocks in (
        (fragments, "50", "paired-ended", {43: 3, 7999: 1}, [True, True, False, False]),
        (reads, "36", "single-ended", {43: 1, 42: 1}, [True, False, False, False]),
    ):
        store = bins(f"x H3K4me3 {path} {read_length}", "-g", SIZES, "--count", "midpoint", "--shift=75,-75",
                     columns="biosample assay file read_length")  # fmt: skip
        with Store.open(store) as opened:
            assert opened.rule == CountingRule("midpoint", shift=(75, -75))
            assert opened.covered_blocks("x", "chr1")[0].tolist() == blocks
        found = layers(store)
        assert {int(number): int(found["counts/chr1"][number]) for number in found["counts/chr1"].nonzero()[0]} == (
            bins_counted
        )
        np.testing.assert_array_equal(found["folds/chr1"].sum(axis=0), found["counts/chr1"])
        covariates = attribute(store, "covariates")
        assert (covariates["depth"], covariates["run_type"]) == (sum(bins_counted.values()), run_type)


def test_stdout_is_no_place_for_a_store(candi, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = candi("bin", "--covariates", TEST_DATA / "meta_one.tsv", "-o", "-")
    assert ran.code in (1, 2)
    (line,) = ran.errors
    assert "-o" in line
    assert list(tmp_path.iterdir()) == []


def test_reads_through_a_named_pipe_count_as_those_of_the_file(candi, tmp_path):
    pipe = tmp_path / "reads.fifo"
    os.mkfifo(pipe)
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text("biosample\tassay\nb\tx\n")
    reads = TEST_DATA / "sim2.H3K4me3.bam"
    writer = threading.Thread(target=lambda: pipe.write_bytes(reads.read_bytes()))
    writer.start()
    assert candi("bin", pipe, "--covariates", sheet, "-o", tmp_path / "pipe.h5", "--quiet").code == 0
    writer.join()
    assert candi("bin", reads, "--covariates", sheet, "-o", tmp_path / "file.h5", "--quiet").code == 0
    with Store.open(tmp_path / "pipe.h5") as one, Store.open(tmp_path / "file.h5") as other:
        for chrom in other.chromsizes:
            n_bins = other.n_bins(chrom)
            found, expected = (store.read("b", "x", "folds", chrom, 0, n_bins) for store in (one, other))
            np.testing.assert_array_equal(found, expected)


def test_a_bedgraph_alone_needs_the_lengths_of_chromosomes(candi, tmp_path):
    track, sheet, sizes = tmp_path / "a.bedgraph", tmp_path / "sheet.tsv", tmp_path / "sizes"
    track.write_text("chr1\t0\t100\t2.5\n")
    sheet.write_text(f"biosample\tassay\tsignal\nb\tx\t{track}\n")
    ran = candi("bin", "--covariates", sheet, "-o", tmp_path / "s.h5")
    assert ran.code == 1
    assert ran.errors[-1].endswith("a bedGraph does not say how long chromosomes are; give them with -g CHROM.SIZES")
    sizes.write_text("chr1\t1000\n")
    assert candi("bin", "--covariates", sheet, "-g", sizes, "-o", tmp_path / "s.h5", "--quiet").code == 0


def test_a_chromosome_that_a_store_cannot_name_is_refused(candi, tmp_path):
    sheet, sizes = tmp_path / "sheet.tsv", tmp_path / "sizes"
    sheet.write_text(f"biosample\tassay\tfile\nb\tx\t{TEST_DATA / 'sim2.H3K4me3.bam'}\n")
    sizes.write_text("chr1\t300010\na/b\t1000\n")
    ran = candi("bin", "--covariates", sheet, "-g", sizes, "-o", tmp_path / "s.h5")
    assert ran.code == 1
    assert "chromosome a/b holds a slash" in ran.errors[-1]
    assert not (tmp_path / "s.h5").exists()
